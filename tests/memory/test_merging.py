"""What says the same becomes one, with all sources and both histories; undoing it leaves both as they were."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.config import MemoryConfig, TrustConfig
from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Source, Status, Sticker
from tutelage.memory.consolidation import consolidate, plan
from tutelage.memory.contradictions import Bounds, open_contradictions
from tutelage.memory.merging import INTO, merge, part
from tutelage.memory.polarity import Agreement
from tutelage.memory.store import MemoryStore
from tutelage.record import Record
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split, Step, Task, Trajectory, now

ALWAYS, PARAPHRASE = "Always confirm the order id.", "Make sure to confirm the order id."
NEVER = "Never confirm the order id."
BEGAN = now()


class World:
    """A memory without a search; experiences are as old as they were learnt in order."""

    def __init__(self, folder: Path) -> None:
        self.record = Record.open(folder)
        self.config = MemoryConfig(similar=0.7, trust=TrustConfig(environments={"shop": 1.0, "bank": 1.0}))
        self.memory = MemoryStore(self.record, folder / "memory", self.config)
        self.count = 0

    def learn(self, text: str, **changes: Any) -> Experience:
        self.count += 1
        values: dict[str, Any] = {
            "environment": "shop",
            "family": "order",
            "goal": "Order {text}.",
            "content": Sticker(conditions=(text,), question="What comes next?"),
            "sources": (Source(trajectory=f"t{self.count}", task=f"shop/order@{self.count}", steps=(0,)),),
            "author": "a hand",
            "status": Status.ACTIVE,
            "created": BEGAN + timedelta(seconds=self.count),
        }
        return self.memory.add(Experience.model_validate({**values, **changes}))

    def episode(self, *shown: Experience, solved: bool, split: Split = Split.TRAIN) -> None:
        self.count += 1
        step = Step(observation="o", reply="a", action="a", diagnosis=Diagnosis(cause=Cause.PROGRESS), after="")
        item = Trajectory(
            task=Task(environment="shop", family="order", seed=self.count, split=split),
            goal="Order.",
            system="",
            policy="p",
            memory=True,
            steps=(step,),
            ending=Ending.SOLVED if solved else Ending.FAILED,
            shown=tuple(Shown(id=one.id, version=one.version, text="x") for one in shown),
        )
        self.record.add_trajectory(item, key=item.id, cycle=1, arm="rollouts")

    def status(self, item: Experience) -> Status:
        return self.memory.get(item.id).status

    def consolidate(self, **options: Any) -> Any:
        return consolidate(self.memory, self.record, self.config, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.memory.close()
    world.record.close()


def state(world: World) -> dict[str, tuple[Any, ...]]:
    """All that a merge changes."""
    return {
        item.id: (item.status, frozenset(item.sources), item.merged, item.trust) for item in world.memory.experiences()
    }


def test_a_paraphrase_is_merged_and_its_opposite_is_not(world: World) -> None:
    first, second, never = (world.learn(text) for text in (ALWAYS, PARAPHRASE, NEVER))
    world.episode(second, solved=True)
    found = world.consolidate()
    assert [(item.winner, item.loser) for item in found.merges] == [(second.id, first.id)], "more evidence stays"
    winner, loser = world.memory.get(second.id), world.memory.get(first.id)
    assert {source.task for source in winner.sources} == {"shop/order@1", "shop/order@2"}
    assert winner.merged == (first.id,)
    assert loser.status is Status.RETIRED
    assert (loser.change.by, loser.change.numbers[INTO]) == ("merging", second.id)
    assert world.status(never) is Status.ACTIVE
    assert [{item.first, item.second} for item in open_contradictions(world.memory, world.record)] == [
        {second.id, never.id}
    ]
    again = world.consolidate()
    assert (again.merges, again.retired) == ((), ())
    assert world.memory.history(first.id) == [first, loser], "a second consolidation writes nothing"
    assert len(open_contradictions(world.memory, world.record)) == 1


@pytest.mark.parametrize("side", ["winner", "loser"])
def test_undo_on_either_side_restores_both_and_holds(world: World, side: str) -> None:
    by_hand = (Source(trajectory="", task="", origin="user:bob"),)
    first, second = world.learn(ALWAYS), world.learn(PARAPHRASE, sources=by_hand, status=Status.CANDIDATE)
    assert (first.trust, second.trust) == (1.0, 0.6)
    before = state(world)
    world.consolidate()
    assert world.memory.get(first.id).trust == 0.6
    assert world.status(second) is Status.RETIRED
    world.memory.undo({"winner": first, "loser": second}[side].id, by="hand:ann")
    assert state(world) == before
    assert world.consolidate().merges == (), "what a hand parted stays two"
    for item in (first, second):
        with pytest.raises(RecordError, match="nothing to undo"):
            world.memory.undo(item.id, by="hand:ann")
    assert state(world) == before, "parting them is no change to take back"


def test_sources_that_came_later_stay_with_whom_they_came_to(world: World) -> None:
    first, second = world.learn(ALWAYS), world.learn(PARAPHRASE)
    world.consolidate()
    world.learn(ALWAYS)
    world.learn(PARAPHRASE)  # says exactly what the retired one says
    world.consolidate()
    tasks = [{source.task for source in world.memory.get(item.id).sources} for item in (first, second)]
    assert tasks == [{f"shop/order@{n}" for n in (1, 2, 3, 4)}, {"shop/order@2", "shop/order@4"}]
    part(world.memory, world.record, second.id, by="hand:ann")
    tasks = [{source.task for source in world.memory.get(item.id).sources} for item in (first, second)]
    assert tasks == [{"shop/order@1", "shop/order@3"}, {"shop/order@2", "shop/order@4"}]


def test_what_has_been_merged_twice_is_parted_everywhere(world: World) -> None:
    one, two, three = (world.learn(text) for text in (ALWAYS, PARAPHRASE, "Be sure to confirm the order id."))
    merge(world.memory, world.record, two.id, one.id, reason="r")
    merge(world.memory, world.record, three.id, two.id, reason="r")
    assert set(world.memory.get(three.id).merged) == {one.id, two.id}
    world.memory.undo(one.id, by="hand:ann")
    assert world.memory.get(three.id).merged == (two.id,)
    assert world.memory.get(two.id).merged == ()
    assert {source.task for source in world.memory.get(three.id).sources} == {"shop/order@2", "shop/order@3"}
    with pytest.raises(RecordError, match="is not merged"):
        part(world.memory, world.record, three.id, by="hand:ann")


def test_each_undo_goes_further_back(world: World) -> None:
    """Also past a merge in between, which stays parted once it was."""
    first, second = world.learn(ALWAYS), world.learn(PARAPHRASE)
    by = Change(by="hand:ann")
    world.memory.change(first.id, by, core="one")
    merge(world.memory, world.record, first.id, second.id, reason="r")
    world.memory.change(first.id, by, core="two")
    world.memory.undo(second.id, by="hand:ann")

    def undo() -> tuple[str, tuple[str, ...], int]:
        item = world.memory.undo(first.id, by="hand:ann")
        return item.core, item.merged, len(item.sources)

    assert [undo(), undo()] == [("one", (), 1), (first.core, (), 1)]
    for item in (first, second):
        with pytest.raises(RecordError, match="is as it was at first"):
            world.memory.undo(item.id, by="hand:ann")
    world.memory.change(first.id, by, core="three")
    assert undo() == (first.core, (), 1), "what came after an undo is taken back like any other change"


def test_what_was_earned_with_other_words_is_not_regained_by_parting(world: World) -> None:
    first, second = world.learn(ALWAYS), world.learn(PARAPHRASE)
    merge(world.memory, world.record, first.id, second.id, reason="r")
    other = Sticker(conditions=("Something else.",), question="Which?")
    world.memory.change(second.id, Change(by="hand:ann"), content=other)
    part(world.memory, world.record, second.id, by="hand:ann")
    assert (second.status, world.status(second)) == (Status.ACTIVE, Status.CANDIDATE)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["merge", "undo 0", "undo 1", "undo 2", "learn 0", "learn 1"]), max_size=8))
def test_whatever_is_done_sides_agree(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Whoever is named in `merged` is retired, and no source is ever lost."""
    world = World(tmp_path_factory.mktemp("w"))
    texts = (ALWAYS, PARAPHRASE, "Be sure to confirm the order id.")
    items = [world.learn(text) for text in texts]
    try:
        for step in steps:
            what, _, at = step.partition(" ")
            if what == "learn":
                world.learn(texts[int(at)])
            elif what == "merge":
                world.consolidate()
            else:
                with suppress(RecordError):  # nothing is left to undo
                    world.memory.undo(items[int(at)].id, by="hand:ann")
            every = world.memory.experiences()
            gone = {merged for item in every for merged in item.merged}
            assert all(world.status(item) is Status.RETIRED for item in every if item.id in gone)
            assert any(item.status is not Status.RETIRED for item in every)
            in_use = {source.task for item in every if item.status is not Status.RETIRED for source in item.sources}
            if "learn" not in " ".join(steps):
                assert in_use == {"shop/order@1", "shop/order@2", "shop/order@3"}
    finally:
        world.record.close()


def test_contradictions_are_resolved_by_measured_effects_and_never_by_how_episodes_ended(world: World) -> None:
    always, never = world.learn(ALWAYS), world.learn(NEVER)
    for _ in range(40):
        world.episode(always, solved=True)
        world.episode(never, solved=False)
    good, bad = Bounds(0.1, 0.4, "difference"), Bounds(-0.4, -0.1, "difference")
    unresolved: list[dict[str, Bounds]] = [
        {},
        {always.id: bad},
        {always.id: bad, never.id: Bounds(-0.2, 0.4, "difference")},
        {always.id: bad, never.id: Bounds(0.1, 0.4, "another difference")},
    ]
    for effects in unresolved:
        assert [found.winner for found in world.consolidate(effects=effects).contradictions] == [""]
    assert len(open_contradictions(world.memory, world.record)) == 1, "for people to look at"
    (found,) = world.consolidate(effects={always.id: bad, never.id: good}).contradictions
    assert found.winner == never.id
    beaten = world.memory.get(always.id)
    assert (beaten.status, beaten.change.by) == (Status.RETIRED, "evidence")
    assert beaten.change.numbers["high"] < beaten.change.numbers["other low"]
    assert open_contradictions(world.memory, world.record) == []


@pytest.mark.parametrize("split", list(Split))
def test_how_held_out_episodes_ended_decides_nothing(world: World, split: Split) -> None:
    first, second, other = (world.learn(text) for text in (ALWAYS, PARAPHRASE, "Close the dialog."))
    last = world.learn("Open the menu.")
    world.episode(second, last, solved=True, split=split)
    train = split is Split.TRAIN
    found = plan(world.memory.experiences(), world.record, MemoryConfig(capacity=2, similar=0.7))
    assert [item.winner for item in found.merges] == [second.id if train else first.id], "the older one of equal ones"
    assert [item[0] for item in found.retired] == [other.id if train else first.id], "the oldest never shown"
    counted = world.record.uses(split=Split.TRAIN)
    assert (second.id in counted, second.id in world.record.uses()) == (train, True)


def test_a_guardrail_that_always_forbids_what_a_skill_does(world: World) -> None:
    press = 'click(button "Submit")'
    skill = world.learn("", content={"kind": "skill", "preconditions": [], "procedure": [press], "verification": []})
    rule = {"kind": "guardrail", "trigger": [], "root_cause": "c", "forbidden": press, "remedy": "r"}
    guardrail = world.learn("", content=rule)
    world.learn("", content={**rule, "trigger": ["a dialog"]})
    (found,) = world.consolidate().contradictions
    assert (found.first, found.second) == (guardrail.id, skill.id)
    assert len(open_contradictions(world.memory, world.record)) == 1
    world.memory.move(guardrail.id, Status.RETIRED, Change(by="hand:ann", reason="too strict"))
    assert open_contradictions(world.memory, world.record) == []


def test_a_reader_decides_only_what_is_a_matter_of_words(world: World) -> None:
    """It says that everything is the same; what the rules tell apart stays two all the same."""
    texts = (ALWAYS, "Always check the order id.", NEVER, "Confirm 2 order ids.", "Confirm the order id if unsure.")
    items = [world.learn(text) for text in texts]
    asked = []

    def reader(pairs: Any) -> list[Agreement | None]:
        asked.extend(pairs)
        return [Agreement.SAME] * len(pairs)

    world.config = world.config.model_copy(update={"similar": 0.5})
    assert world.consolidate(reader=reader, dry_run=True).merges == ()
    assert asked == []
    found = world.consolidate(reader=reader)
    assert [(item.winner, item.loser, item.by) for item in found.merges] == [(items[0].id, items[1].id, "merger")]
    assert [world.status(item) is Status.RETIRED for item in items] == [False, True, False, False, False]
    count = len(asked)
    world.consolidate(reader=reader)
    assert len(asked) == count, "what it said is kept"


def test_a_reader_that_sees_a_contradiction_surfaces_it(world: World) -> None:
    world.learn(ALWAYS)
    world.learn("Always skip the order id.")
    world.config = world.config.model_copy(update={"similar": 0.5})
    world.consolidate(reader=lambda pairs: [Agreement.OPPOSITE] * len(pairs))
    assert len(open_contradictions(world.memory, world.record)) == 1


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(world: World) -> None:
    for text in (ALWAYS, PARAPHRASE, NEVER):
        world.learn(text)
    before = world.record.fingerprint()
    planned = world.consolidate(dry_run=True)
    assert world.record.fingerprint() == before
    assert planned == world.consolidate()


def test_other_places_are_left_alone(world: World) -> None:
    first = world.learn(ALWAYS)
    world.learn(PARAPHRASE, family="pay")
    world.learn(PARAPHRASE, environment="bank")
    world.learn(PARAPHRASE, status=Status.QUARANTINED)
    assert (found := world.consolidate()).merges == ()
    assert found.pairs == 0
    other = world.memory.experiences()[1]
    with pytest.raises(RecordError, match="cannot be one"):
        merge(world.memory, world.record, first.id, other.id, reason="r")
    assert world.status(first) is world.status(other) is Status.ACTIVE


def test_what_one_stands_for_need_not_be_here(world: World) -> None:
    """As after the import of a part of an export."""
    gone, kept = world.learn(PARAPHRASE, status=Status.RETIRED), world.learn(ALWAYS)
    world.memory.change(kept.id, Change(by="import:b"), merged=("exp_elsewhere", gone.id))
    world.consolidate()
    assert set(world.memory.get(kept.id).sources) == {*kept.sources, *gone.sources}


def test_a_killed_consolidation_goes_on_with_what_is_left(world: World) -> None:
    """Each merge is one transaction: after an error in the middle, what was begun is done or not done, and the rest
    is done the next time."""
    for text in (ALWAYS, PARAPHRASE, "Be sure to confirm the order id."):
        world.learn(text)
    planned = world.consolidate(dry_run=True)

    def killed(_: object) -> None:
        merge(world.memory, world.record, planned.merges[0].winner, planned.merges[0].loser, reason="r")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.consolidate(on_plan=killed)
    assert len(world.consolidate().merges) == len(planned.merges) - 1
    winner = world.memory.get(planned.merges[0].winner)
    assert len(winner.sources) == 3

"""Evidence and absorption on real episodes: students whose ability is known beforehand, and what becomes of memory."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.absorption import MEASUREMENT, reconcile, restorations
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import Config
from tutelage.cycle import DEMONSTRATIONS, SERVED, experience_trajectories, run_and_record
from tutelage.distilling import extract, judge
from tutelage.evaluate import MEASURING, seen_pairs
from tutelage.evidence import measurable, measure
from tutelage.experience import Change, Experience, Guardrail, Skill, Source, Status
from tutelage.gate import promote_by_hand, rollback
from tutelage.llm import LLM
from tutelage.measures import Finding, Measurement, Student
from tutelage.pairing import FIRST_PLACE
from tutelage.progress import Reporter
from tutelage.results import GateDoc, save
from tutelage.types import Cause, Context, Diagnosis, Ending, Policy, Reply, Split, Trajectory, Verdict
from tutelage.workspace import Workspace

QUIET = Reporter(None)
FAMILIES = ("copy", "form", "press", "tick")
Ability = Callable[[str, int, str], bool]
"""Whether the student solves a task of this family, with this seed, when it is shown this text."""


class Able:
    """Acts as the expert where it is able, and does nothing elsewhere; interrupted after so many replies."""

    label = "able (scripted)"

    def __init__(self, ability: Ability, replies: int) -> None:
        self.ability, self.left, self.expert = ability, replies, LLMPolicy(LLM("expert/toy", role="teacher"))

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        self.left -= len(contexts)
        if self.left < 0:
            raise KeyboardInterrupt
        return [self._reply(context) for context in contexts]

    def _reply(self, context: Context) -> Reply:
        system, first, *later = context.messages
        shown, _, rest = first.content.partition("Goal: ")
        place = re.match(r"toy/(\w+)@(\d+)#", context.key)
        assert place is not None
        if not self.ability(place[1], int(place[2]), shown):
            return Reply("noop()")
        plain = first.model_copy(update={"content": f"Goal: {rest}"})
        return self.expert.act([replace(context, messages=(system, plain, *later))])[0]

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is cached."""


class Trial(Workspace):
    """A workspace whose students have these abilities, by label."""

    abilities: dict[str, Ability]
    replies = 10**9

    def student_policy(self, student: Student) -> Policy:
        return Able(self.abilities[student.label], self.replies)

    def learn(self, family: str, words: str, **changes: object) -> Experience:
        """A skill drawn from the family's demonstration."""
        source = self.record.trajectories(arm=DEMONSTRATIONS, family=family)[0]
        values: dict[str, object] = {
            "environment": "toy",
            "family": family,
            "goal": source.goal,
            "content": Skill(preconditions=(), procedure=(words,), verification=()),
            "sources": (Source(trajectory=source.id, task=source.task.id),),
            "author": "test",
        }
        return self.memory.add(Experience.model_validate(values | changes))

    def train(self, ability: Ability) -> Student:
        """A student trained from the promoted one, and promoted through the gate."""
        parent = self.current_student()
        number = len(self.record.students())
        made = Student(number=number, stage="sft", cycle=number, parent=parent.id, weights="tiny")
        self.abilities[made.label] = ability
        self.record.add_student(made)
        self.record.promote(made.id, reason="test", evidence={})
        passed = {"promoted": True, "reason": "test", "candidate": made.label, "incumbent": parent.label}
        save(self.record, GateDoc.model_validate({"cycle": number, **passed}))
        reconcile(self)
        return made

    def use(self, label: str) -> None:
        self.record.promote(self.record.student(label).id, reason="test", evidence={})
        reconcile(self)

    def status(self, item: Experience) -> Status:
        return self.memory.get(item.id).status


def opened(folder: Path, ability: Ability, *, memory: Mapping[str, object] | None = None, **evidence: object) -> Trial:
    found = Trial(
        Config.model_validate(
            {
                "workspace": folder,
                "environments": [{"name": "toy", "families": list(FAMILIES)}],
                "teacher": {"model": "expert/toy"},
                "act": {"width": 8},
                "memory": {"top_k": 2, **(memory or {})},
                "evidence": {"pairs": 128, **evidence},
            }
        )
    )
    found.abilities = {"student@0": ability}
    if not found.record.trajectories(limit=1):
        tasks = found.suite.tasks(Split.TRAIN, 0, 2 * len(FAMILIES))
        run_and_record(found, tasks, found.acting(), arm=DEMONSTRATIONS, cycle=1, report=QUIET)
    return found


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    found = opened(tmp_path / "w", lambda family, seed, shown: False)
    yield found
    found.close()


def helped(family: str, seed: int, shown: str) -> bool:
    """Needs memory to press, never needs it to copy, is thrown by it when it ticks, and cannot fill in a form."""
    return {
        "press": "in capitals" in shown,
        "copy": True,
        "tick": not shown and seed % 5 < 2,
        "form": False,
    }[family]


def test_what_helps_is_active_what_is_held_is_absorbed_what_harms_is_retired_and_the_rest_waits(trial: Trial) -> None:
    items = {family: trial.learn(family, f"{family} in capitals") for family in FAMILIES}
    trial.abilities["student@0"] = helped
    found = measure(trial, "1/evidence", 1, QUIET)
    assert {family: trial.status(item) for family, item in items.items()} == {
        "press": Status.ACTIVE,
        "copy": Status.ABSORBED,
        "tick": Status.RETIRED,
        "form": Status.CANDIDATE,
    }
    by_family = {item.family: item for item in found.effects if not item.experience}
    assert by_family["toy/form"].finding is Finding.UNDECIDED, "0 % with it and without it is not absorption"
    assert by_family["toy/form"].difference.pairs == min(item.difference.pairs for item in by_family.values())
    assert sum(item.difference.pairs + item.seen for item in by_family.values()) <= 128
    changed = {family: trial.memory.get(item.id).change for family, item in items.items()}
    assert (changed["press"].by, changed["copy"].by, changed["tick"].by) == ("evidence", "absorption", "evidence")
    assert float(changed["press"].numbers["gain low"]) > 0 > float(changed["tick"].numbers["gain high"])
    assert trial.memory.get(items["copy"].id).absorbed_by == trial.current_student().id
    assert found.unmeasured == 0
    again = measure(trial, "1/evidence", 1, QUIET)
    assert again == found, "a finished measurement is not done again"


def test_tasks_are_set_apart_and_nothing_learns_from_them(trial: Trial) -> None:
    trial.abilities["student@0"] = helped
    trial.learn("form", "form in capitals")  # on which nothing can be decided
    measure(trial, "1/evidence", 1, QUIET, pairs=16)
    measure(trial, "2/evidence", 2, QUIET, pairs=16)
    off, on, alone = ([item.task for item in trial.record.trajectories(arm=arm)] for arm in MEASURING)
    assert {(task.split, task.seed >= FIRST_PLACE) for task in off + on} == {(Split.TRAIN, True)}
    assert set(off) == set(on)
    assert len(off) == len(set(off)) == 16, "the second measurement has tasks of its own"
    assert not alone
    assert not {item.task for item in experience_trajectories(trial)} & set(off)
    collected = trial.record.trajectories(arm=DEMONSTRATIONS)
    assert len(seen_pairs(trial.record)) <= len(collected), "a held-out task may look like one that only measured"


def test_an_interrupted_measurement_goes_on_as_it_would_have(tmp_path: Path) -> None:
    prints = []
    for name, stops in (("whole", ()), ("stopped", (3, 20, 60, 61))):
        trial = opened(tmp_path / name, helped, item_pairs=24)
        for family in FAMILIES:
            trial.learn(family, f"{family} in capitals")
            trial.learn(family, f"{family} slowly")
        trial.close()
        for replies in (*stops, 10**9):
            trial = opened(tmp_path / name, helped, item_pairs=24)
            trial.replies = replies
            try:
                measure(trial, "1/evidence", 1, QUIET)
            except KeyboardInterrupt:
                assert replies in stops
                body = trial.record.get(MEASUREMENT, "1/evidence")
                assert body is not None
                assert not Measurement.model_validate(body).finished
            else:
                prints.append(trial.record.fingerprint())
            trial.close()
    whole, stopped = prints
    assert whole["trajectories"] == stopped["trajectories"]
    assert whole["experiences"] == stopped["experiences"]
    assert whole["documents"] == stopped["documents"]


def test_alone_a_good_one_and_a_bad_one_are_told_apart(trial: Trial) -> None:
    """Shown together they are undecided: the bad one spoils what the good one gives."""
    good, bad = trial.learn("press", "press in capitals"), trial.learn("press", "press blindly")

    def ability(family: str, seed: int, shown: str) -> bool:
        if ("capitals" in shown) == ("blindly" in shown):
            return seed % 5 < 2
        return "capitals" in shown

    trial.abilities["student@0"] = ability
    found = measure(trial, "1/evidence", 1, QUIET, pairs=32, item_pairs=64)
    together = next(item for item in found.effects if not item.experience)
    assert together.finding is Finding.UNDECIDED
    assert found.chosen == (good.id, bad.id)
    assert (trial.status(good), trial.status(bad)) == (Status.ACTIVE, Status.RETIRED)
    measured = [(item.experience, item.alone) for item in found.effects if item.experience]
    assert measured == [(good.id, False), (good.id, True), (bad.id, False), (bad.id, True)]


@pytest.mark.parametrize("replies", [40, 250])
def test_what_is_forgotten_in_the_middle_is_no_longer_measured(trial: Trial, replies: int) -> None:
    kept, gone = trial.learn("press", "press in capitals"), trial.learn("press", "press blindly")
    trial.abilities["student@0"] = lambda family, seed, shown: "capitals" in shown and seed % 3 < 1
    trial.replies = replies
    with pytest.raises(KeyboardInterrupt):
        measure(trial, "1/evidence", 1, QUIET, pairs=16, item_pairs=64)
    chosen = Measurement.model_validate(trial.record.get(MEASUREMENT, "1/evidence")).chosen
    assert (chosen is None) == (replies == 40), "once before they are chosen, once after it"
    trial.memory.forget(gone.id, reason="asked for", by="hand:ada")
    trial.replies = 10**9
    found = measure(trial, "1/evidence", 1, QUIET)
    assert {item.experience for item in found.effects if item.alone} == {kept.id}


def test_a_student_that_is_able_without_memory_holds_what_was_too_seldom_shown_as_well(trial: Trial) -> None:
    """Three skills share two places in the prompt; whether one helps or harms is still its own matter."""
    items = [trial.learn("press", f"press {word} in capitals") for word in ("soon", "gently", "twice")]
    trial.abilities["student@0"] = lambda family, seed, shown: True
    found = measure(trial, "1/evidence", 1, QUIET, pairs=30)
    shown = {item.experience: item.difference.pairs for item in found.effects if item.experience}
    assert len(shown) < 3
    assert {trial.status(item) for item in items} == {Status.ABSORBED}


def test_absorbed_ones_leave_the_prompt_and_come_back_with_a_student_that_lost_them(trial: Trial) -> None:
    skill = trial.learn("press", "press in capitals")

    def able(family: str, seed: int, shown: str) -> bool:
        return True

    def shown(absorbed: bool = False) -> list[str]:
        task = trial.suite.only(["press"]).tasks(Split.TRAIN, 99, 1)[0]
        recaller = trial.memory.recaller(absorbed=True) if absorbed else trial.memory
        return [item.id for item in recaller.recall(task, "press up", "").shown]

    first = trial.train(able)
    measure(trial, "1/evidence", 1, QUIET, pairs=40)
    assert trial.memory.get(skill.id).absorbed_by == first.id
    assert (shown(), shown(absorbed=True)) == ([], [skill.id])

    tasks = trial.suite.only(["press"]).tasks(Split.TRAIN, 99, 3)
    run_and_record(trial, tasks, trial.acting(), arm="guarded", cycle=1, report=QUIET, memory=trial.memory)
    trial.train(able)
    held = measure(trial, "2/evidence", 2, QUIET, pairs=40).holdings
    assert held is not None
    assert (held.used, held.held, held.episodes) == (1, 1, 3)
    family = held.families["toy/press"]
    assert family.tokens_all > family.tokens_now == 0
    assert 0 < held.tokens_saved <= 3 * family.tokens_all + 3, "an item on trial was marked so when it was measured"
    assert trial.memory.get(skill.id).absorbed_by == first.id, "a student of the same line holds it still"

    trial.train(helped)
    moves = measure(trial, "3/evidence", 3, QUIET, pairs=40).moves
    assert [(move.experience, move.after) for move in moves] == [(skill.id, "candidate")]
    assert restorations(trial.record) == list(moves)
    assert "helps" in moves[0].reason
    assert shown() == [skill.id]


def test_a_rollback_restores_and_a_new_promotion_absorbs_again(trial: Trial) -> None:
    skill, other = trial.learn("press", "press in capitals"), trial.learn("form", "in capitals")
    trial.memory.move(skill.id, Status.ACTIVE, Change(by="hand:me"))
    made = trial.train(lambda family, seed, shown: True)
    measure(trial, "1/evidence", 1, QUIET, pairs=80)
    assert (trial.status(skill), trial.status(other)) == (Status.ABSORBED, Status.ABSORBED)
    assert "2 restored" in rollback(trial)
    assert (trial.status(skill), trial.status(other)) == (Status.ACTIVE, Status.CANDIDATE), "as each was before"
    assert trial.memory.get(skill.id).absorbed_by == ""
    assert "not in the line of student@0" in trial.memory.get(skill.id).change.reason
    assert reconcile(trial) == []
    assert {move.experience for move in restorations(trial.record)} == {skill.id, other.id}
    assert list(measurable(trial, trial.current_student())) == ["toy/form", "toy/press"], "of another student"
    assert "2 absorbed again" in promote_by_hand(trial, made.label, "second thoughts")
    assert trial.memory.get(skill.id).absorbed_by == made.id


def test_what_harms_an_able_student_is_retired_for_that_one_and_its_descendants(trial: Trial) -> None:
    held, harmful = trial.learn("copy", "copy in capitals"), trial.learn("press", "press blindly")
    trial.memory.move(harmful.id, Status.ACTIVE, Change(by="hand:me"))
    made = trial.train(lambda family, seed, shown: family == "copy" or "blindly" not in shown)
    found = measure(trial, "1/evidence", 1, QUIET, pairs=60)
    assert {item.family: item.finding for item in found.effects if not item.experience} == {
        "toy/copy": Finding.HELD,
        "toy/press": Finding.HARMS,
    }
    assert (trial.status(held), trial.status(harmful)) == (Status.ABSORBED, Status.RETIRED)
    assert trial.memory.get(harmful.id).change.reason.startswith("harms student@1, which is able without it: -100")
    assert found.holdings is not None
    assert (found.holdings.used, found.holdings.held, found.holdings.harmful) == (1, 1, 1)
    assert found.holdings.tokens_saved == 0
    trial.train(lambda family, seed, shown: True)
    assert trial.status(harmful) is Status.RETIRED, "a descendant"

    trial.use("student@0")
    back = trial.memory.get(harmful.id)
    assert (back.status, trial.status(held)) == (Status.CANDIDATE, Status.CANDIDATE)
    assert back.change.reason == "student@1, which it harms, is not in the line of student@0"
    assert {move.experience for move in restorations(trial.record)} == {held.id, harmful.id}
    assert "toy/press" in measurable(trial, trial.current_student())
    assert reconcile(trial) == []
    assert "1 absorbed again, 1 retired again" in promote_by_hand(trial, made.label, "second thoughts")
    assert (trial.status(held), trial.status(harmful)) == (Status.ABSORBED, Status.RETIRED)
    assert reconcile(trial) == []


def test_what_harms_a_descendant_is_still_held_by_the_one_that_absorbed_it(trial: Trial) -> None:
    skill = trial.learn("press", "press blindly")
    first = trial.train(lambda family, seed, shown: True)
    measure(trial, "1/evidence", 1, QUIET, pairs=40)
    second = trial.train(lambda family, seed, shown: "blindly" not in shown)
    measure(trial, "2/evidence", 2, QUIET, pairs=40)
    assert (trial.status(skill), trial.memory.get(skill.id).absorbed_by) == (Status.RETIRED, "")
    for label, status in (
        (first.label, Status.ABSORBED),
        ("student@0", Status.CANDIDATE),
        (second.label, Status.RETIRED),
        ("student@0", Status.CANDIDATE),
        (first.label, Status.ABSORBED),
    ):
        trial.use(label)
        assert (trial.status(skill), reconcile(trial)) == (status, []), label


def test_guardrails_are_replayed_over_what_is_recorded_by_now(trial: Trial) -> None:
    """One on trial becomes active with enough right actions beside it; one that right actions refute is retired."""
    rule = Guardrail(trigger=(), root_cause="It ends the task.", forbidden='click(button "cancel")', remedy="Submit.")
    wrong = rule.model_copy(update={"forbidden": 'click(button "submit")'})
    good, bad = trial.learn("copy", "", content=rule), trial.learn("copy", "", content=wrong)
    assert measure(trial, "1/evidence", 1, QUIET, pairs=0).moves[0].experience == bad.id
    clumsy = trial.suite.only(["copy"]).tasks(Split.TRAIN, 500, 60)
    run_and_record(trial, clumsy, trial.clumsy_teacher(), arm="mistaken", cycle=1, report=QUIET)
    for item in trial.record.trajectories(arm="mistaken"):
        cited = [index for index, step in enumerate(item.steps) if step.meaning == rule.forbidden]
        verdict = Verdict(trajectory=item.id, judge="test", successful=item.success, reason="r", cited=tuple(cited))
        trial.record.add_verdict(verdict)
    (move,) = measure(trial, "2/evidence", 2, QUIET, pairs=0).moves
    assert (move.experience, move.after) == (good.id, "active")
    numbers = trial.memory.get(good.id).change.numbers
    assert float(numbers["mistakes stopped"]) >= 1
    assert float(numbers["right actions high"]) <= trial.config.evidence.max_blocked


def test_only_conversations_of_trusted_callers_count_for_and_against_guardrails(tmp_path: Path) -> None:
    """What a stranger calls solved neither retires a rule nor keeps out one that is drawn here."""
    sources = {"own": 1.0, "user": 0.6, "live": 0.4, "live:ann": 0.9}
    trial = opened(tmp_path / "w", lambda family, seed, shown: False, memory={"trust": {"sources": sources}})
    tasks = trial.suite.only(["copy"]).tasks(Split.TRAIN, 500, 4)
    run_and_record(trial, tasks, trial.clumsy_teacher(), arm="mistaken", cycle=1, report=QUIET)
    rule = Guardrail(trigger=(), root_cause="r", forbidden='click(button "cancel")', remedy="Look.")
    hand = Source(trajectory="", task="", origin="user:me")
    stood = trial.learn("copy", "", content=rule, sources=(hand,))

    def said(item: Trajectory, caller: str) -> None:
        steps = [step.model_copy(update={"diagnosis": Diagnosis(cause=Cause.PROGRESS)}) for step in item.steps]
        steps.append(steps[-1].model_copy(update={"meaning": rule.forbidden}))
        change = {"origin": f"live:{caller}", "ending": Ending.SOLVED, "steps": tuple(steps)}
        made = item.model_copy(update={**change, "id": f"{caller}_{item.id}"})
        trial.record.add_trajectory(made, key=made.id, cycle=0, arm=SERVED)
        trial.record.add_verdict(Verdict(trajectory=made.id, judge="test", successful=True, reason="r", cited=()))

    failed = [item for item in trial.record.trajectories(arm="mistaken") if not item.success]
    for item in failed:
        said(item, "mallory")
    judge(trial, 1, QUIET)
    extract(trial, 1, QUIET)
    drawn = trial.memory.experiences(kind="guardrail")
    assert len(drawn) > 1, "beside the one written by hand"
    assert len((trial.record.get("extraction", "1") or {})["trajectories"]) == len(trial.record.trajectories())
    assert stood.id not in {move.experience for move in measure(trial, "1/evidence", 1, QUIET, pairs=0).moves}
    said(failed[0], "ann")
    assert stood.id in {move.experience for move in measure(trial, "2/evidence", 2, QUIET, pairs=0).moves}
    trial.close()

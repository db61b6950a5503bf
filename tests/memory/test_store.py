"""Memory finds what fits, never what was drawn from the same task, and keeps each thing once."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import MemoryConfig
from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Guardrail, Skill, Source, Status, Sticker
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.memory.text import ON_TRIAL, render
from tutelage.record import Record
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory

GOALS = {
    "login-user": 'Enter the username "{a}" and the password "{b}" into the text fields and press login.',
    "enter-text": 'Enter "{a}" into the text field and press Submit.',
    "enter-date": 'Enter "{a}" as the date and hit submit.',
    "choose-date": "Select {a} as the date and hit submit.",
    "choose-list": 'Select "{a}" from the list and click Submit.',
    "click-button": 'Click on the "{a}" button.',
    "click-checkboxes": "Select {a} and click Submit.",
    "click-color": "Click on the {a} colored box.",
    "click-collapsible": "Expand the section below and click submit.",
    "click-dialog": 'Close the dialog box by clicking the "x".',
    "click-link": 'Click on the link "{a}".',
    "click-menu": "Select {a} > {b} from the menu.",
    "click-option": "Select {a} and click Submit.",
    "click-tab": "Click on tab {a}.",
    "book-flight": "Book the cheapest one-way flight from {a} to {b} on {c}.",
    "email-inbox": "Find the email by {a} and reply to them with the text {b}.",
    "email-delete": "Delete this email from the inbox.",
    "find-word": "Find the {a}th word in the paragraph, type that into the textbox and press Submit.",
    "guess-number": "Guess the number between 0-9 and press Submit. Use the feedback below to find the right number.",
    "search-engine": "Use the textbox to enter {a} and press Search, then find and click the {b}th search result.",
    "social-media": "For the user {a}, click on the Share button.",
    "use-spinner": "Select {a} with the spinner and hit Submit.",
    "order-food": "Order one item that is {a} from the restaurant.",
}


def a_trajectory(family: str, seed: int, *, split: Split = Split.TRAIN, word: str = "Submit") -> Trajectory:
    steps = tuple(
        Step(
            observation=f'[r1] button "{name}"',
            reply='click("r1")',
            action='click("r1")',
            meaning=f'click(button "{name}")',
            diagnosis=Diagnosis(cause=Cause.PROGRESS),
            after="",
        )
        for name in ("Start", word)
    )
    return Trajectory(
        task=Task(environment="miniwob", family=family, seed=seed, split=split),
        goal=GOALS.get(family, family).format(a="alpha", b="beta", c="gamma"),
        system="",
        policy="expert/miniwob (scripted)",
        memory=False,
        steps=steps,
        ending=Ending.SOLVED,
    )


def an_experience(trajectory: Trajectory, content: object = None, **changes: object) -> Experience:
    family = trajectory.task.family
    values = {
        "environment": "miniwob",
        "family": family,
        "goal": GOALS.get(family, family),
        "content": content or Skill(preconditions=(), procedure=(f'click(button "{family}")',), verification=()),
        "sources": (Source(trajectory=trajectory.id, task=trajectory.task.id, steps=(1,)),),
        "status": Status.ACTIVE,
        "author": "rules (scripted)",
    }
    return Experience.model_validate({**values, **changes})


class World:
    """A record and its memory; `learn` puts a trajectory and what was drawn from it in."""

    def __init__(self, folder: Path) -> None:
        self.record = Record.open(folder)
        self.memory = MemoryStore(self.record, folder / "memory", MemoryConfig())

    def learn(
        self, family: str, seed: int = 0, content: object = None, *, word: str = "Submit", **changes: object
    ) -> Experience:
        trajectory = a_trajectory(family, seed, word=word)
        self.record.add_trajectory(trajectory, key=trajectory.id, cycle=1, arm="teacher")
        return self.memory.add(an_experience(trajectory, content, **changes))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.memory.close()
    world.record.close()


def test_a_paraphrase_and_a_verbatim_detail_are_both_found_among_many(world: World) -> None:
    for family in GOALS:
        world.learn(family, word="error XJ9-7741" if family == "book-flight" else "Submit")
    world.learn("click-pie", word="Quixotic")
    found = world.memory.search(Query("log in with the given user and password", kinds=("skill",)))
    assert found[0].experience.family == "login-user"
    # Neither half alone would do: the detail is not in the distilled text, the paraphrase not in the verbatim one.
    detail = world.memory.search(Query("xj9"))[0]
    assert (detail.experience.family, detail.keyword > 0) == ("book-flight", True)
    assert world.memory.search(Query("which one was quixotic?"))[0].experience.family == "click-pie"
    paraphrase = world.memory.search(Query("purchase airplane tickets"))[0]
    assert (paraphrase.experience.family, paraphrase.keyword) == ("book-flight", 0)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) == 5


def test_filters_and_an_empty_memory(world: World) -> None:
    assert world.memory.search(Query("anything")) == []
    skill = world.learn("login-user")
    sticker = world.learn("login-user", 1, Sticker(conditions=("two fields",), question="what next?"))
    candidate = world.learn("click-tab", status=Status.CANDIDATE)

    def found(**wanted: Any) -> set[str]:
        return {hit.experience.id for hit in world.memory.search(Query("log in", **wanted))}

    retired = world.learn("click-pie", status=Status.RETIRED, trust=0.5)
    assert found() == {skill.id, sticker.id, candidate.id}
    assert found(kinds=("sticker",)) == {sticker.id}
    assert found(statuses=()) == {skill.id, sticker.id, candidate.id, retired.id}
    assert found(statuses=(Status.CANDIDATE,)) == {candidate.id}
    assert found(statuses=(), min_trust=0.6) == {skill.id, sticker.id, candidate.id}
    assert found(family="click-tab") == {candidate.id}
    assert found(family="click-pie") == found(environment="other") == set()
    assert found(k=1) < {skill.id, sticker.id}


def test_nothing_drawn_from_the_task_itself_is_returned(world: World) -> None:
    own = world.learn("login-user", 7)
    rule = Guardrail(trigger=(), root_cause="c", forbidden='click(button "Cancel")', remedy="press login")
    world.learn("login-user", 7, rule)
    other = world.learn("login-user", 8, Skill(preconditions=(), procedure=("other()",), verification=()))
    task = Task(environment="miniwob", family="login-user", seed=7, split=Split.TRAIN)
    hits = world.memory.search(Query("log in", exclude_task=task.id))
    assert [hit.experience.id for hit in hits] == [other.id]
    recall = world.memory.recall(task, "log in", "")
    assert [shown.id for shown in recall.shown] == [other.id]
    assert recall.guardrails == ()
    elsewhere = world.memory.recall(task.model_copy(update={"seed": 9}), "log in", "")
    assert {shown.id for shown in elsewhere.shown} == {own.id, other.id}
    assert [item.content for item in elsewhere.guardrails] == [rule]
    # A merged experience counts every task it was drawn from.
    assert world.learn("login-user", 7, other.content).id == other.id
    assert world.memory.search(Query("log in", exclude_task=task.id)) == []


def test_recall_prefers_the_own_family_and_has_something_for_an_unseen_one(world: World) -> None:
    for family in GOALS:
        world.learn(family)
    # The same wording in several families: the own one comes first.
    for family in ("click-checkboxes", "click-option"):
        task = Task(environment="miniwob", family=family, seed=99, split=Split.TEST)
        shown = world.memory.recall(task, "Select tulip and click Submit.", '[r1] button "Submit"').shown
        assert len(shown) == MemoryConfig().top_k
        assert shown[0].text == f'Procedure: click(button "{family}")'
    unseen = task.model_copy(update={"family": "login-user-popup"})
    shown = world.memory.recall(unseen, 'Enter the username "bob" and the password "x" and press login.', "").shown
    assert shown[0].text == 'Procedure: click(button "login-user")'
    assert world.memory.recall(task.model_copy(update={"environment": "other"}), "log in", "").shown == ()


def test_the_same_again_is_merged_into_a_new_version_with_all_sources(world: World) -> None:
    first = world.learn("login-user", 1, status=Status.CANDIDATE)
    second = world.learn("login-user", 2, status=Status.CANDIDATE)
    assert (second.id, second.version, len(second.sources)) == (first.id, 2, 2)
    assert world.memory.add(second) == second
    assert world.memory.add(an_experience(world.record.trajectories()[0], status=Status.CANDIDATE)) == second
    measured = Change(by="evidence", reason="helps", numbers={"low": 0.1})
    active = world.memory.move(first.id, Status.ACTIVE, measured)
    assert (active.version, active.status, active.change) == (3, Status.ACTIVE, measured)
    assert world.memory.move(first.id, Status.ACTIVE, measured) == active
    assert [hit.experience for hit in world.memory.search(Query("log in"))] == [active]
    retired = world.memory.move(first.id, Status.RETIRED, Change(by="evidence", reason="of no use"))
    assert world.memory.search(Query("log in")) == []
    assert world.learn("login-user", 3).status is Status.RETIRED, "finding it again does not bring it back"
    assert [item.version for item in world.memory.history(first.id)] == [1, 2, 3, 4, 5]
    assert world.memory.history(first.id)[3] == retired
    assert world.memory.undo(first.id, by="hand:me").sources == retired.sources
    assert [item.version for item in world.memory.history(first.id)] == [1, 2, 3, 4, 5, 6]
    # Opposites are neighbours as vectors and must stay two things.
    always, never = (Sticker(conditions=(f"{word} confirm the id",), question="q") for word in ("always", "never"))
    assert world.learn("login-user", 4, always).id != world.learn("login-user", 5, never).id


def test_measuring_may_add_what_is_absorbed_leave_out_one_or_show_just_one(world: World) -> None:
    skill, other = world.learn("login-user"), world.learn("click-tab", 1)
    rule = world.learn("login-user", 2, Guardrail(trigger=(), root_cause="c", forbidden="x", remedy="y"))
    world.memory.move(skill.id, Status.ABSORBED, Change(by="absorption"))
    task = Task(environment="miniwob", family="login-user", seed=9, split=Split.TRAIN)

    def recalled(task: Task = task, **how: Any) -> tuple[set[str], set[str]]:
        recall = world.memory.recaller(**how).recall(task, "log in", "")
        return {shown.id for shown in recall.shown}, {item.id for item in recall.guardrails}

    assert recalled() == ({other.id}, {rule.id})
    assert recalled(absorbed=True) == ({skill.id, other.id}, {rule.id})
    assert recalled(absorbed=True, without=frozenset({other.id, rule.id})) == ({skill.id}, set())
    assert recalled(only=skill.id) == ({skill.id}, set())
    assert recalled(only=rule.id) == (set(), {rule.id})
    assert recalled(task.model_copy(update={"seed": 0}), only=skill.id) == (set(), set())


def test_of_many_all_are_kept_or_none(world: World) -> None:
    trajectories = [a_trajectory("login-user", seed) for seed in range(3)]
    held_out = a_trajectory("click-tab", 0, split=Split.TEST)
    for trajectory in (*trajectories, held_out):
        world.record.add_trajectory(trajectory, key=trajectory.id, cycle=1, arm="teacher")
    batch = [an_experience(trajectory) for trajectory in trajectories]
    with pytest.raises(RecordError, match="only train tasks may feed memory"):
        world.memory.add_many([*batch, an_experience(held_out)])
    assert world.memory.experiences() == world.memory.search(Query("log in")) == world.record.experiences() == []
    added = world.memory.add_many(batch)
    assert [(item.id, item.version) for item in added] == [(batch[0].id, version) for version in (1, 2, 3)]
    assert world.memory.add_many(batch) == [added[2]] * 3
    assert world.memory.experiences() == [added[2]]


def test_what_is_forgotten_is_found_no_more_and_is_in_no_file(world: World, tmp_path: Path) -> None:
    secret = world.learn("login-user", verbatim="swordfish7731", word="Swordfish7731")
    kept = world.learn("click-tab", 1, word="Trombone4242")
    assert {hit.experience.id for hit in world.memory.search(Query("swordfish7731"))} == {secret.id, kept.id}
    stone = world.memory.forget(secret.id, reason="a password", by="hand:me")
    assert world.memory.forget(secret.id, reason="again", by="hand:me") == stone
    assert [hit.experience.id for hit in world.memory.search(Query("swordfish7731"))] == [kept.id]
    with pytest.raises(RecordError, match=r"was forgotten on .*: a password"):
        world.memory.get(secret.id)
    with pytest.raises(RecordError, match="was forgotten"):
        world.memory.add(secret)
    # The words of an episode that is forgotten go too; what was drawn from it stays.
    assert world.memory.search(Query("trombone4242", mode="keyword"))[0].experience.id == kept.id
    for source in (*secret.sources, *kept.sources):
        world.record.forget_trajectory(source.trajectory, "private", "hand:me")
    assert world.memory.search(Query("trombone4242", mode="keyword")) == []
    assert world.memory.sources(kept.id) == []
    world.memory.close()
    vector = sqlite3.connect(tmp_path / "memory" / "search.db").execute("select id from derived").fetchall()
    assert vector == [(kept.id,)]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"wordfish7731" not in path.read_bytes(), path


def test_a_transaction_that_is_taken_back_leaves_nothing_in_search(world: World) -> None:
    kept = world.learn("click-tab")
    assert len(world.memory.search(Query("log in"))) == 1
    with suppress(ZeroDivisionError), world.record.transaction():
        lost = world.learn("login-user", 1)
        assert {hit.experience.id for hit in world.memory.search(Query("log in"))} == {kept.id, lost.id}
        raise ZeroDivisionError
    assert [hit.experience for hit in world.memory.search(Query("log in"))] == [kept]
    again = world.learn("login-user", 1)
    assert {hit.experience.id for hit in world.memory.search(Query("log in"))} == {kept.id, again.id}
    assert world.memory.stats()["indexed"] == 2


def test_drill_down_leads_to_the_very_steps(world: World) -> None:
    experience = world.learn("login-user", 1)
    ((trajectory, step, index),) = world.memory.sources(experience.id)
    assert (trajectory, index) == (world.record.trajectory(experience.sources[0].trajectory), 1)
    assert step == trajectory.steps[1]


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_held_out_tasks_never_feed_memory(world: World, split: Split) -> None:
    trajectory = a_trajectory("login-user", 0, split=split)
    world.record.add_trajectory(trajectory, key="k", cycle=1, arm="evaluation")
    with pytest.raises(RecordError, match="only train tasks may feed memory"):
        world.memory.add(an_experience(trajectory))
    assert world.memory.stats()["experiences"] == 0


def test_reindex_keeps_everything(world: World) -> None:
    for family in ("login-user", "click-tab", "book-flight"):
        world.learn(family)
    before = world.memory.search(Query("log in", k=3))
    assert world.memory.reindex() == 3
    after = world.memory.search(Query("log in", k=3))
    assert [hit.experience for hit in after] == [hit.experience for hit in before]
    assert world.memory.stats()["by_kind"] == {"skill": 3}


def test_prompts_get_one_short_line() -> None:
    trajectory = a_trajectory("login-user", 0)
    skill = Skill(preconditions=("p",), procedure=('fill(textbox "User",\n "{a}")', "b()"), verification=("v",))
    rule = Guardrail(trigger=('dialog "*"', "modal"), root_cause="c", forbidden="click(*)", remedy="close it")
    sticker = Sticker(conditions=("no date yet", "a picker"), question="Which month?")
    assert [render(an_experience(trajectory, content)) for content in (skill, rule, sticker)] == [
        'Procedure: fill(textbox "User", "{a}"); b()',
        'Never click(*) when dialog "*" and modal. close it',
        "Conditions: no date yet; a picker. Question: Which month?",
    ]


def test_what_is_absorbed_leaves_its_place_empty_and_what_is_on_trial_says_so(world: World) -> None:
    """Were others to fill the place, absorbing would save no prompt and bring in what fits less."""
    sticker = Sticker(conditions=("two text fields",), question="Log in?")
    skill, near = world.learn("login-user", status=Status.CANDIDATE), world.learn("login-user", 1, sticker)
    far = world.learn("click-tab", 2)
    task = Task(environment="miniwob", family="login-user", seed=9, split=Split.TRAIN)

    def texts() -> dict[str, str]:
        return {shown.id: shown.text for shown in world.memory.recall(task, "log in", "").shown}

    before = texts()
    assert before.keys() == {skill.id, near.id}
    assert {key: text.startswith(ON_TRIAL) for key, text in before.items()} == {skill.id: True, near.id: False}
    world.memory.move(skill.id, Status.ABSORBED, Change(by="absorption"))
    assert texts().keys() == {near.id}
    world.memory.move(near.id, Status.RETIRED, Change(by="evidence"))
    assert texts().keys() == {far.id}, "what is retired leaves its place to others"

"""What the record says to triggers that wait for data."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import Config, TrustConfig
from tutelage.cycle import DEMONSTRATIONS, EXPLORED, SERVED, accepted_trajectories
from tutelage.designs import DESIGNED
from tutelage.experience import Experience, Source, Status, Sticker
from tutelage.jobs.data_triggers import distance, look, mark
from tutelage.jobs.triggers import Kept, begin
from tutelage.measures import Student
from tutelage.service_config import TriggerConfig
from tutelage.types import OWN, Cause, Diagnosis, Ending, Split, Step, Task, Trajectory
from tutelage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with closing(Workspace(Config(workspace=tmp_path))) as workspace:
        yield workspace


def play(
    workspace: Workspace,
    *endings: Ending,
    arm: str = EXPLORED,
    policy: str = "student@0 (tiny)",
    causes: tuple[Cause, ...] = (Cause.PROGRESS,),
    origin: str = OWN,
    **task: Any,
) -> list[str]:
    """Record episodes that ended so; their ids."""
    found = []
    for ending in endings:
        seed = len(workspace.record.trajectories())
        steps = [Step(observation="o", reply="r", action="a", after="o", diagnosis=Diagnosis(cause=c)) for c in causes]
        item = Trajectory(
            task=Task(**{"environment": "toy", "family": "press", "seed": seed, "split": Split.TRAIN, **task}),
            goal="g",
            system="s",
            policy=policy,
            memory=False,
            steps=tuple(steps),
            ending=ending,
            origin=origin,
        )
        workspace.record.add_trajectory(item, key=f"{arm}/{seed}", cycle=0, arm=arm)
        found.append(item.id)
    return found


def remember(workspace: Workspace, name: str, status: Status = Status.ACTIVE, version: int = 1) -> None:
    content = Sticker(conditions=(name,), question="?")
    item = Experience(
        id=f"exp_{name}",
        version=version,
        environment="toy",
        family="press",
        goal="g",
        content=content,
        sources=(Source(trajectory="trj_1", task="toy/press@1"),),
        author="a hand",
        status=status,
    )
    workspace.record.save_experience(item)


def watched(workspace: Workspace, **settings: Any) -> tuple[TriggerConfig, Kept]:
    trigger = TriggerConfig(name="t", **settings)
    return trigger, begin(trigger, 0.0, mark(workspace.record, trigger))


SOLVED, FAILED = Ending.SOLVED, Ending.FAILED


def test_accepted_ones_are_counted_as_distilling_takes_them(workspace: Workspace) -> None:
    play(workspace, SOLVED, arm=DEMONSTRATIONS)
    trigger, kept = watched(workspace, accepted=4)
    before = len(accepted_trajectories(workspace))
    play(workspace, SOLVED, FAILED, arm=DEMONSTRATIONS)
    play(workspace, SOLVED, Ending.ENVIRONMENT_ERROR)
    play(workspace, SOLVED, arm="1/eval/after")
    play(workspace, SOLVED, split=Split.VALIDATION)
    designed = play(workspace, SOLVED, SOLVED, arm=DESIGNED, family=DESIGNED)
    workspace.record.put("annotation", "1", {"accepted": designed[:1], "failed": []})
    found = look(workspace.record, trigger, kept)
    assert found.far == f"{len(accepted_trajectories(workspace)) - before} of 4 accepted trajectories"
    assert (found.far[0], found.holds) == ("3", False)
    play(workspace, SOLVED)
    found = look(workspace.record, trigger, kept)
    assert found.holds
    later = kept.model_copy(update={"mark": found.mark})
    assert look(workspace.record, trigger, later).far.startswith("0 of 4"), "what it fired for is not counted again"


@pytest.mark.parametrize(
    ("settings", "ending", "causes"),
    [
        ({"accepted": 3}, SOLVED, (Cause.PROGRESS,)),
        ({"success_below": 0.6, "window": 10}, FAILED, (Cause.PROGRESS,)),
        ({"drift": 0.5, "window": 10}, SOLVED, (Cause.NO_EFFECT,)),
    ],
)
def test_served_conversations_fire_only_where_their_callers_are_trusted(
    workspace: Workspace, settings: dict[str, Any], ending: Ending, causes: tuple[Cause, ...]
) -> None:
    trigger, kept = watched(workspace, **settings)
    if trigger.drift:
        play(workspace, *[SOLVED] * 10)
    play(workspace, *[ending] * 10, arm=SERVED, origin="live:ann", causes=causes, environment="served")
    assert not look(workspace.record, trigger, kept).holds
    listed = TrustConfig(sources={"live": 0.4, "live:ann": 0.9})
    assert look(workspace.record, trigger, kept, listed).holds
    doubted = listed.model_copy(update={"environments": {"served": 0.1}})
    assert not look(workspace.record, trigger, kept, doubted).holds


def test_success_is_that_of_the_student_in_use(workspace: Workspace) -> None:
    trigger, kept = watched(workspace, success_below=0.6, window=10)
    play(workspace, *[FAILED] * 9)
    play(workspace, *[Ending.POLICY_ERROR] * 5)
    play(workspace, *[FAILED] * 5, arm="1/eval/after")
    play(workspace, *[FAILED] * 5, policy="expert/toy (scripted)")
    play(workspace, *[FAILED] * 5, policy="student@01")
    assert not look(workspace.record, trigger, kept).holds, "nine of ten episodes"
    play(workspace, SOLVED)
    found = look(workspace.record, trigger, kept)
    assert found.holds
    assert found.far == "student@0 solved 1 of its last 10 episodes, at most 40 % (bound: 60 %)"
    play(workspace, *[SOLVED] * 4)
    assert not look(workspace.record, trigger, kept).holds, "5 of the last 10: up to 76 %"
    workspace.base_student()
    better = Student(number=1, stage="sft", cycle=1, weights="students/1")
    workspace.record.add_student(better)
    workspace.record.promote(better.id, reason="better", evidence={})
    assert look(workspace.record, trigger, kept).far == "0 of 10 episodes of student@1"


def test_success_is_looked_at_again_after_as_many_new_episodes(workspace: Workspace) -> None:
    trigger, kept = watched(workspace, success_below=0.9, window=10)
    play(workspace, *[FAILED] * 10)
    found = look(workspace.record, trigger, kept)
    later = kept.model_copy(update={"mark": found.mark})
    play(workspace, *[FAILED] * 9)
    assert not look(workspace.record, trigger, later).holds
    play(workspace, FAILED)
    assert look(workspace.record, trigger, later).holds


def test_memory_counts_what_is_in_use_now(workspace: Workspace) -> None:
    trigger, kept = watched(workspace, memory_over=2, job="consolidate")
    remember(workspace, "a")
    remember(workspace, "b", Status.CANDIDATE)
    remember(workspace, "c", Status.QUARANTINED)
    assert not look(workspace.record, trigger, kept).holds
    remember(workspace, "d")
    found = look(workspace.record, trigger, kept)
    assert (found.holds, found.count) == (True, 3)
    fired = kept.model_copy(update={"count": found.count, "mark": found.mark})
    assert not look(workspace.record, trigger, fired).holds, "no more than when it fired"
    remember(workspace, "a", Status.RETIRED, version=2)
    assert look(workspace.record, trigger, kept).count == 2
    remember(workspace, "e")
    remember(workspace, "f")
    found = look(workspace.record, trigger, fired)
    assert found.holds
    assert found.mark > fired.mark


def test_drift_is_how_far_the_causes_have_moved(workspace: Workspace) -> None:
    trigger, kept = watched(workspace, drift=0.5, window=10)
    play(workspace, *[SOLVED] * 10, causes=(Cause.PROGRESS, Cause.SOLVED))
    assert look(workspace.record, trigger, kept).far == "10 of 20 episodes of student@0"
    play(workspace, *[FAILED] * 9, causes=(Cause.PROGRESS, Cause.UNKNOWN_TARGET))
    assert not look(workspace.record, trigger, kept).holds
    play(workspace, FAILED, causes=(Cause.PROGRESS, Cause.UNKNOWN_TARGET))
    found = look(workspace.record, trigger, kept)
    assert found.holds
    assert "0.50 away" in found.far
    play(workspace, *[SOLVED] * 10, causes=(Cause.PROGRESS, Cause.SOLVED))
    assert not look(workspace.record, trigger, kept).holds, "back to what it was"


def test_distance_of_two_mixes() -> None:
    assert distance({"a": 2}, {"a": 70}) == 0.0
    assert distance({"a": 2}, {"b": 1}) == 1.0
    assert distance({"a": 1, "b": 1}, {"a": 3, "b": 1}) == 0.25
    assert distance({}, {"a": 1}) == 0.0


def test_forgotten_episodes_count_no_more(workspace: Workspace) -> None:
    trigger, kept = watched(workspace, accepted=1)
    (item,) = play(workspace, SOLVED)
    assert look(workspace.record, trigger, kept).holds
    workspace.record.forget_trajectory(item, "asked to", "hand:me")
    assert not look(workspace.record, trigger, kept).holds

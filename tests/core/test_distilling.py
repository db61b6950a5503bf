"""The judge and extract steps of a cycle: what was passed over comes later; designed tasks have hints."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.config import Config
from tutelage.cycle import DEMONSTRATIONS, GUARDED, MISTAKEN, UNGUARDED, run_and_record
from tutelage.designs import DESIGNED
from tutelage.distilling import DISTILLED, consolidate, extract, judge
from tutelage.funnel import Funnel
from tutelage.progress import Reporter
from tutelage.types import Split, Trajectory
from tutelage.workspace import Workspace

QUIET = Reporter(None)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Six demonstrations of one family, and the same as five accepted designed tasks; two are distilled per family."""
    config = {
        "workspace": tmp_path / "w",
        "environments": [{"name": "toy", "families": ["press"]}],
        "teacher": {"model": "expert/toy"},
        "memory": {"distil_per_family": 2},
        "act": {"width": 1},
    }
    found = Workspace(Config.model_validate(config))
    tasks = found.suite.tasks(Split.TRAIN, 0, 6)
    run_and_record(found, tasks, found.acting(), arm=DEMONSTRATIONS, cycle=1, report=QUIET)
    played = run_episodes(tasks[:5], found.acting(), found.suite.make, act=found.config.act)
    for number, item in enumerate(played):
        task = item.task.model_copy(update={"family": DESIGNED, "seed": number})
        designed = item.model_copy(update={"task": task})
        found.record.add_trajectory(designed, key=f"annotation/a/{task.id}", cycle=0, arm=DESIGNED)
        found.record.put("hint", task.id, {"text": "The button was pressed."})
    filtered = Funnel(counts=(), losses=(), accepted=tuple(item.id for item in played))
    found.record.put("annotation", "a", filtered.model_dump(mode="json"))
    yield found
    found.close()


def test_designed_tasks_that_were_passed_over_are_distilled_by_later_extractions(workspace: Workspace) -> None:
    record, sizes = workspace.record, []
    for cycle in (1, 2, 3, 4):
        judge(workspace, cycle, QUIET)
        extract(workspace, cycle, QUIET)
        sizes.append(len(record.items(DISTILLED)))
    assert sizes == [4, 6, 7, 7], "two demonstrations stand for the other four; every designed task is distilled"
    looked_at = [item for body in record.items("extraction").values() for item in body["trajectories"]]
    assert sorted(looked_at) == sorted(item.id for item in record.trajectories()), "each was looked at once"
    assert len(record.verdicts()) == 11


def test_the_judge_of_a_designed_task_has_its_hint(workspace: Workspace) -> None:
    judge(workspace, 1, QUIET)
    hinted = {item.trajectory for item in workspace.record.verdicts() if item.hinted}
    assert hinted == {item.id for item in workspace.record.trajectories(arm=DESIGNED)}


def test_what_was_not_judged_is_left_for_a_later_extraction(workspace: Workspace) -> None:
    extract(workspace, 1, QUIET)
    assert workspace.record.items(DISTILLED) == {}
    assert workspace.record.verdicts() == []
    judge(workspace, 2, QUIET)
    extract(workspace, 2, QUIET)
    assert len(workspace.record.items(DISTILLED)) == 4


def test_with_guardrails_and_without_all_is_equal_until_one_steps_in(tmp_path: Path) -> None:
    config = {
        "workspace": tmp_path / "w",
        "environments": [{"name": "toy"}],
        "teacher": {"model": "expert/toy"},
        "collect": {"mistake_rate": 0.5, "guarded": 10},
    }
    workspace = Workspace(Config.model_validate(config))
    tasks = workspace.suite.tasks(Split.TRAIN, 0, 4)
    run_and_record(workspace, tasks, workspace.acting(), arm=DEMONSTRATIONS, cycle=1, report=QUIET)
    run_and_record(workspace, tasks, workspace.clumsy_teacher(), arm=MISTAKEN, cycle=1, report=QUIET)
    for step in (judge, extract, consolidate):
        step(workspace, 1, QUIET)
    pairs = list(zip(*(_by_task(workspace, arm) for arm in (UNGUARDED, GUARDED)), strict=True))
    blocks = 0
    for without, guarded in pairs:
        assert without.task == guarded.task
        stops = [place for place, step in enumerate(guarded.steps) if step.blocked_by is not None]
        end = stops[0] + 1 if stops else None  # the same action is tried, and held back
        assert [step.action for step in guarded.steps[:end]] == [step.action for step in without.steps[:end]]
        blocks += bool(stops)
    assert 0 < blocks < len(pairs)
    assert any(not without.success for without, _ in pairs)
    workspace.close()


def _by_task(workspace: Workspace, arm: str) -> list[Trajectory]:
    return sorted(workspace.record.trajectories(arm=arm), key=lambda item: item.task.id)

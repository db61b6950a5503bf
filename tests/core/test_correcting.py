"""Corrections in a workspace: asked for once, kept in the record, and there again for training."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tutelage.config import Config
from tutelage.correcting import Asker, correct
from tutelage.corrections import CORRECTION, kept
from tutelage.cycle import EXPLORED, run_and_record, train
from tutelage.errors import BudgetSpent
from tutelage.progress import Reporter
from tutelage.stage_config import SftConfig
from tutelage.types import Split
from tutelage.workspace import Workspace


class Lines(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def explored(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """``explored(calls)`` is a workspace with twelve clumsy episodes in the student's arm and so many calls left."""
    opened: list[Workspace] = []

    def make(folder: str = "a", calls: int = 0, corrected: int = 10) -> Workspace:
        plan = {
            "collect": {"corrected": corrected, "mistake_rate": 0.6},
            "act": {"width": 3},
            "student": {"weights": "tiny", "dtype": "float32"},
        }
        workspace = Workspace(Config.model_validate({"workspace": tmp_path / folder, **plan}))
        opened.append(workspace)
        tasks = workspace.suite.tasks(Split.TRAIN, 0, 12)
        run_and_record(workspace, tasks, workspace.clumsy_teacher(), arm=EXPLORED, cycle=1, report=Lines())
        if calls:
            budget = workspace.config.budget.model_copy(update={"calls": workspace.usage.total().calls + calls})
            workspace.config = workspace.config.model_copy(update={"budget": budget})
        return workspace

    yield make
    for workspace in opened:
        workspace.close()


def test_each_state_is_asked_about_once(explored: Callable[..., Workspace]) -> None:
    workspace, lines = explored(), Lines()
    correct(workspace, 1, lines, arm=EXPLORED)
    asked = workspace.usage.total().calls
    first = workspace.record.items(CORRECTION)
    assert len(first) == 10
    assert "10 states of the student, 10 corrections kept" in lines.said[-1]
    correct(workspace, 1, lines, arm=EXPLORED)
    assert workspace.record.items(CORRECTION) == first
    assert workspace.usage.total().calls == asked
    assert [item.key for _, item in kept(workspace.record)] == list(first)
    assert all(trajectory.id == item.trajectory for trajectory, item in kept(workspace.record))


def test_a_spent_budget_loses_nothing_and_the_rest_is_asked_for_later(explored: Callable[..., Workspace]) -> None:
    """Five calls are three actions and two words; the third state is asked about again."""
    workspace = explored(calls=5)
    with pytest.raises(BudgetSpent):
        correct(workspace, 1, Lines(), arm=EXPLORED)
    assert len(kept(workspace.record)) == 2
    workspace.config = workspace.config.model_copy(update={"budget": Config().budget})
    correct(workspace, 1, Lines(), arm=EXPLORED)
    whole = explored("b")
    correct(whole, 1, Lines(), arm=EXPLORED)
    interrupted, undisturbed = (
        [(item.task, correction.step, correction.reply, correction.words) for item, correction in kept(each.record)]
        for each in (workspace, whole)
    )
    assert interrupted == undisturbed, "a run that was stopped trains on the same rows"


def test_the_next_student_is_trained_on_them(explored: Callable[..., Workspace]) -> None:
    workspace = explored()
    correct(workspace, 1, Lines(), arm=EXPLORED)
    train(workspace, 1, Lines(), [SftConfig(steps=3)])
    (rows,) = (item["value"] for item in workspace.record.metrics("1/0-sft") if item["name"] == "rows_corrected")
    assert rows == 10
    failed = {item.id for item, _ in kept(workspace.record) if not item.success}
    assert failed & set(workspace.record.students()[-1].trajectories)


def test_without_the_setting_nobody_is_asked(explored: Callable[..., Workspace]) -> None:
    workspace, lines = explored(corrected=0), Lines()
    correct(workspace, 1, lines, arm=EXPLORED)
    assert (workspace.record.items(CORRECTION), lines.said) == ({}, [])


def test_rollouts_have_one_correction_each_at_most(explored: Callable[..., Workspace]) -> None:
    workspace = explored()
    episodes = workspace.record.trajectories(arm=EXPLORED)
    found = Asker(workspace)(episodes)
    asked = [item.trajectory for item in found]
    assert len(asked) == len(set(asked))
    assert {item.id for item in episodes if not item.success} <= set(asked)
    assert workspace.record.items(CORRECTION) == {}

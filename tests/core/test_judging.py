"""Measuring a judge in a workspace: kept, used again, and shown."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.agents.calibration import Calibration
from tutelage.config import BudgetConfig, Config, EnvironmentConfig, TeacherConfig
from tutelage.errors import BudgetSpent
from tutelage.judging import CALIBRATION, calibrate_judge
from tutelage.progress import Reporter
from tutelage.workspace import Workspace

ENVIRONMENTS = (
    EnvironmentConfig(name="files", families=("append", "move")),
    EnvironmentConfig(name="sqlite", families=("count",)),
    EnvironmentConfig(name="bfcl"),
)


def opened(
    folder: Path, calls: int = 0, votes: int = 1, environments: tuple[EnvironmentConfig, ...] = ENVIRONMENTS
) -> Workspace:
    config = Config(
        workspace=folder,
        environments=environments,
        teacher=TeacherConfig(model="expert/*", votes=votes),
        budget=BudgetConfig(calls=calls),
    )
    return Workspace(config)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    found = opened(tmp_path / "w")
    yield found
    found.close()


def test_a_judge_is_measured_per_environment_and_the_result_is_kept(workspace: Workspace) -> None:
    found = calibrate_judge(workspace, "", 18, Reporter(None))
    assert (found.judge, found.n) == ("expert/* (scripted)", 18)
    assert {name: part.n for name, part in found.by_environment.items()} == {"files": 9, "sqlite": 9}
    assert 0 < found.positives < found.n
    assert found.fit(0.9)
    assert Calibration.model_validate(workspace.record.get(CALIBRATION, found.judge)) == found
    assert not workspace.record.trajectories(arm="demonstrations")
    assert {item.task.split for item in workspace.record.trajectories(arm=CALIBRATION)} == {"train"}


def test_what_was_judged_before_is_used_again(workspace: Workspace) -> None:
    first = calibrate_judge(workspace, "", 6, Reporter(None))
    known = [item.id for item in workspace.record.trajectories(arm=CALIBRATION)]
    calls = workspace.usage.total().calls
    assert calibrate_judge(workspace, "", 6, Reporter(None)) == first
    assert workspace.usage.total().calls == calls == 6
    assert calibrate_judge(workspace, "", 9, Reporter(None)).n == 9
    assert workspace.usage.total().calls == 9
    assert [item.id for item in workspace.record.trajectories(arm=CALIBRATION)][:6] == known


def test_a_later_measurement_on_fewer_episodes_takes_nothing_back(workspace: Workspace, tmp_path: Path) -> None:
    whole = calibrate_judge(workspace, "", 12, Reporter(None))
    assert calibrate_judge(workspace, "", 3, Reporter(None)).model_dump() == whole.model_dump()
    assert Calibration.model_validate(workspace.record.get(CALIBRATION, whole.judge)).n == 12
    workspace.close()
    files = opened(tmp_path / "w", environments=ENVIRONMENTS[:1])
    found = calibrate_judge(files, "", 3, Reporter(None))
    assert found.model_dump(exclude={"by_environment"}) == whole.by_environment["files"].model_dump(
        exclude={"by_environment"}
    )
    files.close()
    fresh = opened(tmp_path / "w", votes=3)
    before = fresh.usage.total().calls
    assert calibrate_judge(fresh, "", 3, Reporter(None)).n == 3, (
        "what only another judge has seen is not paid for again"
    )
    assert fresh.usage.total().calls == before + 9
    fresh.close()


def test_several_votes_are_another_judge(workspace: Workspace, tmp_path: Path) -> None:
    calibrate_judge(workspace, "", 3, Reporter(None))
    workspace.close()
    again = opened(tmp_path / "w", votes=3)
    found = calibrate_judge(again, "", 3, Reporter(None))
    assert found.judge == "expert/* (scripted), 3 votes"
    assert set(again.record.items(CALIBRATION)) == {"expert/* (scripted)", found.judge}
    assert len(again.record.verdicts()) == 6
    again.close()


def test_a_spent_budget_loses_nothing(tmp_path: Path) -> None:
    poor = opened(tmp_path / "w", calls=2)
    with pytest.raises(BudgetSpent):
        calibrate_judge(poor, "", 6, Reporter(None))
    assert len(poor.record.trajectories(arm=CALIBRATION)) == 6
    assert len(poor.record.verdicts()) == 2
    poor.close()


def test_without_a_scripted_expert_nothing_is_measured_and_the_judge_is_not_fit(tmp_path: Path) -> None:
    bare = opened(tmp_path / "w", environments=ENVIRONMENTS[-1:])
    found = calibrate_judge(bare, "", 6, Reporter(None))
    assert (found.n, found.fit(0.0)) == (0, False)
    bare.close()


def test_the_command_prints_figures_and_leaves_the_kept_settings_alone(workspace: Workspace, tmp_path: Path) -> None:
    kept = (tmp_path / "w" / "config.json").read_text()
    command = [sys.executable, "-m", "tutelage.cli", "calibrate", "-n", "15", "--votes", "3"]
    for more in (["--json"], []):
        done = subprocess.run(
            [*command, *more, "--set", f"workspace={tmp_path / 'w'}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if more:
            told = json.loads(done.stdout)
            assert (told["n"], told["fit"]) == (15, True)
        else:
            assert "files + sqlite" in done.stdout
            assert "fit to filter: precision of expert/* (scripted), 3 votes is" in done.stdout
    assert (tmp_path / "w" / "config.json").read_text() == kept

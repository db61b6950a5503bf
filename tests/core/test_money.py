"""The command `tutelage cost`."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli import money
from tutelage.config import load_config
from tutelage.usage import Usage
from tutelage.workspace import Workspace


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    return ["environments.0.name=toy", "teacher.judge=openai/gpt-4o-mini", f"workspace={tmp_path / 'workspace'}"]


def cost(*arguments: str, settings: list[str]) -> str:
    sets = [item for setting in settings for item in ("--set", setting)]
    done = CliRunner().invoke(money.app, ["cost", *arguments, *sets], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_looking_at_costs_makes_no_workspace(settings: list[str], tmp_path: Path) -> None:
    shown = cost("--tasks", "7", settings=settings)
    assert "7 designed tasks" in shown
    assert "0 (scripted)" in shown
    assert "openai/gpt-4o-mini" in shown
    assert "Nothing has been spent so far." in shown
    assert list(tmp_path.iterdir()) == []


def test_what_was_spent_is_told_by_role_and_cycle(settings: list[str], tmp_path: Path) -> None:
    workspace = Workspace(load_config(None, settings))
    stored = (tmp_path / "workspace" / "config.json").read_text()
    for cycle, calls in ((None, 1), (1, 2), (2, 4)):
        if cycle is not None:
            workspace.usage.begin_cycle(cycle)
        workspace.usage.add("judge", Usage(calls=calls, dollars=calls / 4, replayed=calls))
        workspace.usage.save("judge")
    workspace.close()
    told: dict[str, Any] = json.loads(cost("--json", settings=[*settings, "budget.calls=10"]))
    spent = {name: roles["judge"]["calls"] for name, roles in told["spent"]["by_cycle"].items()}
    assert spent == {"1": 2, "2": 4, "by hand": 1}
    assert told["spent"]["by_role"]["judge"]["dollars"] == told["spent"]["total"]["dollars"] == 1.75
    assert sum(line["calls"] for line in told["run"]["lines"]) == told["run"]["total"]["calls"] > 0
    assert told["annotate"]["tasks"] == 20
    assert "budget.calls leaves 3 of 10" in told["warnings"][0]
    assert "by hand" in cost(settings=settings)
    assert (tmp_path / "workspace" / "config.json").read_text() == stored, "looking changes no settings"

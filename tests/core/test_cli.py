"""The command line as a user meets it: one clear line and exit code 2 for what is wrong, JSON for programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def tutelage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "tutelage.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    return f"workspace={tmp_path / 'workspace'}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--set", "act.widht=4"], "act.widht"),
        (["memory", "query", "anything"], "no workspace"),
        (["env", "show", "nowhere"], "known: bfcl"),
        (["env", "show", "toy", "--family", "chess"], "no task family 'chess'"),
        (["rollout", "--set", "environments.0.families=['chess']"], "no task family chess"),
        (["rollout", "--policy", "nobody"], "unknown policy 'nobody'"),
        (["rollout", "--policy", "expert/chess"], "chess"),
        (["rollout", "--policy", "student", "--set", "student.weights=/nowhere/at-all"], "/nowhere/at-all"),
        (["rollout", "-n", "3", "--set", "budget.calls=2"], "budget"),
        (["rollout", "--set", "environments.0.name=miniwob", "--set", "teacher.model=expert/miniwob",
          "--set", "environments.0.settings={executable='/nowhere/chromium'}"], "apt-get install -y chromium"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_exit_code_2(arguments: list[str], named: str, workspace: str) -> None:
    where = [] if arguments[0] == "env" else ["--set", workspace]
    done = tutelage(*arguments, *where)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert named in errors[0]
    assert "Traceback" not in done.stderr


def test_rollout_is_recorded_and_listed(workspace: str) -> None:
    done = tutelage("rollout", "-n", "1", "--json", "--set", workspace)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["solved"] == made["episodes"] > 0
    listed = json.loads(tutelage("trajectories", "list", "--json", "--set", workspace).stdout)
    assert {item["id"] for item in listed} == {item["id"] for item in made["trajectories"]}
    assert "(scripted)" in listed[0]["policy"]
    shown = tutelage("trajectories", "show", listed[0]["id"], "--set", workspace)
    assert listed[0]["goal"] in shown.stdout


def test_a_spent_budget_keeps_what_was_done(workspace: str) -> None:
    done = tutelage("rollout", "-n", "20", "--set", workspace, "--set", "budget.calls=40", "--set", "act.width=2")
    assert done.returncode == 2
    assert json.loads(tutelage("trajectories", "list", "--json", "--set", workspace).stdout)

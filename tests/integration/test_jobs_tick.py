"""The one-shot: fires what is due, works the queue off in processes of their own, and exits with 1 if a job failed."""

import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from commands import command

SETTINGS = """
workspace = "{workspace}"
[[environments]]
name = "toy"
[student]
weights = "tiny"
[jobs]
poll = 0.1
heartbeat = 0.5
[[triggers]]
name = "often"
every = 0.2
job = "extract"
[[triggers]]
name = "nightly"
cron = "0 3 29 2 *"  # hardly while this runs
timezone = "Europe/Berlin"
[[triggers]]
name = "enough"
accepted = 20
"""

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on the settings above; its exit code, and what it prints as JSON."""
    config = tmp_path / "service.toml"
    config.write_text(SETTINGS.format(workspace=tmp_path / "workspace"))

    def run(*words: str) -> tuple[int, Any]:
        with redirect_stdout(StringIO()) as out:
            code = command("jobs", *words, "--config", str(config), "--json")
        return code, json.loads(out.getvalue())

    return run


def test_tick_fires_works_and_tells_of_failures(run: Run) -> None:
    assert run("tick") == (0, {"fired": [], "jobs": []}), "triggers start from now"
    assert [row["next"] for row in run("triggers")[1]][2] == "0 of 20 accepted trajectories"
    time.sleep(0.3)
    code, told = run("tick", "--no-work")
    assert (code, [item["trigger"] for item in told["fired"]], told["jobs"]) == (0, ["often"], [])
    run("submit", "evaluate", "--param", 'family=["nope"]')
    code, told = run("tick")
    assert code == 1
    assert told["fired"] == [], "its last job is not over"
    assert [(job["kind"], job["state"]) for job in told["jobs"]] == [("extract", "succeeded"), ("evaluate", "failed")]
    rows = {row["name"]: row for row in run("triggers")[1]}
    assert rows["often"]["last_job"] == told["jobs"][0]["id"]
    assert rows["often"]["last"].endswith("succeeded")
    assert rows["nightly"]["next"].endswith("-02-29 03:00:00 CET")
    assert rows["nightly"]["last"] == "never"

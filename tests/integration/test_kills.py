"""A cycle killed at random moments and started again ends with the record of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from same_work import UNLIKE

from tutelage.record import Record

SETTINGS = {
    "environments.0.name": "toy",
    "teacher.model": "expert/toy",
    "student.weights": "tiny",
    "student.dtype": "float32",
    "act.width": 1,
    "act.max_steps": 4,
    "collect.demonstrations": 4,
    "collect.mistaken": 3,
    "collect.explored": 1,
    "collect.guarded": 1,
    "evaluate.episodes": 6,
    "evaluate.between": 3,
    "evaluate.with_memory": 3,
    "evaluate.test": 3,
    "evidence.pairs": 8,
    "evidence.item_pairs": 4,
    "gate.min_gain": -1,
}
STAGES = [
    {"type": "sft", "steps": 6, "batch_size": 4, "learning_rate": 1e-3},
    {"type": "grpo", "steps": 2, "batch_size": 4, "group_size": 2},
    {"type": "sdpo", "steps": 2, "batch_size": 4, "group_size": 2},
]


def command(workspace: Path) -> list[str]:
    config = workspace.with_suffix(".toml")
    stages = "\n".join(
        "[[stages]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in stage.items()) for stage in STAGES
    )
    config.write_text(stages)
    settings = {"workspace": workspace.name, **SETTINGS}
    sets = [item for key, value in settings.items() for item in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "tutelage.cli", "run", "--json", "--config", str(config), *sets]


def finish(workspace: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(workspace), cwd=workspace.parent, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def kill_after(workspace: Path, seconds: float) -> bool:
    """Start the cycle and kill it; whether it was still running then."""
    process = subprocess.Popen(
        command(workspace),
        cwd=workspace.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def fingerprint(workspace: Path) -> dict[str, list[dict[str, object]]]:
    record = Record.open(workspace)
    try:
        return record.fingerprint(without=UNLIKE)
    finally:
        record.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[dict[str, object]]], float]:
    """The record of a cycle that was left alone, and how many seconds it took."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "workspace"
    began = time.monotonic()
    finish(workspace)
    return fingerprint(workspace), time.monotonic() - began


def test_killed_cycles_end_like_an_undisturbed_one(undisturbed, tmp_path: Path, full_counts: bool) -> None:
    expected, seconds = undisturbed
    kills, wanted = 0, 50 if full_counts else 3
    moments = random.Random(20261121)
    while kills < wanted:
        workspace = tmp_path / str(kills) / "workspace"
        workspace.parent.mkdir(exist_ok=True)
        for _ in range(min(3, wanted - kills)):
            kills += kill_after(workspace, moments.uniform(2.0, seconds))
        finish(workspace)
        found = fingerprint(workspace)
        assert found.keys() == expected.keys()
        for table, rows in expected.items():
            assert found[table] == rows, f"{table} differs after {kills} kills"


def test_finished_cycle_is_left_alone(undisturbed, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    first = finish(workspace)
    before = fingerprint(workspace)
    again = finish(workspace)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert fingerprint(workspace) == before

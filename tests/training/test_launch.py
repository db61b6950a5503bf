"""A stage in two processes makes the student that one process makes, and they end together."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tutelage.config import Config, load_config
from tutelage.cycle import DEMONSTRATIONS, run_and_record, task_block
from tutelage.errors import ConfigError, TutelageError
from tutelage.measures import Student
from tutelage.training import weights
from tutelage.training.base import StageContext, run_stage
from tutelage.training.launch import Done, failure
from tutelage.types import Split, Trajectory
from tutelage.workspace import Workspace

HERE = Path(__file__).parent
ESTIMATES = {"kl", "entropy", "entropy_failed"}
"""Figures that are means of each process's own means, or of other episodes of a group."""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`together`, here and in the processes that are started."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """``workspace(folder, processes)`` opens one with the `Chance` environment."""
    opened: list[Workspace] = []

    def make(folder: str, processes: int) -> Workspace:
        config = {
            "workspace": tmp_path / folder,
            "environments": [{"name": "together:Chance", "families": ["press", "copy"]}],
            "teacher": {"model": "expert/toy"},
            "student": {
                "weights": "tiny", "dtype": "float32", "max_new_tokens": 6, "processes": processes
            },
            "act": {"max_steps": 3},
            "stages": [],
        }  # fmt: skip
        opened.append(Workspace(Config.model_validate(config)))
        return opened[-1]

    yield make
    for item in opened:
        item.close()


def context_of(workspace: Workspace, told: list[tuple[str, int, int]]) -> StageContext:
    block = task_block(workspace, Split.TRAIN, 1, 0, 2)
    run_and_record(workspace, block, workspace.acting(), arm=DEMONSTRATIONS, cycle=1, report=lambda *_: None)
    return StageContext(
        record=workspace.record,
        workspace=workspace.folder,
        config=workspace.config,
        cycle=1,
        student=workspace.base_student(),
        number=1,
        tasks=task_block(workspace, Split.TRAIN, 1, 100, 2),
        trajectories=workspace.record.trajectories(arm=DEMONSTRATIONS),
        make_environment=workspace.suite.make,
        memory=workspace.memory,
        seed=3,
        progress=lambda *what: told.append(what),
    )


def teacher(workspace: Workspace) -> None:
    """Student 50, which is like the base student but for some noise."""
    model, tokenizer = weights.load("tiny")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    digest = weights.save(model, tokenizer, workspace.folder / "students" / "50")
    workspace.record.add_student(
        Student(number=50, stage="sft", cycle=0, weights="students/50", digest=digest, parent=None)
    )


def actions(trajectories: list[Trajectory]) -> list[tuple[object, ...]]:
    return [(item.task.id, item.reward, item.policy, *(step.tokens for step in item.steps)) for item in trajectories]


def test_two_processes_make_what_one_makes(workspace) -> None:
    from together import STAGES, Several

    made, told = [], []
    for count in (1, 2):
        space = workspace(str(count), count)
        teacher(space)
        made.append((space, run_stage(Several(), context_of(space, told))))
    (alone, one), (both, two) = made
    for number, stage in enumerate(STAGES, start=1):
        first, second = (weights.load(str(space.folder / "students" / str(number)))[0] for space in (alone, both))
        far = max((a - b).abs().max().item() for a, b in zip(first.parameters(), second.parameters(), strict=True))
        start = weights.load("tiny")[0]
        moved = max((a - b).abs().max().item() for a, b in zip(first.parameters(), start.parameters(), strict=True))
        assert moved > 1e-4, f"{stage.type} has learnt nothing"
        assert far < moved / 100, f"{stage.type}: {far} apart after moving by {moved}"
        figures = [dict(result.metrics)[number] for result in (one, two)]
        for name in (name for name in figures[0] if "second" not in name and name not in ESTIMATES):
            assert figures[1][name] == pytest.approx(figures[0][name], rel=1e-3, abs=1e-5), f"{stage.type}: {name}"
        if stage.type != "sft":
            ours, theirs = (actions(space.record.trajectories(arm=stage.type)) for space in (alone, both))
            assert len(ours) == stage.steps * stage.batch_size
            assert [item[:3] for item in ours] == [item[:3] for item in theirs]
    assert not list((both.folder / "students").glob("*.*")), "nothing is left of the processes"
    assert told.count(("grpo", 2, 2)) == 2, "the first process's progress is told here"


def test_killed_and_run_again_they_make_what_they_would_have(workspace) -> None:
    from together import Interrupted

    told: list[tuple[str, int, int]] = []
    whole = run_stage(Interrupted(), context_of(workspace("whole", 2), told))
    context = context_of(workspace("broken", 2), told)
    with pytest.raises(TutelageError, match="was killed by SIGKILL"):
        run_stage(Interrupted(dies=True), context)
    told.clear()
    again = run_stage(Interrupted(), context)
    assert told == [("grpo", 3, 4), ("grpo", 4, 4)], "it went on after the checkpoint"
    assert again.digest == whole.digest != weights.digest(weights.load("tiny")[0])


def test_one_that_is_killed_ends_all_with_one_clear_error(workspace) -> None:
    from together import Killed

    space, told = workspace("a", 2), []
    said = "^process 2 of 2 was killed by SIGKILL; the others were ended, and no student was made"
    with pytest.raises(TutelageError, match=said) as raised:
        run_stage(Killed(), context_of(space, told))
    assert "\n" not in str(raised.value)
    assert told == [("waiting", 1, 2)]
    logs = list((space.folder / "students" / "1.processes").glob("?.log"))
    started = [int(word) for log in logs for word in re.findall(r"^process (\d+)$", log.read_text(), re.MULTILINE)]
    assert len(started) == 2
    assert not any(map(psutil.pid_exists, started))
    assert space.record.students() == [space.base_student()]
    assert not (space.folder / "students" / "1").exists()


def test_the_first_to_fail_is_to_blame(tmp_path: Path) -> None:
    def left(rank: int, **ended: Any) -> None:
        (tmp_path / f"{rank}.json").write_text(Done(**ended).model_dump_json())

    left(0, error="RuntimeError: Connection closed by peer", at=2.0)
    left(1, error="ValueError: it broke", at=1.0)
    assert str(failure(tmp_path, [1, None])).startswith("process 2 of 2 failed: ValueError: it broke; the others")
    assert str(failure(tmp_path, [1, -9])).startswith("process 2 of 2 was killed by SIGKILL; the others")
    left(1, error="nothing to learn", meant_for_users=True, at=1.0)
    assert str(failure(tmp_path, [1, 1])) == "nothing to learn"
    left(0)
    left(1)
    assert str(failure(tmp_path, [0, 3])).startswith("process 2 of 2 ended with code 3; the others")


ORPHANS = """
import os, sys, time
from pathlib import Path
from typing import Any
from tutelage.training import launch

os.mkfifo(Path(sys.argv[1]) / launch.ORDER)  # an order that never comes
with launch.started(Path(sys.argv[1]), 2) as processes:
    print(*(process.pid for process in processes), flush=True)
    time.sleep(1000)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHANS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        started = [psutil.Process(int(pid)) for pid in launcher.stdout.readline().split()]
        assert len(started) == 2
        assert all(process.is_running() for process in started)
        launcher.kill()
    _, alive = psutil.wait_procs(started, timeout=120)
    assert not alive


@pytest.mark.parametrize(
    ("processes", "settings"), [(3, {"batch_size": 8}), (2, {"batch_size": 12, "micro_batch_size": 4})]
)
def test_shares_come_out_even_or_the_config_is_refused(processes: int, settings: dict[str, int]) -> None:
    stage = ["stages.0.type=sft", *(f"stages.0.{name}={value}" for name, value in settings.items())]
    with pytest.raises(ConfigError, match="processes share a batch of"):
        load_config(None, [f"student.processes={processes}", *stage])

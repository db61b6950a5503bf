"""A stage killed anywhere goes on to the same student: a real SIGKILL, at several points, of GRPO and SDPO."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer

from tutelage.record import Record
from tutelage.stage_config import GrpoConfig, SdpoConfig, StageConfig
from tutelage.training import checkpoints, rollout, weights
from tutelage.training.base import StageContext, StageResult, run_stage
from tutelage.training.sdpo_trainer import SDPOTrainer

STAGES = {
    "grpo": GrpoConfig(
        steps=6, batch_size=4, micro_batch_size=2, group_size=2, temperature=0.9, learning_rate=1e-3, warmup=0.5,
        iterations=2, skip_equal=False, invalid_penalty=0.3, beta=0.1, checkpoint_every=2, curriculum="paced",
        alarms={"probe_tasks": 0},
    ),
    "sdpo": SdpoConfig(
        steps=4, batch_size=4, group_size=2, temperature=0.9, learning_rate=1e-3, invalid_penalty=0.3,
        checkpoint_every=2, teacher_rate=0.5, alarms={"probe_tasks": 2, "probe_every": 2},
    ),
}  # fmt: skip
CHILD = """
import json, os, signal, sys, traceback
from pathlib import Path
from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import checkpoints, grpo, rollout, sdpo
from tutelage.training.base import StageContext, run_stage
from tutelage.types import Split

def run(workspace, stage, student, die):
    reached = 0
    def reach(point):
        nonlocal reached
        reached += point == die[0]
        if reached == die[1] and point == die[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    def before(module, name, point):
        original = getattr(module, name)
        def wrapped(*args, **kwargs):
            reach(point)
            return original(*args, **kwargs)
        setattr(module, name, wrapped)
    rollout.shaped_reward = lambda item, stage: sum(item.steps[0].tokens.sampled) % 5
    before(rollout, "run_episodes", "rollout")
    before(checkpoints.Path, "replace", "replace")
    config = Config.model_validate({"student": student, "act": {"max_steps": 3}, "stages": [stage]})
    run_stage(config.stages[0], StageContext(
        record=Record.open(Path(workspace)), workspace=Path(workspace), config=config, cycle=1,
        student=Student(number=0, stage="base", cycle=0, weights="tiny"), number=1,
        tasks=Toy.tasks(Split.TRAIN, count=2), trajectories=[], make_environment=lambda _: Toy(), seed=5,
        progress=lambda what, done, total: reach("step"),
    ))

for line in sys.stdin:
    child = os.fork()  # nothing has been computed here, so that there is nothing that a fork could break
    if not child:
        try:
            run(*json.loads(line))
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Runs a stage per line of its input, in a process that kills itself when it comes to a point for the n-th time."""


@pytest.fixture(autouse=True)
def rewards_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random student earns nothing that GRPO could tell apart; the child process has the same rewards."""
    monkeypatch.setattr(rollout, "shaped_reward", lambda item, stage: sum(item.steps[0].tokens.sampled) % 5)


Killed = Callable[[StageContext, StageConfig, tuple[str, int]], None]


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    """Runs a stage in a process of its own until it is killed there."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def run(context: StageContext, stage: StageConfig, die: tuple[str, int]) -> None:
        student = context.config.student.model_dump(mode="json")
        order = [str(context.workspace), stage.model_dump(mode="json"), student, die]
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        assert int(stdout.readline()) == signal.SIGKILL

    yield run
    stdin.close()
    assert process.wait() == 0


def figures(result: StageResult) -> list[tuple[int, dict[str, float]]]:
    return [
        (step, {name: value for name, value in values.items() if not name.endswith("seconds")})
        for step, values in result.metrics
    ]


def kept(record: Record) -> list[tuple[str, object]]:
    rows = record.fingerprint(without=("timing",))["trajectories"]
    return [(str(row["key"]), row["body"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "method", "deaths"),
    [
        ("grpo", "lora", [("step", 3), ("replace", 2)]),
        ("sdpo", "full", [("rollout", 4)]),
        ("sdpo", "lora", [("replace", 2), ("step", 3)]),
    ],
)
def test_killed_and_continued_is_as_if_undisturbed(
    stage_context: Callable[..., StageContext],
    killed: Killed,
    name: str,
    method: str,
    deaths: list[tuple[str, int]],
) -> None:
    stage = STAGES[name]
    whole, broken = (stage_context(folder, method=method) for folder in ("whole", "broken"))
    expected = run_stage(stage, whole)
    assert expected.digest != weights.digest(weights.load("tiny")[0])
    for death in deaths:
        killed(broken, stage, death)
        assert not broken.folder.exists(), "a student that is not complete cannot be seen"
    assert (broken.checkpoints / "checkpoint.pt").is_file()
    played: list[int] = []
    result = run_stage(stage, replace(broken, progress=lambda what, done, total: played.append(done)))
    assert played[0] > 1, "it went on from a checkpoint"
    assert played[-1] == stage.steps
    assert result.digest == expected.digest
    assert figures(result) == figures(expected)
    assert len(result.trajectories) == len(expected.trajectories)
    assert kept(broken.record) == kept(whole.record)
    assert not broken.checkpoints.exists()


def test_a_checkpoint_of_other_settings_is_not_continued(
    stage_context: Callable[..., StageContext], killed: Killed
) -> None:
    context = stage_context("a")
    killed(context, STAGES["sdpo"], ("step", 3))
    dead = {item.id for item in context.record.trajectories()}
    assert dead
    played: list[int] = []
    changed = STAGES["sdpo"].model_copy(update={"learning_rate": 1e-4, "steps": 1})
    result = run_stage(changed, replace(context, progress=lambda what, done, total: played.append(done)))
    assert played == [1]
    assert len(result.trajectories) == changed.batch_size
    assert not dead & set(result.trajectories), "episodes of other weights"


def test_private_names_exist(stage_context: Callable[..., StageContext]) -> None:
    """They are set from outside here; were they renamed, that would go unnoticed."""
    import inspect

    logged, buffered = checkpoints.PRIVATE
    assert logged in inspect.getsource(Trainer._inner_training_loop)
    assert logged in inspect.getsource(Trainer._maybe_log_save_evaluate)
    assert all(
        f"self.{buffered} is None" in inspect.getsource(cls._prepare_inputs) for cls in (GRPOTrainer, SDPOTrainer)
    )


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    checkpoints.write(file, {"step": 1, "weights": {"a": torch.ones(2)}})
    with pytest.raises(Exception, match="pickle"):
        checkpoints.write(file, {"step": 2, "bad": lambda: None})
    assert checkpoints.read(file)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]

"""Training that goes wrong: each time a clear word about it, and the student before it as it was.

A kill in the middle of a stage is in `tests/training/test_resume.py`, one in the middle of a cycle in `test_kills.py`,
figures that are not numbers in `tests/training/test_online.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import Config
from tutelage.cycle import collect, train
from tutelage.environments.toy import Toy
from tutelage.llm import LLM
from tutelage.measures import Student
from tutelage.progress import Reporter
from tutelage.record import Record
from tutelage.results import AlarmDoc, load
from tutelage.stage_config import GrpoConfig, SftConfig
from tutelage.training import grpo, rollout, weights
from tutelage.training.base import StageContext, run_stage
from tutelage.training.faults import DiskFull
from tutelage.training.watching import CHECKPOINT
from tutelage.types import Ending, Split, Task, Trajectory
from tutelage.workspace import Workspace

STUDENT = {"weights": "tiny", "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    made = Record.open(tmp_path)
    yield made
    made.close()


@pytest.fixture
def context(tmp_path: Path, record: Record) -> StageContext:
    return StageContext(
        record=record,
        workspace=tmp_path,
        config=Config.model_validate({"student": STUDENT, "act": {"max_steps": 3}}),
        cycle=1,
        student=Student(number=0, stage="base", cycle=0, weights="tiny"),
        number=1,
        tasks=Toy.tasks(Split.TRAIN, count=2),
        trajectories=[],
        make_environment=lambda _: Toy(),
        seed=5,
    )


def test_a_student_that_always_answers_the_same_is_stopped(
    context: StageContext, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reward can be had without the task, for saying one thing over and over."""

    def hacked(trajectory: Trajectory, stage: object) -> float:
        tokens = [token for step in trajectory.steps if step.tokens for token in step.tokens.sampled]
        return -len(set(tokens)) / len(tokens)

    monkeypatch.setattr(rollout, "shaped_reward", hacked)
    others = {"kl": {"threshold": 0, "action": "off"}, "probe_tasks": 0}
    stage = GrpoConfig(
        steps=40, batch_size=8, group_size=4, temperature=1.0, learning_rate=6e-2, warmup=0, alarms=others
    )
    result = run_stage(stage, context)
    (alarm,) = load(record, AlarmDoc)
    assert alarm.alarm == "entropy", alarm.text
    assert alarm.step == len(result.metrics) < 40
    assert alarm.good <= alarm.step - 3, "not the weights that both of the suspicious batches were played with"
    entropy = [values["entropy"] for _, values in result.metrics]
    assert entropy[-1] < 0.1 * entropy[0]
    assert entropy[alarm.good] > 0.1 * entropy[0], "batch g + 1 was played by the weights after step g"
    assert result.digest == weights.digest(weights.load(str(result.folder))[0])


def test_a_learning_rate_that_ruins_a_student_leaves_it_as_it_was(context: StageContext, record: Record) -> None:
    """What a batch's figures could tell comes too late for a stage of two steps; the probe at its end does not."""
    acting = {"max_steps": 2, "width": 24}
    config = Config.model_validate({"student": {**STUDENT, "max_new_tokens": 16}, "act": acting})
    expert = LLMPolicy(LLM("expert/toy", role="teacher"))
    shown = run_episodes(Toy.tasks(Split.TRAIN, ["press"], count=40), expert, lambda _: Toy(), act=config.act, seed=7)
    taught = run_stage(SftConfig(steps=60, learning_rate=3e-3), replace(context, config=config, trajectories=shown))
    student = Student(number=1, stage="sft", cycle=1, weights="students/1")
    tasks = Toy.tasks(Split.TRAIN, ["press"], start=1000, count=200)
    able = replace(context, config=config, student=student, number=2, tasks=tasks)
    ruinous = GrpoConfig(steps=2, batch_size=8, group_size=4, learning_rate=5e-2, warmup=0, invalid_penalty=0.3)
    result = run_stage(ruinous, able)
    (alarm,) = load(record, AlarmDoc)
    assert (alarm.alarm, alarm.step, alarm.good) == ("probe", 2, 0), alarm.text
    assert result.metrics[0][1]["probe"] > 0.5, "there was something to lose"
    assert result.digest == taught.digest


class Hanging(Toy):
    """Does not come back from its first call."""

    let_go = Event()

    def start(self, task: Task) -> tuple[str, str]:
        self.let_go.wait(60)
        return super().start(task)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hanging]]:
    yield Hanging
    Hanging.let_go.set()


def test_an_environment_that_hangs_ends_the_stage_in_time(
    context: StageContext, record: Record, hanging: type[Hanging]
) -> None:
    config = context.config.model_copy(update={"act": context.config.act.model_copy(update={"step_timeout": 0.2})})
    stuck = replace(context, config=config, make_environment=lambda _: hanging())
    result = run_stage(GrpoConfig(steps=3, batch_size=4, group_size=2), stuck)
    (alarm,) = load(record, AlarmDoc)
    assert alarm.text == "grpo step 1: every episode of the batch broke: stopped with the starting weights"
    assert result.digest == weights.digest(weights.load("tiny")[0])
    played = record.trajectories(arm="grpo")
    assert {item.ending for item in played} == {Ending.ENVIRONMENT_ERROR}
    assert all("did not answer within 0.2 s" in item.error for item in played)


OUT_OF_MEMORY = """
import json, resource, sys
from pathlib import Path
from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.errors import TutelageError
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import grpo
from tutelage.training.base import StageContext, run_stage
from tutelage.types import Split

workspace, student, stage, room = json.loads(sys.argv[1])
config = Config.model_validate({"student": student, "act": {"max_steps": 3}, "stages": [stage]})
context = StageContext(
    record=Record.open(Path(workspace)), workspace=Path(workspace), config=config, cycle=1,
    student=Student(number=0, stage="base", cycle=0, weights="tiny"), number=1,
    tasks=Toy.tasks(Split.TRAIN, count=2), trajectories=[], make_environment=lambda _: Toy(), seed=5,
)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room * 2**20,) * 2)
try:
    run_stage(config.stages[0], context)
except TutelageError as error:
    sys.exit(str(error))
"""


def test_too_little_memory_is_one_line_and_a_smaller_step_goes_on(
    context: StageContext, record: Record, tmp_path: Path
) -> None:
    stage = GrpoConfig(steps=1, batch_size=16, group_size=2, skip_equal=False)
    order = json.dumps([str(tmp_path), STUDENT, stage.model_dump(mode="json"), 250])
    ended = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, order],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().startswith("the grpo stage ran out of memory")
    assert "micro_batch_size (now 16)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not context.folder.exists()
    assert record.students() == []
    result = run_stage(stage.model_copy(update={"micro_batch_size": 4}), context)
    assert len(result.trajectories) == 16


def test_a_full_disk_is_one_line_and_the_stage_goes_on_behind_it(context: StageContext, record: Record) -> None:
    stage = GrpoConfig(steps=2, batch_size=4, group_size=2, checkpoint_every=1, alarms={"probe_tasks": 0})

    def fill(what: str, done: int, total: int) -> None:
        """Put a device that has no room where the checkpoint is written before it gets its name."""
        context.checkpoints.mkdir(exist_ok=True, parents=True)
        (context.checkpoints / f".{CHECKPOINT}.{os.getpid()}").symlink_to("/dev/full")

    with pytest.raises(DiskFull, match=r"grpo stage cannot write: .*No space left on device.* give the command again"):
        run_stage(stage, replace(context, progress=fill))
    assert not context.folder.exists()
    assert len(run_stage(stage, context).metrics) == 2


def test_a_cycle_goes_on_with_the_last_good_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = grpo.EpisodeGRPOTrainer.compute_loss
    monkeypatch.setattr(grpo.EpisodeGRPOTrainer, "compute_loss", lambda *a, **k: compute(*a, **k) * float("nan"))
    small = {"batch_size": 4, "steps": 2}
    config = Config.model_validate(
        {
            "workspace": tmp_path / "workspace",
            "environments": [{"name": "toy"}],
            "teacher": {"model": "expert/toy"},
            "student": STUDENT,
            "collect": {"demonstrations": 2, "oracle": 0, "mistaken": 0, "explored": 0, "guarded": 0},
            "act": {"max_steps": 3},
            "stages": [
                {"type": "sft", **small},
                *({"type": name, "group_size": 2, **small} for name in ("grpo", "sdpo")),
            ],
        }
    )
    said: list[str] = []
    report = Reporter(None)
    monkeypatch.setattr(report, "say", said.append)
    workspace = Workspace(config)
    try:
        collect(workspace, 1, report)
        train(workspace, 1, report)
        base, sft, stopped, sdpo = workspace.record.students()
        assert sft.digest == stopped.digest != base.digest
        assert stopped.trajectories == ()
        assert (sdpo.parent, sdpo.stage) == (stopped.id, "sdpo")
        assert "  grpo step 1: loss is nan: stopped with the starting weights" in said
        (event,) = load(workspace.record, AlarmDoc)
        assert event.student == stopped.number
        assert any(row["name"] == "alarm/loss_not_finite" for row in workspace.record.metrics("1/1-grpo"))
    finally:
        workspace.close()

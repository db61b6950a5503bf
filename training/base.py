"""What a training stage is given and what it hands back; stages are siblings behind one call."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.config import Config
from tutelage.corrections import Corrected, Correction
from tutelage.cycle_settings import OF_MEMORY
from tutelage.environments.base import Environment
from tutelage.experience import Experience, Recaller
from tutelage.measures import Student
from tutelage.registry import resolve
from tutelage.stage_config import StageConfig
from tutelage.training import content, ranks, weights
from tutelage.training.faults import room_spent
from tutelage.types import Task, Trajectory

if TYPE_CHECKING:
    from tutelage.record import Record

STAGES = {
    "sft": "tutelage.training.sft:run",
    "grpo": "tutelage.training.grpo:run",
    "sdpo": "tutelage.training.sdpo:run",
    "distill": "tutelage.training.distill:run",
}
"""Our own; a plug-in's settings say themselves what runs them (`StageConfig.runs`)."""

STUDENTS = "students"
"""Folder of a workspace that holds what its stages make, by the student's number."""

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may use. A stage writes below `folder` and `checkpoints` and nowhere else."""

    record: "Record"
    workspace: Path
    config: Config
    cycle: int
    student: Student
    """The student it starts from."""
    number: int
    """The number of the student it makes."""
    tasks: Sequence[Task]
    """Tasks of the train split, for rollouts."""
    trajectories: Sequence[Trajectory]
    """Accepted trajectories of the train split."""
    experiences: Sequence[Experience] = ()
    make_environment: Callable[[str], Environment] | None = None
    memory: Recaller | None = None
    seed: int = 0
    progress: Progress = field(default=no_progress)
    corrections: Sequence[Corrected] = ()
    """What a teacher would have done in states that students came to, all of the train split."""
    correct: Callable[[Sequence[Trajectory]], Sequence[Correction]] | None = None
    """Asks the teacher about rollouts; those that it has nothing to say about have no correction."""

    @property
    def folder(self) -> Path:
        """Where the new weights go; it exists only once they are complete."""
        return self.workspace / STUDENTS / str(self.number)

    @property
    def checkpoints(self) -> Path:
        """Where a stage keeps what it needs to continue after a kill."""
        return self.workspace / STUDENTS / f"{self.number}.checkpoints"

    @property
    def start(self) -> str:
        """The starting weights as `training.weights.load` takes them."""
        return weights_of(self.student, self.workspace)


@dataclass(frozen=True)
class StageResult:
    """A finished stage: the saved weights and what went into them."""

    folder: Path
    digest: str
    """SHA-256 of the weights, from `training.weights.save`."""
    trajectories: tuple[str, ...]
    """Ids of the trajectories trained on."""
    experiences: tuple[str, ...] = ()
    """Ids of the experiences that took part."""
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """Optimiser step and its figures, in order."""


def weights_of(student: Student, workspace: Path) -> str:
    """A student's weights as `training.weights.load` takes them: its folder, or the name of base weights.

    Raises:
        MissingPart: it was trained here and its weights are not here any more.
        RecordError: they are not what they were when it was made.
    """
    folder = workspace / student.weights
    if student.files or student.weights == f"{STUDENTS}/{student.number}":
        return str(content.checked(student, folder))
    return str(folder) if folder.is_dir() else student.weights


def load_start(context: StageContext) -> "weights.Loaded":
    """The model that a stage trains, in float32 or as `student.quantize` says, and its tokenizer.

    Raises:
        ConfigError, MissingPart: as `weights.load` and `weights.quantization`.
    """
    return weights.load(context.start, quantization=weights.quantization(context.config.student.quantize))


def lora(context: StageContext) -> Any:
    """The configured LoRA adapter as a `peft.LoraConfig`, or None for full fine-tuning."""
    student = context.config.student
    if student.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=student.lora_rank, lora_alpha=student.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def time_is_up(stage: StageConfig, taken: Sequence[float]) -> bool:
    """Whether a stage that has a time (`StageConfig.seconds`) ends here.

    It ends after the step that comes nearest to its time: stages whose steps are long are not given more than those
    whose steps are short. What a stage took before it was killed and continued counts.

    Args:
        taken: seconds of each step so far, those of its rollouts included.
    """
    total = sum(taken)
    return bool(stage.seconds and taken) and total + total / len(taken) / 2 >= stage.seconds


def identity(stage: StageConfig, context: StageContext) -> str:
    """What a checkpoint is good for: this stage with these settings, but for those of memory, from this student."""
    student, settings = context.student, stage.model_dump(mode="json", exclude=OF_MEMORY)
    model = context.config.student.model_dump(mode="json")
    return json.dumps([student.number, student.digest, settings, model, context.seed, ranks.count()])


def run_stage(stage: StageConfig, context: StageContext) -> StageResult:
    """Run one stage to its end, continuing from its last checkpoint if there is one.

    Raises:
        UnknownName: no such stage.
        MissingPart: something the stage needs is not installed.
        MemorySpent, DiskFull: there was too little memory or disk.
        TutelageError: it runs in several processes, and one of them failed.
    """
    if context.config.student.processes > 1:
        from tutelage.training import launch

        if ranks.count() == 1:
            return launch.run(stage, context)
    listed = STAGES if stage.type in STAGES else STAGES | {stage.type: stage.runs or stage.type}
    run: Callable[[StageConfig, StageContext], StageResult] = resolve(stage.type, listed, what="stage")
    with weights.quiet(), room_spent(stage, context.config.student.method):
        return run(stage, context)

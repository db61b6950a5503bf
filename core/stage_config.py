"""Settings of training stages: what each may be told, and whose default is whose."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, SerializeAsAny, Tag, ValidationError, model_validator

from tutelage.errors import UnknownName
from tutelage.registry import resolve
from tutelage.section import Section


class StageConfig(Section):
    """Settings of a stage; a plug-in's class derives from it, or from `RolloutStageConfig` if the stage acts."""

    runs: ClassVar[str] = ""
    """Dotted path of a plug-in's ``run(stage, context)``; stages of our own are listed in `training.base.STAGES`."""
    in_processes: ClassVar[bool] = False
    """Whether `student.processes` may be above 1: its processes average their gradients, as a Transformers Trainer
    does, and so come to the same weights."""
    type: str
    """The stage's name in ``[[stages]]``."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    seconds: float = Field(0.0, ge=0)
    """Training time, rollouts included, that ends the stage before `steps` do; 0 means none. Warm-up, decay and
    withdrawal go by `steps`."""
    learning_rate: float = Field(ge=0)
    """0 leaves the weights as they are: the gate must refuse what comes of it."""
    batch_size: int = Field(8, ge=1)
    """Rows (SFT) or episodes (GRPO, SDPO, distillation) per optimiser step, over all processes. Ours, for
    small machines."""
    micro_batch_size: int = Field(0, ge=0)
    """Rows per forward pass; 0 means all of the batch, or of a process's share of it."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Fraction of the steps in which the learning rate rises from 0. Ours."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory for a forward pass more."""

    @model_validator(mode="after")
    def _divides(self) -> "StageConfig":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self


class SftConfig(StageConfig):
    in_processes: ClassVar[bool] = True
    type: Literal["sft"] = "sft"
    steps: int = Field(100, ge=1)
    learning_rate: float = Field(5e-5, ge=0)
    """Ours, for full fine-tuning of SmolLM2."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up. Ours: constant goes with `seconds`."""
    corrections: bool = True
    """Whether what the teacher would have done in the student's states makes rows too (`collect.corrected`)."""
    checkpoint_every: int = Field(25, ge=1)
    """Optimiser steps between checkpoints; after a kill the stage continues from the last one."""


class AlarmConfig(Section):
    """One thing that is watched while a stage trains on its own rollouts."""

    threshold: float
    """Of what, `AlarmsConfig` says for each."""
    action: Literal["off", "stop", "restore"] = "stop"
    """`stop` ends the stage with the last good weights; `restore` goes back to them and continues."""


class AlarmsConfig(Section):
    """What is looked at after every optimiser step; figures that are not finite always end the stage.

    All thresholds are ours: of the papers, none says when to give up.
    """

    patience: int = Field(2, ge=1)
    """Batches in a row that have to be beyond a threshold (a probe: one). Batches are small and of different tasks."""
    length: AlarmConfig = AlarmConfig(threshold=3.0)
    """Sampled tokens per turn, as a multiple of the first batch's; its inverse counts too. Task families of MiniWoB
    alone differ by 1.8 times."""
    entropy: AlarmConfig = AlarmConfig(threshold=0.1)
    """Entropy of the tokens sampled in failed episodes, as a share of the first batch's, below which the student is
    thought collapsed. In solved ones a healthy student may have hardly any left."""
    kl: AlarmConfig = AlarmConfig(threshold=1.0)
    """Mean of log p/p₀ per sampled token, in nats, against the weights that the stage began with."""
    gap: AlarmConfig = AlarmConfig(threshold=2.0)
    """Mean of |log p_teacher/p_student| per distilled token, in nats (SDPO)."""
    invalid: AlarmConfig = AlarmConfig(threshold=0.5)
    """Share of invalid actions, if it is also twice that of the first batch."""
    success: AlarmConfig = AlarmConfig(threshold=0.5)
    """Share of the rollouts' success in the best batches so far that the newest ones lost. Half, and clearly so
    (`training.decline`): sampled rollouts of a few tasks tell no smaller loss from chance; a probe does."""
    probe: AlarmConfig = AlarmConfig(threshold=0.15)
    """Loss of success on the probe tasks since the stage began."""
    probe_tasks: int = Field(16, ge=0)
    """Train tasks that are played greedily with memory off at the start, from time to time and at the end; 0 means
    none. Of 16, three have to be lost; of fewer, chance loses the threshold's share too often."""
    probe_every: int = Field(10, ge=1)
    """Optimiser steps between probes. With 16 tasks, one takes no longer than an optimiser step."""
    restores: int = Field(2, ge=0)
    """How often the stage may go back before it is stopped instead."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, value: Any) -> Any:
        """An alarm that is told its action alone keeps its threshold, and the other way round."""
        if not isinstance(value, dict):
            return value
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {
            name: defaults[name].model_dump() | given
            if isinstance(given, dict) and isinstance(defaults.get(name), AlarmConfig)
            else given
            for name, given in value.items()
        }


class RolloutStageConfig(StageConfig):
    group_size: int = Field(4, ge=2)
    """Episodes of the same task and seed. Ours, for small machines."""
    temperature: float = Field(0.7, gt=0)
    """Of sampling, and of the probabilities that the losses take. Ours; others were not compared with it."""
    invalid_penalty: float = Field(0.05, ge=0)
    """Taken from the reward (1 for a solved task) per action that is malformed or names nothing on the page. Ours."""
    partial_credit: float = Field(0.0, ge=0, lt=1)
    """Reward of an unsolved task per share of it that is done, where the environment can tell. Ours is none: success
    alone counts."""
    checkpoint_every: int = Field(4, ge=1)
    """Optimiser steps between checkpoints; after a kill the stage continues from the last one."""
    curriculum: Literal["order", "paced"] = "order"
    """Which tasks rollouts are spent on: each in turn, or families by their pass rate p, by p^alpha (1 − p)^beta.
    Ours is the plain order until a benchmark says otherwise."""
    paced_alpha: float = Field(1.0, ge=0)
    """PACED's; ½ would rank families that always fail above those that are nearly mastered."""
    paced_beta: float = Field(1.0, ge=0)
    """PACED's."""
    with_memory: float = Field(0.0, ge=0, le=1)
    """Share of each group's episodes that are shown experiences; they are trained on as if they had not been. Ours is
    off: the samples are then of another prompt than the one that is trained on. SKILL0 has 1."""
    withdraw: bool = True
    """Whether what they are shown is withdrawn over the stage: all of it, then half, then nothing (SKILL0)."""
    alarms: AlarmsConfig = AlarmsConfig()
    """What is watched, and what stops the stage."""

    @model_validator(mode="after")
    def _groups(self) -> "RolloutStageConfig":
        if self.batch_size % self.group_size:
            raise ValueError("group_size must divide batch_size")
        if self.with_memory and not round(self.with_memory * self.group_size):
            raise ValueError(
                f"with_memory = {self.with_memory:g} is less than one episode in a group: raise it, or set 0"
            )
        return self


class GrpoConfig(RolloutStageConfig):
    in_processes: ClassVar[bool] = True
    type: Literal["grpo"] = "grpo"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, ge=0)
    """Ours: 1e-5 cost two of three students of SmolLM2 20 points or more (`docs/training.md`, Learning rate)."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL term to the stage's starting weights. The paper's is 0.04; DAPO's, Dr. GRPO's and TRL's is 0,
    which saves a model and a forward pass."""
    iterations: int = Field(1, ge=1)
    """Optimiser steps on each batch of rollouts (1 in the paper's experiments too); beyond the first, the ratio to the
    sampling weights is clipped."""
    clip: float = Field(0.2, gt=0, lt=1)
    """How far below 1 the ratio may go (DAPO's, as in PPO)."""
    clip_high: float = Field(0.28, gt=0)
    """How far above 1 (DAPO's clip-higher, which keeps rare tokens alive; PPO's is 0.2)."""
    skip_equal: bool = True
    """Whether a group whose episodes all earned the same is left out, its tokens counting nowhere. DAPO's, but that no
    further groups are sampled in its place."""


class SdpoConfig(RolloutStageConfig):
    """Where a default is the paper's, that is 2601.20802; `training.sdpo` says more."""

    in_processes: ClassVar[bool] = True
    type: Literal["sdpo"] = "sdpo"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, ge=0)
    """Ours, between the paper's 1e-6 with feedback and 1e-5 without; 1e-5 ruined students of SmolLM2."""
    experiences: bool = True
    """Whether the self-teacher is shown what memory recalls for the episode; ours, after Skill-SD and SDAR."""
    feedback: bool = True
    """Whether it is told what each action led to; the paper does so only where there is no sibling."""
    sibling: bool = True
    """Whether it is shown the actions of a successful episode of the same task; the paper's."""
    corrections: bool = False
    """Whether the teacher is asked what was wrong in the stage's own rollouts, at one state of each at most, and the
    self-teacher is told its words; off, as it costs calls."""
    top_k: int = Field(20, ge=1)
    """Support of the divergence: the student's top-k tokens; the paper's with feedback (100 without)."""
    tail: bool = True
    """Whether the rest of the distribution counts as one more token (the paper's); without it, mass can flee from the
    support."""
    alpha: float = Field(0.5, ge=0, le=1)
    """0 forward KL, 1 reverse KL, between them generalised Jensen–Shannon; the paper's without feedback (1 with)."""
    clip: float = Field(2.0, gt=1)
    """Highest ratio to the sampling weights that a token's loss is multiplied by; the paper's."""
    tokens: Literal["turn", "action"] = "turn"
    """Which of a turn's tokens are distilled: all of them (the paper's), or those of the action without the thought
    before it."""
    gate: Literal["none", "failures", "sigmoid"] = "none"
    """Which tokens are distilled: all (the paper's), those of failed episodes while the others learn by GRPO's loss
    (SRPO), or each by a sigmoid of the gap (SDAR)."""
    gate_slope: float = Field(5.0, gt=0)
    """Slope of the sigmoid; SDAR's."""
    teacher: Literal["ema", "live", "start"] = "ema"
    """The self-teacher's weights: a moving average of the student's (the paper's), the student's own, or those it
    began with. `live` needs no second model; nor do any with an adapter."""
    teacher_rate: float = Field(0.05, gt=0, le=1)
    """Update rate of the moving average; the paper's."""
    distillation_weight: float = Field(0.5, gt=0, le=1)
    """1 is self-distillation alone; below that the rest of the loss is GRPO's. Ours: the paper's hybrid, for weak
    students, gives GRPO 0.9."""

    @model_validator(mode="after")
    def _told(self) -> "SdpoConfig":
        if not (self.experiences or self.feedback or self.sibling or self.corrections):
            raise ValueError(
                "without experiences, feedback, sibling and corrections the self-teacher knows what the student knows: "
                "switch one on, or use a grpo stage"
            )
        return self


class DistillConfig(RolloutStageConfig):
    """On-policy distillation from a local teacher that sees what the student sees."""

    in_processes: ClassVar[bool] = True
    type: Literal["distill"] = "distill"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, ge=0)
    """Ours, that of the other stages that act."""
    group_size: int = Field(1, ge=1)
    """Episodes of the same task and seed; one, since nothing is compared within a group and more tasks say more."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling, and of both distributions in the loss: the true ones (GKD's and TRL's default)."""
    teacher: str = ""
    """Weights of the teacher, as `student.weights` names them, or ``student@N``; empty: what made the SFT data."""
    alpha: float = Field(0.5, ge=0, le=1)
    """0 forward KL, 1 reverse KL, between them generalised Jensen–Shannon. Ours: GKD finds that the best one depends on
    the task."""
    other_teacher: bool = False
    """Allow a teacher that did not make the SFT data (Lightning OPD: its gradient is biased)."""


STAGE_GROUP = "tutelage.stages"
"""Entry points of stages that are not our own: name → settings class."""
OWN_STAGES = {
    "sft": "tutelage.stage_config:SftConfig",
    "grpo": "tutelage.stage_config:GrpoConfig",
    "sdpo": "tutelage.stage_config:SdpoConfig",
    "distill": "tutelage.stage_config:DistillConfig",
}


def _stage_kind(value: Any) -> str | None:
    """Which member of `Stage` a value is; for our own, the name that their errors are shown under."""
    name = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return name if name is None or name in OWN_STAGES else "plug-in"


def _plugged_in(value: Any) -> Any:
    """The settings of a stage that is not our own, checked by its own class."""
    if not isinstance(value, dict):
        return value
    try:
        settings = resolve(str(value["type"]), OWN_STAGES, what="stage", group=STAGE_GROUP)
    except UnknownName as error:
        raise ValueError(str(error)) from error
    if not (isinstance(settings, type) and issubclass(settings, StageConfig) and settings.runs):
        raise ValueError(f"{value['type']!r} is no class derived from StageConfig that says what `runs`")
    try:
        return settings.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


Stage = Annotated[
    Annotated[SftConfig, Tag("sft")]
    | Annotated[GrpoConfig, Tag("grpo")]
    | Annotated[SdpoConfig, Tag("sdpo")]
    | Annotated[DistillConfig, Tag("distill")]
    | Annotated[SerializeAsAny[StageConfig], BeforeValidator(_plugged_in), Tag("plug-in")],
    Discriminator(
        _stage_kind, custom_error_type="stage_type", custom_error_message='a stage names its type, e.g. type = "sft"'
    ),
]

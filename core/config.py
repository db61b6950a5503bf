"""Typed configuration: defaults, then a TOML file, then dotted overrides. Nonsense fails here."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    model_validator,
)

from tutelage.errors import ConfigError, UnknownName
from tutelage.registry import resolve

CONFIG_FILE = "config.json"
"""What a workspace was last used with, in its folder."""
INDEX = "index"
"""Folder of the search index in a workspace."""


class Section(BaseModel):
    """Base of every section; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EnvironmentConfig(Section):
    name: str = "toy"
    """Short name, entry point or dotted path of the environment."""
    families: tuple[str, ...] = ()
    """Task families to train and evaluate on; empty means all of them."""
    settings: dict[str, Any] = {}
    """What this environment can be told, e.g. which task file; see its documentation."""


class TeacherConfig(Section):
    model: str = "expert/*"
    """LiteLLM model string; `expert/*` is the embedded scripted expert of each environment, no key needed."""
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(512, ge=1)
    tools: Literal["native", "text"] = "native"
    """How a provider is told of tools: as data in OpenAI's format, or listed in the system message."""
    judge: str = ""
    """Model that judges; empty means `model`."""
    distiller: str = ""
    """Model that distils experiences; empty means `model`."""
    merger: str = ""
    """Model that says whether near-duplicates in memory are the same; empty means `model`."""
    designer: str = ""
    """Model that invents personas and designs tasks; empty means `model`."""
    votes: int = Field(1, ge=1, le=15)
    """Votes per verdict; a tie is not a success."""
    sticker_rounds: int = Field(2, ge=0, le=5)
    """How often a sticker is checked by re-solving from it, and repaired, at most."""
    first_thought: bool = False
    """Whether the teacher's plain first thought about a task is put before its first action."""
    concurrency: int = Field(8, ge=1)
    """Calls under way at once per provider."""
    timeout: float = Field(120.0, gt=0)
    """Seconds per call, from sending it to the last byte of the answer."""
    retries: int = Field(4, ge=0)
    """Attempts after the first on rate limits, server errors, timeouts and lost connections."""
    prompt_cache: bool = True
    """Whether to ask providers that cache prompts only on request to do so."""

    def model_for(self, role: str) -> str:
        """The model string that plays a role."""
        own = {
            "judge": self.judge,
            "distiller": self.distiller,
            "merger": self.merger,
            "designer": self.designer,
            "persona": self.designer,
        }
        return own.get(role) or self.model


class CassetteConfig(Section):
    """Recording of every LLM exchange in a file, and replay from it."""

    path: Path | None = None
    mode: Literal["record", "replay"] = "replay"
    """`record` appends what is missing and takes what is there; `replay` calls nobody."""


class AnnotateConfig(Section):
    """Designed tasks: persona → explorer → designer → annotator → judge → filter."""

    tasks: int = Field(20, ge=1)
    """Designs asked for."""
    personas: int = Field(4, ge=1, le=20)
    explore_steps: int = Field(10, ge=2, le=20)
    per_exploration: int = Field(2, ge=1, le=8)
    """Proposals per request to the designer."""
    calibrate: int = Field(20, ge=0)
    """Episodes with a programmatic check that a judge is measured on before it may filter."""
    min_precision: float = Field(0.8, ge=0, le=1)
    """A judge whose measured precision is lower is refused for filtering."""
    trust_judge: bool = False
    """Let the judge filter whatever its precision."""


class BudgetConfig(Section):
    """Hard limits on LLM use in one workspace; 0 means none."""

    calls: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0)
    dollars: float = Field(0, ge=0)
    seconds: float = Field(0, ge=0)
    """Wall-clock time of one command, from its first call on."""


class ActConfig(Section):
    width: int = Field(8, ge=1)
    """Episodes that run at once."""
    max_steps: int = Field(8, ge=1)
    replan_after: int = Field(2, ge=1)
    """Failed steps in a row after which the turn carries a replanning note."""
    stall_after: int = Field(4, ge=1)
    """Failed steps in a row that end the episode."""
    step_timeout: float = Field(60.0, gt=0)
    """Seconds after which an environment that does not answer counts as broken."""


class CollectConfig(Section):
    """Episodes per task family and cycle, all from the train split."""

    demonstrations: int = Field(20, ge=0)
    """By the teacher; the scripted one leaves out environments that it has no expert for."""
    oracle: int = Field(0, ge=0)
    """By replay of the known solutions, in environments that have them; an oracle is no teacher, and is labelled so."""
    mistaken: int = Field(4, ge=0)
    """By the teacher with injected mistakes, so that there are real failures to learn from."""
    mistake_rate: float = Field(0.4, ge=0, le=1)
    """Probability that a step of a mistaken episode is corrupted."""
    explored: int = Field(2, ge=0)
    """By the current student without memory."""
    designed: int = Field(0, ge=0)
    """Tasks designed, annotated and judged per cycle, over all environments; see `annotate`."""
    corrected: int = Field(0, ge=0)
    """States that the student visited for which the teacher is asked what was right, per cycle at most."""
    guarded: int = Field(2, ge=0)
    """By the teacher with injected mistakes after extraction, each once without and once with the guardrails."""


class TrustConfig(Section):
    """How far words are trusted by where they come from, 0 to 1."""

    environments: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """By environment name; one that is not listed has the trust that its class declares."""
    sources: dict[str, Annotated[float, Field(ge=0, le=1)]] = {"own": 1.0, "import": 0.3, "user": 0.6}
    """By origin (`import:team-b`) or by its kind (`import`)."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Less trust than this means quarantine."""


class MemoryConfig(Section):
    tenant: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    """Whose memory this workspace's runs use."""
    embedder: str = "wordllama"
    """Short name or dotted path of the embedder."""
    top_k: int = Field(2, ge=0)
    """Skills and stickers shown per episode."""
    candidates: bool = True
    """Whether what is on trial is shown and enforced too, marked so."""
    similar: float = Field(0.85, gt=0, le=1)
    """Cosine similarity from which two experiences are looked at as one, or as contradicting each other."""
    capacity: int = Field(10_000, ge=1)
    """Experiences in use at most; above it they are merged first, then the least useful ones retired."""
    asked: int = Field(32, ge=0)
    """Near pairs per consolidation about which the merger is asked at most, where a model plays it."""
    distil_per_family: int = Field(6, ge=1)
    """Successes, and failures, distilled per task family and cycle at most."""
    vector_weight: float = Field(0.2, ge=0, le=1)
    """Weight of the vector score in the fused score; the rest is BM25."""
    normalise: Literal["top", "range", "rank"] = "top"
    """How the two scores are made comparable: as a share of the highest, stretched from the lowest candidate's to the
    highest's, or by rank alone."""
    trust: TrustConfig = TrustConfig()


class StudentConfig(Section):
    weights: str = "smollm2"
    """`smollm2` (SmolLM2-135M-Instruct), `tiny` (random, for tests), a hub id or a local path."""
    method: Literal["full", "lora"] = "full"
    """Full fine-tuning or a LoRA adapter (merged between stages)."""
    lora_rank: int = Field(32, ge=1)
    lora_alpha: int = Field(64, ge=1)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Compute type; `auto` is bfloat16 where the processor has it. Weights are trained in float32."""
    max_new_tokens: int = Field(40, ge=1)
    """Per turn."""
    temperature: float = Field(0.0, ge=0)
    """In evaluation; 0 is greedy."""
    max_length: int = Field(1536, ge=64)
    """Tokens of a whole episode; a longer one ends as a policy error."""
    quantize: Literal["none", "4bit"] = "none"
    """`4bit` keeps the base weights in NF4 and trains an adapter (QLoRA); needs a GPU and ``method = "lora"``."""
    processes: int = Field(1, ge=1)
    """Processes that train a stage together, started through Accelerate."""
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """What generates the student's replies: `vllm` needs a GPU; a `server` is OpenAI-compatible and gives ids and
    log-probabilities of its tokens, and is of no use to stages that act, for its weights stay as they are."""
    server: str = ""
    """Base URL of that server."""

    @model_validator(mode="after")
    def _fits(self) -> "StudentConfig":
        if self.quantize != "none" and self.method != "lora":
            raise ValueError('quantize = "4bit" trains an adapter: set method = "lora"')
        if (self.engine == "server") != bool(self.server):
            raise ValueError('server is the URL for engine = "server", and only for it')
        if self.server and not self.server.startswith(("http://", "https://")):
            raise ValueError(f"server is a URL such as http://localhost:8000/v1, not {self.server!r}")
        if self.engine == "vllm" and self.processes > 1:
            raise ValueError('engine = "vllm" runs in one process: set processes = 1')
        return self


class TrackingConfig(Section):
    """Where training figures go besides the record."""

    to: Literal["none", "trackio", "wandb"] = "none"
    project: str = "tutelage"


class StageConfig(Section):
    """Settings of a stage; a plug-in's class derives from it, or from `RolloutStageConfig` if the stage acts."""

    runs: ClassVar[str] = ""
    """Dotted path of a plug-in's ``run(stage, context)``; stages of our own are listed in `training.base.STAGES`."""
    type: str
    """The stage's name in ``[[stages]]``."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(8, ge=1)
    """Rows (SFT) or episodes (GRPO, SDPO) per optimiser step."""
    micro_batch_size: int = Field(0, ge=0)
    """Rows per forward pass; 0 means the whole batch."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Fraction of the steps."""
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _divides(self) -> "StageConfig":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("micro_batch_size must divide batch_size")
        return self


class SftConfig(StageConfig):
    type: Literal["sft"] = "sft"
    steps: int = Field(100, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up."""
    corrections: bool = True
    """Whether what the teacher would have done in the student's states makes rows too (`collect.corrected`)."""
    checkpoint_every: int = Field(25, ge=1)
    """Optimiser steps between checkpoints; after a kill the stage continues from the last one."""


class AlarmConfig(Section):
    """One thing that is watched while a stage trains on its own rollouts."""

    threshold: float
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
    probe: AlarmConfig = AlarmConfig(threshold=0.15)
    """Loss of success on the probe tasks since the stage began."""
    probe_tasks: int = Field(0, ge=0)
    """Train tasks that are played greedily with memory off at the start and then from time to time; 0 means none. They
    cost time, so there are none by default."""
    probe_every: int = Field(4, ge=1)
    """Optimiser steps between probes."""
    restores: int = Field(2, ge=0)
    """How often the stage may go back before it is stopped instead."""


class RolloutStageConfig(StageConfig):
    group_size: int = Field(4, ge=2)
    """Episodes of the same task and seed."""
    temperature: float = Field(0.7, gt=0)
    invalid_penalty: float = Field(0.05, ge=0)
    """Taken from the reward (1 for a solved task) per action that is malformed or names nothing on the page."""
    partial_credit: float = Field(0.0, ge=0, lt=1)
    """Reward of an unsolved task per share of it that is done, where the environment can tell."""
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
    type: Literal["grpo"] = "grpo"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, gt=0)
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

    type: Literal["sdpo"] = "sdpo"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, gt=0)
    """Ours, between the paper's 1e-6 with feedback and 1e-5 without."""
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

    type: Literal["distill"] = "distill"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, gt=0)
    group_size: int = Field(1, ge=1)
    """Episodes of the same task and seed; one, since nothing is compared within a group and more tasks say more."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling, and of both distributions in the loss: the true ones (GKD's and TRL's default)."""
    teacher: str = ""
    """Weights of the teacher, as `student.weights` names them, or ``student@N``; empty: what made the SFT data."""
    alpha: float = Field(0.5, ge=0, le=1)
    """0 forward KL, 1 reverse KL, between them generalised Jensen–Shannon."""
    other_teacher: bool = False
    """Allow a teacher that did not make the SFT data (Lightning OPD: its gradient is biased)."""


STAGE_GROUP = "tutelage.stages"
"""Entry points of stages that are not our own: name → settings class."""
OWN_STAGES = {
    "sft": "tutelage.config:SftConfig",
    "grpo": "tutelage.config:GrpoConfig",
    "sdpo": "tutelage.config:SdpoConfig",
    "distill": "tutelage.config:DistillConfig",
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


class EvaluateConfig(Section):
    episodes: int = Field(64, ge=2)
    """Paired held-out episodes for the first and last student, memory off, on the validation split."""
    between: int = Field(32, ge=0)
    """Paired episodes after each stage in between."""
    with_memory: int = Field(32, ge=0)
    """Paired episodes with memory on, for the first and last student."""
    test: int = Field(32, ge=0)
    """Episodes on the test split for the first and last student; reported, never decides."""
    confidence: float = Field(0.95, gt=0.5, lt=1)


class EvidenceConfig(Section):
    """Whether memory helps: paired train-split episodes of the promoted student with and without it."""

    pairs: int = Field(64, ge=0)
    """Pairs per measurement in all, over task families first; 0 measures nothing."""
    item_pairs: int = Field(0, ge=0)
    """Further pairs, for the single experiences that matter most."""
    items: int = Field(4, ge=1)
    """How many of those to begin with."""
    confidence: float = Field(0.9, gt=0.5, lt=1)
    margin: float = Field(0.15, gt=0, lt=1)
    """How much less success without memory still counts as equal."""
    able: float = Field(0.5, ge=0, le=1)
    """Success without memory whose lower bound must be reached before the weights count as holding it."""
    max_blocked: float = Field(0.05, ge=0, le=1)
    """Share of right actions that a guardrail may stop, at its upper bound, to become active."""


class GateConfig(Section):
    min_gain: float = Field(0.0, ge=-1, le=1)
    """The lower bound of the paired gain over the promoted student must exceed this."""


class LoopConfig(Section):
    cycles: int = Field(1, ge=1)
    """Cycles this workspace shall have completed."""


class Config(Section):
    """Everything a run depends on."""

    workspace: Path = Path("workspace")
    """Folder that holds the record, the memory index and the students."""
    seed: int = Field(0, ge=0)
    environments: tuple[EnvironmentConfig, ...] = Field((EnvironmentConfig(),), min_length=1)
    """Where agents act; several take turns, each with the same share."""
    teacher: TeacherConfig = TeacherConfig()
    cassette: CassetteConfig = CassetteConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    budget: BudgetConfig = BudgetConfig()
    act: ActConfig = ActConfig()
    collect: CollectConfig = CollectConfig()
    memory: MemoryConfig = MemoryConfig()
    student: StudentConfig = StudentConfig()
    tracking: TrackingConfig = TrackingConfig()
    stages: tuple[Stage, ...] = (SftConfig(), GrpoConfig(), SdpoConfig())
    evaluate: EvaluateConfig = EvaluateConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    gate: GateConfig = GateConfig()
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="after")
    def _comes_out_even(self) -> "Config":
        for stage in self.stages:
            share, rest = divmod(stage.batch_size, self.student.processes)
            micro = min(stage.micro_batch_size or share, share)
            if rest or share % micro:
                raise ValueError(
                    f"stages: {stage.type}: {self.student.processes} processes share a batch of {stage.batch_size} "
                    f"evenly, and each its share into passes of micro_batch_size ({stage.micro_batch_size}): change one"
                )
        return self

    @model_validator(mode="after")
    def _can_be_sampled(self) -> "Config":
        acting = [stage.type for stage in self.stages if isinstance(stage, RolloutStageConfig)]
        if self.student.engine == "server" and acting:
            raise ValueError(
                f"stages: {', '.join(acting)}: rollouts are sampled from weights that change at every step, and a "
                'server keeps its own; leave them out, or set student.engine = "transformers"'
            )
        return self


def load_config(path: Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a config.

    Args:
        path: TOML (or JSON) file; None means the defaults.
        overrides: ``key.sub=value`` items; the value is TOML, or a bare string.

    Raises:
        ConfigError: naming the key, what is wrong and what would be right.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text()
            data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} is not valid {path.suffix.lstrip('.').upper() or 'TOML'}: {error}") from error
    for item in overrides or []:
        _override(data, item)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(f"{path or 'config'}: {key}: {first['msg']}{more}") from error


def _override(data: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {item!r} is not of the form key.sub=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    parts = key.strip().split(".")
    place: Any = data
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if isinstance(place, list):
            if not part.isdigit() or int(part) > len(place):
                raise ConfigError(f"override {item!r}: {part!r} is not an index of a list of {len(place)}")
            if int(part) == len(place):
                place.append({})
        elif not isinstance(place, dict):
            raise ConfigError(f"override {item!r}: {part!r} is below a value that is not a table")
        at: Any = int(part) if isinstance(place, list) else part
        if last:
            place[at] = value
        elif isinstance(place, dict):
            place = place.setdefault(at, [] if parts[index + 1].isdigit() else {})
        else:
            place = place[at]

"""Typed configuration: defaults, then a TOML file, then dotted overrides. Nonsense fails here."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tutelage.errors import ConfigError
from tutelage.section import Section
from tutelage.service_config import JobsConfig, ServeConfig, TriggerConfig
from tutelage.stage_config import RolloutStageConfig, SftConfig, Stage

CONFIG_FILE = "config.json"
"""What a workspace was last used with, in its folder."""
INDEX = "index"
"""Folder of the search index in a workspace."""


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
            "feedback": self.judge,
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
    sources: dict[str, Annotated[float, Field(ge=0, le=1)]] = {"own": 1.0, "import": 0.3, "user": 0.6, "live": 0.4}
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
    """Processes that train a stage together on this machine, each on its share of every batch."""
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
    stages: tuple[Stage, ...] = (SftConfig(),)
    """GRPO and SDPO are to be asked for: at equal time they were not shown to beat SFT (`benchmarks/learning`)."""
    evaluate: EvaluateConfig = EvaluateConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    gate: GateConfig = GateConfig()
    loop: LoopConfig = LoopConfig()
    jobs: JobsConfig = JobsConfig()
    triggers: tuple[TriggerConfig, ...] = ()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _comes_out_even(self) -> "Config":
        for stage in self.stages:
            if self.student.processes > 1 and not stage.in_processes:
                raise ValueError(f"stages: {stage.type} runs in one process: set student.processes = 1")
            share, rest = divmod(stage.batch_size, self.student.processes)
            micro = min(stage.micro_batch_size or share, share)
            if rest or share % micro:
                raise ValueError(
                    f"stages: {stage.type}: {self.student.processes} processes share a batch of {stage.batch_size} "
                    f"evenly, and each its share into passes of micro_batch_size ({stage.micro_batch_size}): change one"
                )
        return self

    @model_validator(mode="after")
    def _named_once(self) -> "Config":
        names = [trigger.name for trigger in self.triggers]
        if len(set(names)) < len(names):
            raise ValueError("triggers: two have the same name")
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

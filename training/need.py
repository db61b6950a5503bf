"""How much memory a stage will need, and whether it is there, before it starts.

Everything is counted that grows with the model or the batch. Weights, gradients, optimiser and copies follow from
the number of parameters. Activations are what autograd keeps of a Llama-like layer, per token that is forwarded;
the factors below were counted in its code and then checked against the peak of real runs (docs/training.md).
Environments are not counted: a browser takes memory of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from tutelage.config import Config
from tutelage.errors import MemoryShort
from tutelage.stage_config import DistillConfig, GrpoConfig, RolloutStageConfig, SdpoConfig, StageConfig
from tutelage.training.free_memory import free
from tutelage.training.weights import compute_dtype, ensure, load_tokenizer
from tutelage.types import Trajectory

GIBIBYTE = 2**30
LIBRARIES = int(0.9 * GIBIBYTE)
"""The interpreter with torch, transformers, TRL and datasets loaded and at work."""
ALLOCATOR = 1.1
"""What an allocator holds for each byte that is in use."""
LONGEST = 16
"""Episodes, of those with the most characters, that are tokenised to find the longest."""
NF4 = 0.52
"""Bytes per quantised weight, its doubly quantised scales included."""


@dataclass(frozen=True)
class Shape:
    """What of a model's architecture decides how much memory it takes."""

    parameters: int
    linear: tuple[tuple[int, int], ...]
    """Inputs and outputs of each linear layer but the LM head."""
    layers: int
    hidden: int
    intermediate: int
    keys: int
    """Width of the keys of a layer; the values' is the same."""
    vocabulary: int

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear layers."""
        return sum(rank * (inputs + outputs) for inputs, outputs in self.linear)


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest episode that is known or allowed."""

    episode: int
    sampled: int
    """Of these, what the student samples."""


BARE = Lengths(1, 1)
"""What any episode has."""
BOTH = (False, True)
"""Stages that do not act, and those that do."""


@dataclass(frozen=True)
class Need:
    """Bytes by what they are for."""

    stage: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def shape_of(name: str) -> Shape:
    """The shape of weights named as `training.weights.ensure` takes them; no weights are read.

    Raises:
        MissingPart: they are not here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(ensure(name), local_files_only=True)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=tuple((layer.in_features, layer.out_features) for layer in layers),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        keys=size * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
        vocabulary=config.vocab_size,
    )


def lengths_of(trajectories: Iterable[Trajectory], config: Config, name: str, *, acting: bool) -> Lengths:
    """Lengths of the longest of these episodes; without any, those that the settings allow.

    Args:
        name: weights of the student, for its tokenizer.
        acting: whether the student is going to play such episodes itself. Then its own count, if there are some;
            others' show what it will see, and its replies are as long as they may be.
    """
    from tutelage.training.chat import ChatEncoder

    most, reply = config.student.max_length, config.student.max_new_tokens
    known = [item for item in trajectories if item.steps]
    own = [item for item in known if all(step.tokens for step in item.steps)]
    longest = sorted(own if acting and own else known, key=_characters)[-LONGEST:]
    if not longest:
        return Lengths(most, min(most, reply * config.act.max_steps))
    encoder, found = ChatEncoder(load_tokenizer(name)), []
    for item in longest:
        encoded = encoder.episode(item, experiences=False)
        sampled = sum(encoded.mask)
        wanted = reply * len(item.steps) if acting and not own else sampled
        found.append(Lengths(min(most, len(encoded.ids) - sampled + wanted), wanted))
    return Lengths(max(item.episode for item in found), max(item.sampled for item in found))


def _characters(trajectory: Trajectory) -> int:
    return sum(len(step.observation) + len(step.reply) for step in trajectory.steps)


def estimate(stage: StageConfig, config: Config, shape: Shape, lengths: Lengths) -> Need:
    """Bytes that `stage` takes at its peak, in all processes that share this memory.

    Args:
        shape: of the student.
    """
    student, rollouts = config.student, isinstance(stage, RolloutStageConfig)
    arithmetic = compute_dtype(student.dtype).itemsize
    adapter = shape.adapter(student.lora_rank) if student.method == "lora" else 0
    trained = adapter or shape.parameters
    share = -(-stage.batch_size // student.processes)
    rows = min(stage.micro_batch_size or share, share)
    learning = _learning(stage, shape, rows, lengths, arithmetic)
    # With one pass per step, gradients come as activations go; with several, the first one's stay.
    gradients = 4 * trained if rows < share else max(0, 4 * trained - sum(learning.values()))
    parts = {
        "libraries": LIBRARIES,
        "weights": _weights(shape, student.quantize) + 4 * adapter,
        "gradients": gradients,
        "optimizer": 8 * trained,
        **_copies(stage, shape, trained, adapter, arithmetic),
    }
    if rollouts:
        if arithmetic < 4 or adapter:
            parts["generation copy"] = arithmetic * shape.parameters
        # While a batch is answered, its episodes' own caches and the stacked one are there together.
        episodes = min(config.act.width, stage.batch_size)
        cache = 2 * episodes * lengths.episode * shape.layers * 2 * shape.keys * arithmetic
        if cache > sum(learning.values()):
            learning = {"key/value caches": cache}
    grown = {name: int(ALLOCATOR * size) for name, size in learning.items()}
    together = 1 if torch.cuda.is_available() else student.processes  # elsewhere each has a GPU of its own
    return Need(stage.type, {name: together * size for name, size in {**parts, **grown}.items()})


def _weights(shape: Shape, quantize: str) -> int:
    if quantize == "none":
        return 4 * shape.parameters
    linear = sum(inputs * outputs for inputs, outputs in shape.linear)
    return int(NF4 * linear) + 2 * (shape.parameters - linear)


def _copies(stage: StageConfig, shape: Shape, trained: int, adapter: int, arithmetic: int) -> dict[str, int]:
    """Models beside the student; with an adapter they are its base without it, or with another adapter.

    Args:
        arithmetic: bytes per number of the compute type, which a distillation's teacher is loaded in.
    """
    if isinstance(stage, SdpoConfig) and stage.teacher != "live":
        return {"self-teacher": 4 * trained}
    if isinstance(stage, GrpoConfig) and stage.beta and not adapter:
        return {"reference": 4 * shape.parameters}
    if isinstance(stage, DistillConfig):
        its = shape_of(stage.teacher) if _is_named(stage.teacher) else shape
        return {"teacher": arithmetic * its.parameters}
    return {}


def _is_named(teacher: str) -> bool:
    return bool(teacher) and not teacher.startswith("student@")


def _learning(stage: StageConfig, shape: Shape, rows: int, lengths: Lengths, arithmetic: int) -> dict[str, int]:
    """What a forward and backward pass keeps, in bytes.

    Per token and layer: with float32 arithmetic, the inputs and outputs of two norms, of attention and of three
    products of the feed-forward part; with bfloat16, residuals and norms stay float32 and each matrix product keeps
    a bfloat16 copy of its input.
    """
    hidden, wide = (44, 16) if arithmetic == 4 else (36, 8)
    layer = hidden * shape.hidden + wide * shape.intermediate
    tokens, sampled = rows * lengths.episode, rows * lengths.sampled
    kept = shape.layers * 4 * shape.hidden + layer if stage.gradient_checkpointing else shape.layers * layer
    parts = {"activations": tokens * kept}
    if arithmetic < 4:
        parts["bfloat16 copies of weights"] = arithmetic * shape.parameters
    # The fused head computes logits in tiles and again in the backward pass; a divergence needs them whole.
    whole = isinstance(stage, SdpoConfig | DistillConfig)
    parts["logits"] = (sampled * 28 if whole else 3 * 1024) * shape.vocabulary
    return parts


def needs(config: Config, name: str, trajectories: Sequence[Trajectory]) -> list[Need]:
    """What each configured stage takes in all its processes together, in order.

    Args:
        name: weights of the student.
        trajectories: known episodes of the train split.
    """
    return _needs(config, name, {acting: lengths_of(trajectories, config, name, acting=acting) for acting in BOTH})


def _needs(config: Config, name: str, lengths: Mapping[bool, Lengths]) -> list[Need]:
    """The same for episodes of these lengths, by whether the stage acts."""
    shape = shape_of(name)
    return [estimate(stage, config, shape, lengths[isinstance(stage, RolloutStageConfig)]) for stage in config.stages]


def available() -> int:
    """Bytes that a stage can have: what is free, and what this process already has for its libraries."""
    return free() + (0 if torch.cuda.is_available() else min(psutil.Process().memory_info().rss, LIBRARIES))


def check(
    config: Config, name: str, trajectories: Sequence[Trajectory], left: Sequence[int], *, begun: bool = True
) -> None:
    """See that there is enough memory for each stage that is left to run, given by its place.

    While no episode is known, episodes of the length that the settings allow would refuse too much: what is refused
    then is what would not fit with the shortest.

    Args:
        begun: the cycle is under way, so that what the student learns by cannot be changed any more.

    Raises:
        MemoryShort: there is not; the message says what to change.
    """
    if not left:
        return

    def totals(changed: Config) -> list[Need]:
        return needs(changed, name, trajectories) if trajectories else _needs(changed, name, dict.fromkeys(BOTH, BARE))

    there, found = available(), totals(config)
    for place in left:
        if found[place].total > there:
            fitting = [
                f"{change} (about {gibibytes(total)})"
                for change, changed in smaller(config, place, begun=begun)
                if (total := totals(changed)[place].total) <= there
            ]
            remedy = f"set {', or '.join(fitting[:3])}" if fitting else "no smaller batch helps; take a smaller student"
            if not fitting and begun:
                remedy += ' or student.method = "lora", in another workspace'
            raise MemoryShort(
                f"stages.{place} ({found[place].stage}) needs {'about' if trajectories else 'at least'} "
                f"{gibibytes(found[place].total)} of memory and {gibibytes(there)} are free: {remedy}; "
                "`tutelage need` shows what takes how much"
            )


def smaller(config: Config, place: int, *, begun: bool = False) -> Iterator[tuple[str, Config]]:
    """Changes that make a stage need less, those that cost least time first, and the config with each.

    Args:
        begun: leave out what an unfinished cycle does not go on with.
    """
    stage, student = config.stages[place], config.student
    share = stage.batch_size // student.processes
    at, rows = f"stages.{place}", min(stage.micro_batch_size or share, share)
    sizes = [size for size in range(rows - 1, 0, -1) if not share % size]
    for size in sizes:
        yield f"{at}.micro_batch_size = {size}", _with(config, place, micro_batch_size=size)
    light = _with(config, place, gradient_checkpointing=True, micro_batch_size=1)
    if not stage.gradient_checkpointing:
        yield f"{at}.gradient_checkpointing = true", _with(config, place, gradient_checkpointing=True)
        if sizes:
            yield f"{at}.micro_batch_size = 1 with gradient_checkpointing = true", light
    if student.method == "full" and not begun:
        lora = student.model_copy(update={"method": "lora"})
        yield 'student.method = "lora"', config.model_copy(update={"student": lora})
        both = light.model_copy(update={"student": lora})
        yield "all three of micro_batch_size = 1, gradient_checkpointing = true and LoRA", both


def _with(config: Config, place: int, **changes: Any) -> Config:
    stages = list(config.stages)
    stages[place] = stages[place].model_copy(update=changes)
    return config.model_copy(update={"stages": tuple(stages)})


def gibibytes(size: int) -> str:
    return f"{size / GIBIBYTE:.1f} GiB"

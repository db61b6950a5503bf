"""What generates the student's replies, by `student.engine`: transformers, vLLM in this process, or a server.

Greedy replies are the same tokens from all three, up to rounding; `docs/training.md` says which may do what.
"""

from typing import TYPE_CHECKING, Any, Protocol

from tutelage.config import StudentConfig
from tutelage.errors import ConfigError
from tutelage.measures import Student
from tutelage.training import weights
from tutelage.training.token_policy import Settings
from tutelage.types import Policy

if TYPE_CHECKING:
    from tutelage.training.vllm_policy import Engine

_running: "dict[str, Engine]" = {}
"""The one vLLM of this process; it does not give its memory back, so the next student takes it over."""


class Sampler(Protocol):
    """What a stage samples its rollouts with."""

    def __call__(self, model: Any, *, label: str, temperature: float) -> Policy:
        """A policy with the weights that `model` has now; those made before it are over."""
        ...


def acting(student: Student, config: StudentConfig, name: str, *, trained: bool = False) -> Policy:
    """A policy that acts with a student's weights, as evaluation and collection want it.

    Args:
        name: of the weights, as for `weights.load`.
        trained: whether something may be trained in this process later, which the engine leaves memory to.

    Raises:
        ConfigError: episodes may be longer than the model takes, or the server is not there, or not one that serves
            this student token for token.
        MissingPart: the weights or the engine are not here.
    """
    weights.check_length(name, config.max_length)
    label = f"{student.label} ({weights.describe(config.weights)})"
    settings = _settings(config, label, config.temperature)
    if config.engine == "server":
        from tutelage.training.server_policy import ServerPolicy

        tokenizer = weights.load_tokenizer(name)
        return ServerPolicy(config.server, tokenizer, names=served_names(student, name), **settings)
    if config.engine == "vllm":
        from tutelage.training.vllm_policy import ALONE, BESIDE_TRAINING, VllmPolicy

        engine = _vllm(name, config, BESIDE_TRAINING if trained else ALONE)
        return VllmPolicy(engine, name, weights.load_tokenizer(name), **settings)
    from tutelage.training.policy import StudentPolicy

    return StudentPolicy(*weights.load(name, dtype=weights.compute_dtype(config.dtype)), **settings)


def sampler(config: StudentConfig, start: str, tokenizer: Any) -> Sampler:
    """What the rollouts of a stage are sampled with.

    Args:
        start: the stage's starting weights, as for `weights.load`.

    Raises:
        ConfigError: the engine has weights of its own.
        MissingPart: the engine is not here.
    """
    if config.engine == "server":
        raise ConfigError(
            "a server keeps its own weights, so nothing can be trained on what it samples; "
            'set student.engine = "transformers"'
        )
    from tutelage.training.policy import StudentPolicy, copy_weights, generation_copy

    if config.engine == "vllm":
        from tutelage.training.vllm_policy import BESIDE_TRAINING, VllmPolicy

        engine = _vllm(start, config, BESIDE_TRAINING)
        return lambda model, *, label, temperature: VllmPolicy(
            engine, model, tokenizer, **_settings(config, label, temperature)
        )
    copies: list[Any] = []

    def local(model: Any, *, label: str, temperature: float) -> Policy:
        if not copies:
            copies.append(generation_copy(model, weights.compute_dtype(config.dtype)))
        copy_weights(model, copies[0])
        return StudentPolicy(copies[0], tokenizer, **_settings(config, label, temperature))

    return local


def served_names(student: Student, name: str) -> list[str]:
    """What a server may call a student's weights, or have read them from; the first is the one to serve them as."""
    folder = weights.ensure(name).absolute()
    base = [name, weights.describe(name), folder.name] if student.number == 0 else []
    return [student.label, str(folder), *base]


def _settings(config: StudentConfig, label: str, temperature: float) -> Settings:
    return Settings(
        label=label,
        temperature=temperature,
        max_new_tokens=config.max_new_tokens,
        max_length=config.max_length,
    )


def _vllm(name: str, config: StudentConfig, memory: float) -> "Engine":
    """This process's vLLM; it keeps the share of memory that it was started with."""
    from tutelage.training.vllm_policy import Engine

    folder = weights.ensure(name)
    shape = (folder / "config.json").read_text() + str(config.max_length) + config.dtype
    if shape not in _running:
        if _running:
            raise ConfigError("vLLM runs in this process already, for weights of another shape; start the program anew")
        dtype = weights.compute_dtype(config.dtype)
        _running[shape] = Engine(str(folder), max_length=config.max_length, dtype=dtype, memory=memory)
    return _running[shape]

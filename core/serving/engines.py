"""Which engine answers, by `serve.engine`."""

from pathlib import Path

from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.measures import Student
from tutelage.serving.types import Engine


def load_engine(student: Student, folder: Path, config: Config, beside: bool) -> Engine:
    """The engine of a student; takes seconds.

    Args:
        folder: of the workspace.
        beside: whether another version stays loaded meanwhile.

    Raises:
        ConfigError: there is not enough memory, or the model is of no kind that the engine takes.
        MissingPart: the engine or the weights are not here.
        RecordError: the weights are not what they were when the student was made.
    """
    if config.serve.engine == "upstream":
        from tutelage.serving.engine_upstream import UpstreamEngine

        return UpstreamEngine(config.serve.upstream, timeout=config.teacher.timeout)
    from tutelage.training.base import weights_of

    name = weights_of(student, folder)
    if config.serve.engine == "vllm":
        from tutelage.serving.engine_vllm import VllmEngine

        return VllmEngine.load(student.label, name, config)
    from tutelage.serving.engine_transformers import TransformersEngine

    _check_memory(student, name, config, beside)
    return TransformersEngine.load(student.label, name, config)


def _check_memory(student: Student, name: str, config: Config, beside: bool) -> None:
    """Raises ConfigError: the weights, and the caches of as many and as long conversations as are allowed, do not fit
    into what is free."""
    from tutelage.training import need, weights
    from tutelage.training.free_memory import free

    serve, shape = config.serve, need.shape_of(name)
    size = weights.compute_dtype(config.student.dtype).itemsize
    cache = 2 * serve.batch * serve.max_length * shape.layers * shape.keys * size
    wanted, there = int(need.ALLOCATOR * size * shape.parameters) + cache, free()
    if wanted > there:
        remedy = "set serve.batch or serve.max_length lower"
        if beside:
            remedy += ", or start the server anew, which loads it without the version that answers now"
        raise ConfigError(
            f"{student.label} needs {need.gibibytes(wanted)} of memory, {need.gibibytes(cache)} of it for "
            f"conversations, and {need.gibibytes(there)} are free: {remedy}"
        )

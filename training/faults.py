"""Too little memory in the middle of a stage, said in one line instead of a stack trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.errors import TutelageError
from tutelage.stage_config import StageConfig

SIGNS = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "cannot allocate",
    "can't start new thread",
)
"""In the messages of torch's and the system's errors, in lower case."""


class MemorySpent(TutelageError):
    """A stage needs more memory than there is; what it began with and what the record has is untouched."""


@contextmanager
def memory_spent(stage: StageConfig, method: str = "full") -> Iterator[None]:
    """Turn an allocation that failed while the stage runs into a `MemorySpent` that says what to change.

    Args:
        method: `student.method`.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        share = stage.micro_batch_size or stage.batch_size
        smaller = [f"a smaller micro_batch_size (now {share})"] if share > 1 else []
        smaller += [] if stage.gradient_checkpointing else ["gradient_checkpointing = true"]
        remedy = f"Go on with {' or '.join(smaller)}" if smaller else "Make more memory free and go on"
        # An unfinished cycle does not go on with another method.
        light = 'student.method = "lora" takes less still, but needs another workspace; ' if method == "full" else ""
        raise MemorySpent(
            f"the {stage.type} stage ran out of memory; what it had trained by its last checkpoint is kept. {remedy}; "
            f"{light}`tutelage need` says what each takes"
        ) from error

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
def memory_spent(stage: StageConfig) -> Iterator[None]:
    """Turn an allocation that failed while the stage runs into a `MemorySpent` that says what to change."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        share = stage.micro_batch_size or stage.batch_size
        smaller = f"a smaller micro_batch_size (now {share}), " if share > 1 else ""
        raise MemorySpent(
            f"the {stage.type} stage ran out of memory; what it had trained by its last checkpoint is kept. Run it "
            f'again with {smaller}gradient_checkpointing = true or student.method = "lora"; `tutelage need` says what '
            "each takes"
        ) from error

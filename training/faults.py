"""Too little memory or disk in the middle of a stage, said in one line instead of a stack trace."""

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
DISK_SIGNS = ("no space left on device", "disk quota exceeded", "disk is full")
"""The same of a full disk: the system's, for a user's share of it, and SQLite's."""


class MemorySpent(TutelageError):
    """A stage needs more memory than there is; what it began with and what the record has is untouched."""


class DiskFull(TutelageError):
    """A stage cannot write what it has to keep; what it wrote before is whole."""


@contextmanager
def room_spent(stage: StageConfig, method: str = "full") -> Iterator[None]:
    """Turn an allocation or a write that failed while the stage runs into an error that says what to change.

    Args:
        method: `student.method`.

    Raises:
        MemorySpent, DiskFull: instead of the error.
    """
    try:
        yield
    except TutelageError:
        raise
    except Exception as error:  # of the libraries that write, some have errors of their own
        said = str(error).lower()
        if any(sign in said for sign in DISK_SIGNS):
            raise DiskFull(
                f"the {stage.type} stage cannot write: {error}. What it had trained by its last checkpoint is kept; "
                "free some disk and give the command again"
            ) from error
        if not isinstance(error, MemoryError) and not any(sign in said for sign in SIGNS):
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

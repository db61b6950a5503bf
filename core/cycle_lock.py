"""One cycle at a time: a lock on the workspace that its holder's death frees."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.errors import WorkspaceBusy

LOCK = "cycle.lock"


@contextmanager
def cycle_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the workspace in `folder` for a cycle.

    Args:
        what: who holds it, for those who come meanwhile.

    Raises:
        WorkspaceBusy: somebody else does, in this process or another; at once.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise WorkspaceBusy(f"a cycle is under way in {folder}: {holder}; wait for it or end it") from error
        file.seek(0)
        file.truncate()
        file.write(f"{what}, process {os.getpid()}")
        file.flush()
        yield

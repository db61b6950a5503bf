"""What every sandbox offers, and the limits it keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

MEBIBYTE = 2**20
LONGEST_CODE = MEBIBYTE
"""Bytes of code that are accepted."""


@dataclass(frozen=True)
class Limits:
    """What one snippet may use, with all the processes it starts."""

    seconds: float = 5.0
    """Of the wall clock; any one process may compute for as long."""
    memory: int = 256 * MEBIBYTE
    """Bytes; address space of each process, and private memory of all together."""
    processes: int = 8
    """Processes and threads at once."""
    output: int = 10_000
    """Bytes of standard output that are kept; a snippet that writes a hundred times more is stopped."""
    disk: int = 16 * MEBIBYTE
    """Bytes of all files together in the private folder."""
    files: int = 256
    """Files and folders in the private folder."""
    descriptors: int = 64
    """Open files of each process."""


@dataclass(frozen=True)
class Ran:
    """What a snippet printed, and in one line what went wrong, if anything did."""

    output: str
    problem: str = ""
    seconds: float = 0.0


class Sandbox(ABC):
    """Runs Python that a model wrote; each run starts afresh and leaves nothing behind."""

    level: str
    """What keeps the code in, for people to read."""

    @abstractmethod
    def run(self, code: str) -> Ran:
        """Run `code` to its end or to a limit; whatever it does is told in the result, not raised.

        EnvironmentBroken if the sandbox itself cannot be set up any more.
        """

    def close(self) -> None:  # noqa: B027  nothing to do where every run starts a process of its own
        """Stop whatever is kept running between runs."""

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

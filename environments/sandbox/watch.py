"""Watching one run from outside: what it prints, its time and its memory, and how its end is told."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tutelage.environments.sandbox.base import LONGEST_CODE, MEBIBYTE, Limits, Ran

TICK = 0.02
"""Seconds between two looks at what is used."""
FLOOD = 100
"""Times the kept output after which a snippet is stopped."""
ERRORS_KEPT = 4096
"""Bytes of standard error that are kept, the last ones."""
TOO_LONG = f"the code is longer than {LONGEST_CODE} bytes"
PAGE = os.sysconf("SC_PAGE_SIZE")


def code_file(text: bytes) -> BinaryIO:
    """The code as a file without a name, to be read from its start."""
    file = os.fdopen(os.memfd_create("code", os.MFD_CLOEXEC), "w+b")
    file.write(text)
    file.seek(0)
    return file


class Streams:
    """The two pipes a snippet writes to, and as much as is kept of what came through them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.out, self.write_out = os.pipe2(os.O_CLOEXEC)
        self.err, self.write_err = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.out, False)
        os.set_blocking(self.err, False)
        self.kept, self.errors, self.written = b"", b"", 0
        self.open = {self.out, self.err}

    def handed_over(self) -> None:
        """Close the ends that are the snippet's now."""
        for descriptor in (self.write_out, self.write_err):
            if descriptor >= 0:
                os.close(descriptor)
        self.write_out = self.write_err = -1

    def read(self, descriptor: int) -> None:
        """Take what is there, without waiting."""
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not part:
            self.open.discard(descriptor)
        self.written += len(part)
        if descriptor == self.err:
            self.errors = (self.errors + part)[-ERRORS_KEPT:]
        elif len(self.kept) <= self.limits.output:
            self.kept += part

    def drain(self) -> None:
        """Take the rest, which is at most what two pipes hold once the snippet is dead."""
        for descriptor in list(self.open):
            for _ in range(32):  # no more than the largest pipe
                before = self.written
                self.read(descriptor)
                if self.written == before:
                    break

    def flooded(self) -> bool:
        return self.written > FLOOD * self.limits.output

    def output(self) -> str:
        text = self.kept[: self.limits.output].decode("utf-8", "replace")
        return text if len(self.kept) <= self.limits.output else f"{text}\n[output cut]"

    def close(self) -> None:
        self.handed_over()
        os.close(self.out)
        os.close(self.err)


def follow(streams: Streams, ended: int, too_much: Callable[[], str]) -> str:
    """Read until descriptor `ended` has something to say; return why the run must be stopped, or nothing.

    `too_much` is asked again and again for such a reason.
    """
    limits = streams.limits
    deadline = time.monotonic() + limits.seconds
    look = time.monotonic() + TICK
    poll = select.poll()
    for descriptor in (ended, streams.out, streams.err):
        poll.register(descriptor, select.POLLIN)
    while True:
        now = time.monotonic()
        if now >= deadline:
            return f"timed out after {limits.seconds:g} s"
        ready = [descriptor for descriptor, _ in poll.poll(1000 * max(0.0, min(look, deadline) - now))]
        for descriptor in ready:
            if descriptor != ended:
                streams.read(descriptor)
                if descriptor not in streams.open:
                    poll.unregister(descriptor)
        if streams.flooded():
            return "stopped: it printed without end"
        if ended in ready:
            return ""
        if time.monotonic() >= look:
            reason = too_much()
            if reason:
                return reason
            look = time.monotonic() + TICK


def out_of_memory(limits: Limits) -> str:
    return f"out of memory (limit {limits.memory / MEBIBYTE:g} MiB)"


def ran(streams: Streams, stopped: str, status: int, seconds: float) -> Ran:
    """The result, once the process is gone: `status` as `Popen.returncode` counts it."""
    streams.drain()
    return Ran(streams.output(), stopped or _problem(streams, status), seconds)


def _problem(streams: Streams, status: int) -> str:
    if status == 0:
        return ""
    if status == -signal.SIGXCPU:
        return "timed out: it computed for too long"
    if status < 0:
        return f"crashed: {signal.strsignal(-status) or f'signal {-status}'}"
    lines = streams.errors.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if last.startswith("MemoryError"):
        return out_of_memory(streams.limits)
    return "".join(char if char.isprintable() else " " for char in last[:500]) or f"ended with status {status}"


def memory_below(process: int) -> int:
    """Bytes of private memory of all that `process` has started, directly or not."""
    total = 0
    for child in below(process):
        with contextlib.suppress(OSError, ValueError):  # it may end while being looked at
            _, resident, shared, *_ = Path(f"/proc/{child}/statm").read_text().split()
            total += PAGE * (int(resident) - int(shared))
    return total


def below(process: int) -> list[int]:
    """Processes that `process` has started, directly or not, as far as their parents still live."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError):
                for child in map(int, Path(f"/proc/{process}/task/{thread}/children").read_text().split()):
                    found += [child, *below(child)]
    return found

"""Progress of long work: live bars on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal."""

console = Console(stderr=True)


class Cancelled(BaseException):
    """The work was told to stop; raised by a reporter where it may. No error, so that nobody takes it for one."""


class Reporter:
    """Called as ``report(what, done, total)``; one bar (or one thread of lines) per `what`."""

    def __init__(self, bars: Progress | None):
        self._bars = bars
        self._ids: dict[str, object] = {}
        self._last: dict[str, float] = {}
        self._started = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bars is not None:
            if what not in self._ids:
                self._ids[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._ids[what], completed=done, total=total)  # type: ignore[arg-type]
        elif done >= total or time.monotonic() - self._last.get(what, 0.0) > LINE_EVERY:
            self._last[what] = time.monotonic()
            self.say(f"  {what} {done}/{total} ({time.monotonic() - self._started:.0f} s)")

    def say(self, text: str) -> None:
        """A line that stays."""
        (self._bars.console if self._bars is not None else console).print(text, highlight=False, soft_wrap=True)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A reporter for the time of one job."""
    if not console.is_terminal:
        yield Reporter(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        yield Reporter(bars)

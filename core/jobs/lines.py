"""What a running job says and how far it is, for its heartbeat to keep."""

import sys
from collections.abc import Sequence
from threading import Event, Lock, current_thread, main_thread

from rich.errors import MarkupError
from rich.text import Text

from tutelage.encodable import encodable
from tutelage.jobs.model import Progress
from tutelage.progress import Cancelled, Reporter
from tutelage.secrets import without_secrets


class JobReporter(Reporter):
    """Collects lines, without secrets, and the newest progress; also writes the lines to standard error.

    Once it was told to cancel, the next call from the main thread raises `Cancelled`, one time.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self._lines: list[str] = []
        self._progress = Progress()
        self._lock = Lock()
        self._cancel = Event()

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            self._progress = Progress(what=without_secrets(encodable(what)), done=done, total=total)
        super().__call__(what, done, total)
        self._cancel_here()

    def say(self, text: str) -> None:
        self.keep(_plain(text))
        self._cancel_here()

    def keep(self, text: str) -> None:
        """Lines as they are, without markup."""
        cleaned = without_secrets(encodable(text))
        with self._lock:
            self._lines += cleaned.splitlines()
        print(cleaned, file=sys.stderr, flush=True)

    def cancel(self) -> None:
        self._cancel.set()

    def told(self) -> tuple[Progress, Sequence[str]]:
        """How far it is, and the lines that are not kept yet."""
        with self._lock:
            return self._progress, list(self._lines)

    def kept(self, count: int) -> None:
        """So many lines of those told are kept now."""
        with self._lock:
            del self._lines[:count]

    def _cancel_here(self) -> None:
        if self._cancel.is_set() and current_thread() is main_thread():
            self._cancel.clear()
            raise Cancelled


def _plain(text: str) -> str:
    try:
        return Text.from_markup(text).plain
    except MarkupError:
        return text

"""The heartbeat of a running job: renews its lease, keeps what it says, and hears what it is told."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NoReturn

from tutelage.config import JobsConfig
from tutelage.database import AWAY, away
from tutelage.jobs.lines import JobReporter
from tutelage.jobs.model import CANCEL, Again
from tutelage.jobs.store import JobStore

_LOG = logging.getLogger(__name__)

ENDED = 4
"""Exit code of a process that ends at once, where it does not lead its group."""
SOON = 60.0
"""Seconds: an attempt that is handed back earlier hardly got anywhere."""
IN_A_ROW = 3
"""From the third of those in a row on, the job waits as after failures: whoever ends it each time would for ever."""
TRIES = 10
"""How often the end of a job is noted while the database is busy."""


class Heart(Thread):
    """Beats until the job is over; ends the process if the lease is lost, if it is told to, or if it cannot beat: work
    whose heart stands still would be taken over while it goes on."""

    def __init__(self, store: JobStore, job: str, attempt: int, config: JobsConfig, report: JobReporter) -> None:
        super().__init__(name="heart", daemon=True)
        self._store, self._job, self._attempt, self._config, self._report = store, job, attempt, config, report
        self._told: SimpleQueue[str] = SimpleQueue()  # may be put into by a signal handler
        self._over = False
        self._beating = Lock()

    def run(self) -> None:
        reason = ""
        while True:
            with self._beating:
                if self._over:
                    return
                try:
                    self._beat(reason)
                except Exception as error:
                    _LOG.exception("the heartbeat of %s failed", self._job)
                    _end_process(f"no heartbeat: {type(error).__name__}")
            try:
                reason = self._told.get(timeout=self._config.heartbeat)
            except Empty:
                reason = ""

    def hand_back(self, reason: str) -> None:
        """Queue the job again for whoever takes it, and end the process at once; safe in a signal handler."""
        self._told.put(reason)

    def end(self, note: Callable[[], bool]) -> bool:
        """Stop beating, keep the last lines, and note how the job ended; whether that was ours to note.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError: the database stayed busy; the lease will run out.
        """
        with self._beating:
            self._over = True
            self._told.put("")
            for left in reversed(range(TRIES)):
                try:
                    self._keep_lines()
                    return note()
                except AWAY:
                    if not left:
                        raise
                    time.sleep(1)
        raise AssertionError("the last try returns or raises")

    def _beat(self, hand_back: str) -> None:
        store, now = self._store, time.time()
        try:
            if hand_back:
                self._keep_lines()
                due = now + self._pause(now)
                store.again(self._job, self._attempt, Again.HANDED_BACK, hand_back, due=due, now=now)
                _end_process(hand_back)
            answer = store.beat(self._job, self._attempt, now, self._config.lease, self._report.told()[0])
            if answer is False:
                _end_process("somebody else runs this job now")
            self._keep_lines()
        except AWAY as error:
            if hand_back:
                _end_process(hand_back)
            # The next one may get through; until the lease runs out nothing is lost.
            _LOG.warning("no heartbeat for %s: %s", self._job, away(error))
            return
        if answer == CANCEL:
            self._report.cancel()

    def _pause(self, now: float) -> float:
        """Seconds before the next attempt of a job that is handed back: none, unless that is all that happens to it."""
        further = self._store.get(self._job).handed_back_at_once(now, SOON) - IN_A_ROW
        return self._config.wait(further) if further >= 0 else 0.0

    def _keep_lines(self) -> None:
        lines = self._report.told()[1]
        if lines and self._store.say(self._job, self._attempt, lines):
            self._report.kept(len(lines))


def _end_process(reason: str) -> NoReturn:
    """At once, and with whatever it started."""
    print(reason, file=sys.stderr, flush=True)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(ENDED)

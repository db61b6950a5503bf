"""Takes due jobs and has them started, and looks after those that run. Any number may work on one queue."""

import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event

from tutelage.config import Config
from tutelage.cycle_lock import cycle_lock
from tutelage.database import AWAY, away
from tutelage.errors import TutelageError
from tutelage.giving_up import settle, to_give_up
from tutelage.jobs.execute import failed, permanent
from tutelage.jobs.kinds import Params, settings
from tutelage.jobs.launcher import Launcher
from tutelage.jobs.model import RUNS, Job, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record
from tutelage.secrets import without_secrets

_LOG = logging.getLogger(__name__)

CANCEL_GRACE = 30.0
"""Seconds that a job which was told to stop gets to do so, before its process is ended."""
STOP_GRACE = 5.0
"""Seconds between asking a process to end and killing it."""


class Dispatcher:
    """One of those who work a workspace's queue off. It keeps nothing that the record does not have: another one, or
    the same after a restart, goes on with the jobs that run."""

    def __init__(
        self,
        record: Record,
        folder: Path,
        config: Config,
        launcher: Launcher,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            name: what it is called in the record; default: machine and process.
        """
        self.store = JobStore(record)
        self._record, self._folder = record, folder.resolve()
        self._config, self._launcher = config.jobs, launcher
        self._name, self._clock = name or f"{platform.node()}:{os.getpid()}", clock
        self._cancelling: dict[tuple[str, int], float] = {}
        """Since when this one has seen that an attempt is to stop."""
        self._watched: set[str] = set()
        """Jobs that ran when this one last looked."""
        self._cancelled_to = 0
        """Up to which of the record's moves it has cleaned up after those that cancelled a job."""
        self._hindered = ""
        """Why it could not do so when it last tried; empty: it could."""

    def tick(self) -> int:
        """Take over what died, and start what is due, as far as there is room; how many jobs were started."""
        runs = self.store.jobs(RUNS)
        self._tell({job.id for job in runs})
        running = self._look_after(runs)
        self._take_over()
        self._settle()
        started = 0
        for job in self.store.takeable(self._clock()):
            if running + started >= self._config.at_once:
                break
            started += self._start(job)
        return started

    def idle(self) -> bool:
        """Whether nothing runs and nothing can be started now; jobs that wait for their time may be left."""
        return not self.store.jobs(RUNS, limit=1) and not self.store.takeable(self._clock())

    def wait(self, until_idle: bool = True, stop: Event | None = None) -> None:
        """Work the queue off: until it is idle, or for ever; in both cases until `stop` is set. What runs goes on."""
        stop = stop or Event()
        while not stop.is_set():
            try:
                self.tick()
                if until_idle and self.idle():
                    return
            except AWAY as error:
                _LOG.warning("%s", away(error))
            stop.wait(self._config.poll)

    # -- what runs ------------------------------------------------------------------------------

    def _tell(self, running: set[str]) -> None:
        """Log how the jobs ended that ran before."""
        for job in map(self.store.get, sorted(self._watched - running)):
            level = logging.WARNING if job.state is State.FAILED else logging.INFO
            reason = f": {job.last.reason}" if job.last.reason else ""
            _LOG.log(level, "%s: the %s job is %s%s", job.id, job.kind, job.state, reason)
        self._watched = running

    def _look_after(self, jobs: list[Job]) -> int:
        """Bury the dead ones, end those that do not stop; how many are left."""
        attempts = {(job.id, job.last.attempt) for job in jobs}
        self._cancelling = {key: since for key, since in self._cancelling.items() if key in attempts}
        left = 0
        for job in jobs:
            alive = self._alive(job)
            if alive is False:
                self._bury(job)
                continue
            left += 1
            now, attempt = self._clock(), job.last.attempt
            if alive and job.state is State.LEASED:  # it cannot say so itself yet
                self.store.beat(job.id, attempt, now, self._config.lease)
            if job.cancel and job.handle:
                since = self._cancelling.setdefault((job.id, attempt), now)
                if now - since > CANCEL_GRACE:
                    self._stop(job, STOP_GRACE)
        return left

    def _alive(self, job: Job) -> bool | None:
        try:
            return self._launcher.alive(job.handle) if job.handle else None
        except Exception as error:  # where it runs cannot be asked; its lease tells
            self._warn(job, error)
            return None

    def _stop(self, job: Job, grace: float) -> None:
        try:
            self._launcher.stop(job.handle, grace=grace)
        except Exception as error:  # it ends by itself when it finds its lease gone
            self._warn(job, error)

    def _output(self, job: Job) -> str:
        try:
            return self._launcher.output(job.handle)
        except Exception as error:
            self._warn(job, error)
            return ""

    def _warn(self, job: Job, error: Exception) -> None:
        """What a launcher, which may be anybody's, cannot do for one job must not keep the others waiting."""
        _LOG.warning("%s: launcher %r: %s", job.id, self._launcher.name, _told(error))

    def _bury(self, job: Job) -> None:
        """Take a job from a process that is dead, with what it wrote last."""
        last = without_secrets(self._output(job)).splitlines()
        lines = [f"its process ended without a word; the last that it wrote:{'' if last else ' nothing'}", *last]
        self.store.say(job.id, job.last.attempt, lines, self._clock())
        reason = f"the process of {job.worker} died"
        found = self.store.abandon(job.id, job.last.attempt, reason, self._clock(), takeovers=self._config.takeovers)
        if found is not None:
            _LOG.warning("%s: %s; it is %s", job.id, reason, found.state)

    def _take_over(self) -> None:
        """Take the jobs whose lease has run out, and see that what ran them does not go on."""
        for job in self.store.reclaim(self._clock(), takeovers=self._config.takeovers):
            _LOG.warning("%s: %s gave no sign of life", job.id, job.worker)
            if job.handle:
                self._stop(job, 0)

    def _settle(self) -> None:
        """Clean up after cancelled jobs that did not themselves: their processes died while they were told to stop, or
        had ended with the cycle unfinished before."""
        found, newest = self.store.cancelled(self._cancelled_to)
        if found or self._hindered:
            self._clean_up()
        self._cancelled_to = newest

    def _clean_up(self) -> None:
        from tutelage.workspace import Workspace

        names = "a cancelled job"
        try:
            jobs = set(to_give_up(self._record).values())
            if jobs:
                names = ", ".join(sorted(jobs))
                with (
                    cycle_lock(self._folder, f"cleaning up after {names}"),
                    closing(Workspace(settings(self._folder, Params()), remember=False)) as workspace,
                ):
                    settle(workspace)
        except TutelageError as error:  # a process that is still ending, or a cycle by hand
            if self._hindered != str(error):
                _LOG.warning("%s: the next cycle cleans up after it: %s", names, error)
            self._hindered = str(error)
        else:
            self._hindered = ""

    # -- what is due ----------------------------------------------------------------------------

    def _start(self, job: Job) -> bool:
        """Lease a job and start its process; False if somebody else was first, or it cannot be started."""
        attempt = self.store.lease(job.id, self._name, self._clock(), self._config.lease)
        if attempt is None:
            return False
        try:
            handle = self._launcher.start(job.id, attempt)
        except Exception as error:  # of one's own launcher, or of what it goes through
            reason = f"the launcher {self._launcher.name!r} could not start it: {_told(error)}"
            _LOG.warning("%s: %s", job.id, reason)
            failed(self.store, job, attempt, reason, self._config, self._clock(), permanent=permanent(error))
            return False
        self.store.handled(job.id, attempt, handle)
        self._watched.add(job.id)
        _LOG.info("%s: attempt %d of a %s job started", job.id, attempt, job.kind)
        return True


def _told(error: Exception) -> str:
    """A launcher's error in words; of one that it did not foresee also the kind."""
    kind = "" if isinstance(error, TutelageError) else f"{type(error).__name__}: "
    return without_secrets(f"{kind}{error}")

"""The scheduler: looks at the triggers, queues what they start, and has the dispatcher run what is queued.

What it goes by is in the record, so it may be stopped, killed and started again at any time, and several may watch one
workspace, as long as all have the same triggers: a firing is one transaction, and its key is the same for all.

It keeps to the settings that it was started with. Those that the workspace keeps may be changed by hand meanwhile; they
are what jobs run with.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tutelage.config import CONFIG_FILE, Config
from tutelage.database import AWAY, away
from tutelage.errors import ConfigError, TutelageError, UnknownName
from tutelage.jobs import data_triggers
from tutelage.jobs.kinds import params_of, settings
from tutelage.jobs.model import Job
from tutelage.jobs.store import JobStore
from tutelage.jobs.triggers import OFF, Decision, Found, Kept, begin, by_clock, condition, decide, ready
from tutelage.record import Record
from tutelage.record_tables import DOCUMENTS
from tutelage.service_config import TriggerConfig

_LOG = logging.getLogger(__name__)

TRIGGER = "trigger"
"""Kind of the documents that keep what is to be kept of each trigger."""


class Ticking(Protocol):
    """What runs the queue, as `tutelage.jobs.dispatcher.Dispatcher`."""

    def tick(self) -> int:
        """Take over what was abandoned, start what can be taken; how much was started."""
        ...


@dataclass(frozen=True)
class Fired:
    """A trigger that has queued a job."""

    trigger: str
    job: str
    why: str


class Scheduler:
    """Watches one workspace. Its own clock is that of the triggers; leases go by the dispatcher's."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        dispatcher: Ticking | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`dispatcher` None: only triggers are looked at.

        Raises:
            ConfigError: settings that a trigger gives its jobs make no sense in this workspace.
            RecordError: the record cannot be opened.
        """
        self.config = config
        self.dispatcher = dispatcher
        self.clock = clock
        for trigger in config.triggers:
            _check(folder, trigger)
        self.record = Record.open(folder, tenant=config.memory.tenant)
        self.store = JobStore(self.record)
        self._seen: dict[str, tuple[Kept, int, Found]] = {}
        self._said: dict[str, str] = {}
        """What was logged last of each trigger in trouble; without a name: of the whole."""
        self._begun = False

    def close(self) -> None:
        self.record.close()

    def tick(self) -> list[Fired]:
        """Look at all triggers once, then run the queue once; what has fired."""
        fired = self.fire()
        if self.dispatcher is not None:
            self.dispatcher.tick()
        return fired

    def fire(self) -> list[Fired]:
        """Look at all triggers once; one that is in trouble is logged and does not keep the others from it."""
        if not self._begun:
            self._switch_off_others()
            self._begun = True
        now, found = self.clock(), []
        for trigger in self.config.triggers:
            try:
                fired = self._look_at(trigger, now)
            except TutelageError as error:
                self._warn(trigger.name, f"trigger {trigger.name}: {error}")
                continue
            self._said.pop(trigger.name, None)
            if fired is not None:
                _LOG.info("trigger %s: %s: queued %s %s", fired.trigger, fired.why, trigger.job, fired.job)
                found.append(fired)
        return found

    def run(self, stop: Event) -> None:
        """Tick every `jobs.poll` seconds until `stop` is set. A database that is busy or away, and any other trouble
        that is told as a `TutelageError`, is logged and met again with the next tick.

        Anything else that a tick raises ends it and propagates.
        """
        # A plain wait, for it goes by no clock that can be set: APScheduler's own scheduler stands still once the clock
        # is set back, and works through every tick that it missed once it is set forward.
        while not stop.is_set():
            try:
                self.tick()
            except TutelageError as error:
                self._warn("", str(error))
            except AWAY as error:
                self._warn("", away(error))
            else:
                self._said.pop("", None)
            stop.wait(self.config.jobs.poll)

    def _warn(self, trigger: str, text: str) -> None:
        """Log trouble once for as long as it stays the same, whatever else is in trouble meanwhile."""
        if self._said.get(trigger) != text:
            _LOG.warning("%s", text)
            self._said[trigger] = text

    # -- one trigger ----------------------------------------------------------------------------

    def kept(self, trigger: str) -> Kept | None:
        """What is kept of a trigger; None: it was never looked at."""
        body = self.record.get(TRIGGER, trigger)
        return None if body is None else Kept.model_validate(body)

    def last_job(self, kept: Kept) -> Job | None:
        """The job that a trigger queued last."""
        return self.store.get(kept.job) if kept.job else None

    def _look_at(self, trigger: TriggerConfig, now: float) -> Fired | None:
        kept = self.kept(trigger.name)
        if kept is None or kept.condition != condition(trigger):
            fresh = begin(trigger, now, data_triggers.mark(self.record, trigger), kept)
            return self._act(trigger, kept, Decision(fresh), now)
        if kept.condition == OFF:
            return None
        ahead, found = self.last_job(kept), None
        if not by_clock(trigger) and ready(trigger, kept, now, ahead):
            found = self._look_at_data(trigger, kept)
        decision = decide(trigger, kept, now, found=found, ahead=ahead)
        return None if decision.kept == kept else self._act(trigger, kept, decision, now)

    def _look_at_data(self, trigger: TriggerConfig, kept: Kept) -> Found:
        """What the data say; looked up again only when something was written since."""
        stamp, seen = self.record.stamp(), self._seen.get(trigger.name)
        if seen is not None and stamp is not None and seen[:2] == (kept, stamp):
            return seen[2]
        found = data_triggers.look(self.record, trigger, kept, self.config.memory.trust)
        if stamp is not None:
            self._seen[trigger.name] = (kept, stamp, found)
        return found

    def _act(self, trigger: TriggerConfig, before: Kept | None, decision: Decision, now: float) -> Fired | None:
        """Keep what was decided, with the job if it fires, all or nothing; nothing if another scheduler was first."""
        kept, fired = decision.kept, None
        try:
            with self.record.transaction():
                if self.kept(trigger.name) != before:
                    return None
                if decision.key:
                    by = f"trigger:{trigger.name}"
                    job, new = self.store.submit(trigger.job, trigger.params, key=decision.key, by=by, now=now)
                    kept = kept.model_copy(update={"job": job.id})
                    fired = Fired(trigger.name, job.id, kept.note) if new else None
                self.record.put(TRIGGER, trigger.name, kept.model_dump())
        except IntegrityError:  # on a database server both may have come this far
            return None
        if before is not None and kept.note and not decision.key and kept.done_time != before.done_time:
            back = kept.done_time < before.done_time
            _LOG.log(logging.WARNING if back else logging.INFO, "trigger %s: %s", trigger.name, kept.note)
        return fired

    def _switch_off_others(self) -> None:
        """See that a trigger which is gone from the settings starts from now if it ever comes back."""
        known = {trigger.name for trigger in self.config.triggers}
        with self.record.transaction() as connection:
            kept = connection.execute(select(DOCUMENTS.c.key).where(DOCUMENTS.c.kind == TRIGGER).distinct()).scalars()
            for name in sorted(set(kept) - known):
                last = self.kept(name)
                if last is not None and last.condition != OFF:
                    self.record.put(TRIGGER, name, last.model_copy(update={"condition": OFF}).model_dump())


def _check(folder: Path, trigger: TriggerConfig) -> None:
    if not (folder / CONFIG_FILE).exists():
        return
    try:
        settings(folder, params_of(trigger.job, trigger.params))
    except (ConfigError, UnknownName) as error:
        raise ConfigError(f"trigger {trigger.name}: {error}") from error

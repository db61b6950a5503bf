"""What happens to served conversations in time: those that are over are judged, old ones are forgotten."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from tutelage.config import Config
from tutelage.errors import TutelageError
from tutelage.record import Record
from tutelage.serving.errors import sayable
from tutelage.serving.feedback import settle
from tutelage.serving.sessions import drop_turns, open_turns
from tutelage.workspace import Workspace

_LOG = logging.getLogger(__name__)

BY = "retention"
"""Who forgets what is too old, as its tombstone says."""
DAY = 86_400.0
OFTEN = 60.0
"""Seconds between two looks, at most; where sessions are over sooner, as often as that."""


@dataclass(frozen=True)
class Forgotten:
    """What is gone."""

    trajectories: int = 0
    under_way: int = 0
    """Conversations that had not been judged yet."""

    @property
    def total(self) -> int:
        return self.trajectories + self.under_way


def expire(workspace: Workspace, now: float | None = None) -> Forgotten:
    """Forget served conversations whose last turn is older than `serve.learning.retention_days`.

    Args:
        now: seconds since 1970.
    """
    days = workspace.config.serve.learning.retention_days
    if not days:
        return Forgotten()
    until = datetime.fromtimestamp((time.time() if now is None else now) - days * DAY, UTC)
    return forget_before(workspace, until, reason=f"older than {days:g} days (serve.learning.retention_days)", by=BY)


def forget_before(workspace: Workspace, until: datetime, *, reason: str, by: str) -> Forgotten:
    """Forget all served conversations, of every tenant, whose last turn was before `until`."""
    ids = [item.id for item in workspace.record.served(before=until)]
    under_way = [name for name, turns in open_turns(workspace.record).items() if turns[-1].created < until]
    return forget(workspace, ids, under_way, reason=reason, by=by)


def forget(
    workspace: Workspace, trajectories: Sequence[str], under_way: Sequence[str] = (), *, reason: str, by: str
) -> Forgotten:
    """Forget these, all or none.

    Args:
        under_way: sessions that are no trajectory yet; of them not even a tombstone stays.

    Raises:
        RecordError: there is no such trajectory.
    """
    if not trajectories and not under_way:
        return Forgotten()
    with closing(Record.open(workspace.folder, create=False)) as record:
        with record.transaction():
            for trajectory in trajectories:
                record.forget_trajectory(trajectory, reason, by)
            for session in under_way:
                drop_turns(record, session)
        if under_way and not trajectories:
            record.scrub()
    return Forgotten(len(trajectories), len(under_way))


class Tending:
    """Judges and forgets while a server runs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def run(self, stop: threading.Event) -> None:
        """Look every now and then until `stop` is set; a database or a judge in trouble is waited for."""
        pause = min(OFTEN, self._config.serve.learning.idle / 2)
        while not stop.wait(pause):
            try:
                self.once()
            except (TutelageError, DBAPIError) as error:
                _LOG.warning("served conversations are looked at again in %g s: %s", pause, sayable(error))

    def once(self) -> None:
        with closing(Workspace(self._config, remember=False)) as workspace:
            settled = settle(workspace)
            gone = expire(workspace)
        if settled.trajectories:
            _LOG.info("%s", settled)
        if gone.total:
            _LOG.info("%d served conversations were older than is kept, and are forgotten", gone.total)

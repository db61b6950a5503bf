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
AGAIN = 3600.0
"""Seconds until a judge is asked again about a conversation on which it gave no usable answer: whoever spoke there may
have brought that about, and each time costs as much as the first."""
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
        self._unusable: dict[str, float] = {}
        """Sessions whose judge gave no usable answer, and when it is asked again."""

    def run(self, stop: threading.Event) -> None:
        """Look every now and then until `stop` is set; a database or a judge in trouble is waited for."""
        pause = min(OFTEN, self._config.serve.learning.idle / 2)
        while not stop.wait(pause):
            try:
                self.once()
            except (TutelageError, DBAPIError) as error:
                _LOG.warning("served conversations are looked at again in %g s: %s", pause, sayable(error))

    def once(self) -> None:
        now = time.monotonic()
        self._unusable = {session: when for session, when in self._unusable.items() if when > now}
        with closing(Workspace(self._config, remember=False)) as workspace:
            settled = settle(workspace, without=self._unusable)
            self._unusable |= dict.fromkeys(settled.unusable, now + AGAIN)
            gone = expire(workspace)
        if settled.trajectories:
            _LOG.info("%s", settled)
        if gone.total:
            _LOG.info("%d served conversations were older than is kept, and are forgotten", gone.total)

"""Looking at the queue: jobs, their states and what they said."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from tutelage.errors import RecordError
from tutelage.jobs.model import LANES, RUNS, Job, Line, Move, Progress, State
from tutelage.record import Record
from tutelage.record_tables import JOB_LINES, JOB_MOVES, JOBS, LEASES
from tutelage.service_config import JobKind


class JobReader:
    """Jobs of one record, to look at."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def get(self, job_id: str) -> Job:
        """One job, by its id or the unique beginning of it, with or without ``job_``.

        Raises:
            RecordError: there is none, or several begin like this.
        """
        with self.record.reading() as connection:
            whole = job_id if job_id.startswith("job_") else f"job_{job_id}"
            alike = JOBS.c.id.startswith(whole, autoescape=True)
            ids = list(connection.execute(select(JOBS.c.id).where(alike).limit(2)).scalars())
            if not ids or not job_id:
                raise RecordError(f"{self.record.name} has no job {job_id!r}")
            if len(ids) > 1 and whole not in ids:
                raise RecordError(f"several jobs begin with {job_id!r}; give more of the id")
            return self._jobs(connection, JOBS.c.id == (whole if whole in ids else ids[0]))[0]

    def jobs(self, states: Collection[State] = (), kind: JobKind | None = None, limit: int | None = None) -> list[Job]:
        """Newest first; no states: in any."""
        with self.record.reading() as connection:
            wanted = [JOBS.c.kind == kind] if kind is not None else []
            if states and set(states) == set(RUNS):  # asked for all the time, and few whatever is in the record
                wanted.append(JOBS.c.id.in_(select(LEASES.c.job)))
            elif states:
                wanted.append(JOBS.c.id.in_(select(JOB_MOVES.c.job).where(*_in_state(states))))
            return self._jobs(connection, *wanted, newest=True, limit=limit)

    def takeable(self, now: float, limit: int = 50) -> list[Job]:
        """The oldest queued jobs that are due and whose lane is free.

        A lane is kept for the jobs that ran in it until they are over: between two attempts one may have left something
        unfinished that no other can go on with. Which of them did is not known here, so each may look, whoever is due
        for longest first.
        """
        with self.record.reading() as connection:
            busy = set(connection.execute(select(LEASES.c.lane)).scalars()) - {None}
            queued = [(LANES.get(JobKind(row.kind)), row) for row in self._queued(connection)]
            kept = {lane: {row.id for its, row in queued if its == lane and row.attempt} for lane in LANES.values()}
            ids = [
                row.id
                for lane, row in queued
                if row.due <= now and (lane is None or (lane not in busy and (not kept[lane] or row.id in kept[lane])))
            ]
            found = self._jobs(connection, JOBS.c.id.in_(ids[:limit])) if ids else []
        keepers = {job_id for jobs in kept.values() for job_id in jobs}
        in_turn = iter(sorted((job for job in found if job.id in keepers), key=lambda job: job.last.due))
        return [next(in_turn) if job.id in keepers else job for job in found]

    def cancelled(self, after: int = 0) -> tuple[set[str], int]:
        """Jobs that were cancelled since the move numbered `after`, and the number to ask with next."""
        with self.record.reading() as connection:
            newest = connection.execute(select(func.max(JOB_MOVES.c.n))).scalar() or 0
            since = (JOB_MOVES.c.n > after, JOB_MOVES.c.n <= newest, JOB_MOVES.c.state == State.CANCELLED.value)
            return set(connection.execute(select(JOB_MOVES.c.job).where(*since)).scalars()), newest

    def lines(self, job_id: str, after: int = 0) -> list[Line]:
        """What a job said since the line numbered `after`."""
        query = select(*JOB_LINES.c["n", "attempt", "created", "text"]).where(
            JOB_LINES.c.job == job_id, JOB_LINES.c.n > after
        )
        with self.record.reading() as connection:
            rows = connection.execute(query.order_by(JOB_LINES.c.n)).all()
        return [Line(n=row.n, attempt=row.attempt, created=_zoned(row.created), text=row.text) for row in rows]

    # -- inside a transaction -------------------------------------------------------------------

    def _last(self, connection: Connection, job_id: str) -> Row[Any]:
        """The newest move of a job, which is there."""
        row = self._newest(connection, job_id)
        if row is None:
            raise RecordError(f"{self.record.name} has no job {job_id!r}")
        return row

    def _newest(self, connection: Connection, job_id: str) -> Row[Any] | None:
        """The newest move of a job; None before its first."""
        query = select(JOB_MOVES).where(JOB_MOVES.c.job == job_id).order_by(JOB_MOVES.c.n.desc()).limit(1)
        return connection.execute(query).first()

    def _queued(self, connection: Connection) -> Sequence[Any]:
        """Rows of queued jobs in the order in which they were submitted; ``attempt`` tells those that ran before."""
        columns = (JOBS.c.id, JOBS.c.kind, JOB_MOVES.c.attempt, JOB_MOVES.c.due)
        query = select(*columns).join(JOBS, JOBS.c.id == JOB_MOVES.c.job).where(*_in_state((State.QUEUED,)))
        return connection.execute(query.order_by(JOBS.c.n)).all()

    def _jobs(self, connection: Connection, *wanted: Any, newest: bool = False, limit: int | None = None) -> list[Job]:
        """Jobs with their moves and leases, in the order in which they were submitted or the other way round."""
        order = JOBS.c.n.desc() if newest else JOBS.c.n
        rows = connection.execute(select(JOBS).where(*wanted).order_by(order).limit(limit)).all()
        ids = select(JOBS.c.id).where(*wanted).order_by(order).limit(limit)
        moves: dict[str, list[Move]] = {}
        for row in connection.execute(select(JOB_MOVES).where(JOB_MOVES.c.job.in_(ids)).order_by(JOB_MOVES.c.n)):
            moves.setdefault(row.job, []).append(_as_move(row))
        leases = {row.job: row for row in connection.execute(select(LEASES).where(LEASES.c.job.in_(ids)))}
        return [_as_job(row, moves[row.id], leases.get(row.id)) for row in rows]


def _as_job(row: Row[Any], moves: Sequence[Move], lease: Row[Any] | None) -> Job:
    running: dict[str, Any] = {}
    if lease is not None:
        progress = Progress.model_validate_json(lease.progress)
        running = {"progress": progress, "until": lease.until, "handle": lease.handle, "cancel": lease.cancel}
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        key=row.key,
        by=row.by,
        params=json.loads(row.params),
        created=_zoned(row.created),
        moves=tuple(moves),
        **running,
    )


def _as_move(row: Row[Any]) -> Move:
    return Move(
        state=State(row.state),
        attempt=row.attempt,
        worker=row.worker,
        reason=row.reason,
        due=row.due,
        result=json.loads(row.result),
        created=_zoned(row.created),
    )


def _in_state(states: Collection[State]) -> tuple[Any, Any]:
    """Where the last move of a job is, if it is into one of these."""
    later = JOB_MOVES.alias()
    follows = select(later.c.n).where(later.c.job == JOB_MOVES.c.job, later.c.n > JOB_MOVES.c.n)
    return JOB_MOVES.c.state.in_([item.value for item in states]), ~follows.exists()


def _zoned(moment: datetime) -> datetime:
    """SQLite drops the zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

"""Looking at the queue: jobs, their states and what they said."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from tutelage.errors import RecordError
from tutelage.jobs.model import LANES, OVER, Job, Line, Move, Progress, State
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
            if states:
                wanted.append(JOBS.c.id.in_(_in_state(states)))
            return self._jobs(connection, *wanted, newest=True, limit=limit)

    def takeable(self, now: float, limit: int = 50) -> list[Job]:
        """The oldest queued jobs that are due and whose lane is free.

        A lane is kept for the job that ran in it last until that one is over: between two attempts it may have left
        something unfinished that no other can go on with.
        """
        with self.record.reading() as connection:
            wanted: list[ColumnElement[bool]] = [JOBS.c.id.in_(_in_state((State.QUEUED,), due=now))]
            for lane, job_id in self._lanes(connection).items():
                wanted.append(JOBS.c.kind.not_in(_kinds(lane)) | (JOBS.c.id == job_id))
            return self._jobs(connection, *wanted, limit=limit)

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
        """The newest move of a job."""
        query = select(JOB_MOVES).where(JOB_MOVES.c.job == job_id).order_by(JOB_MOVES.c.n.desc()).limit(1)
        row = connection.execute(query).first()
        if row is None:
            raise RecordError(f"{self.record.name} has no job {job_id!r}")
        return row

    def _lanes(self, connection: Connection) -> dict[str, str]:
        """Which job each lane is kept for: the one that was last taken in it, while it is not over."""
        newest = select(func.max(JOB_MOVES.c.n)).join(JOBS, JOBS.c.id == JOB_MOVES.c.job)
        kept = {}
        for lane in set(LANES.values()):
            leased = JOB_MOVES.c.state == State.LEASED.value
            taken = newest.where(leased, JOBS.c.kind.in_(_kinds(lane))).scalar_subquery()
            job = connection.execute(select(JOB_MOVES.c.job).where(JOB_MOVES.c.n == taken)).scalar()
            if job is not None and State(self._last(connection, job).state) not in OVER:
                kept[lane] = str(job)
        return kept

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


def _kinds(lane: str) -> list[str]:
    return [kind.value for kind, name in LANES.items() if name == lane]


def _in_state(states: Collection[State], *, due: float | None = None) -> Any:
    """Query for the ids of jobs whose last move is into one of these."""
    last = select(func.max(JOB_MOVES.c.n)).group_by(JOB_MOVES.c.job)
    query = select(JOB_MOVES.c.job).where(
        JOB_MOVES.c.n.in_(last), JOB_MOVES.c.state.in_([item.value for item in states])
    )
    return query if due is None else query.where(JOB_MOVES.c.due <= due)


def _zoned(moment: datetime) -> datetime:
    """SQLite drops the zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

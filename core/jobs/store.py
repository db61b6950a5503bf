"""The queue: jobs in the record, who runs which, and how each came to where it stands.

States are only ever added, each checked against `NEXT` in one transaction with what it is based on. Who may add one is
decided by the lease: one row per running job, unique also per lane, which its attempt's process renews with every
heartbeat. A process whose lease is gone may add nothing more.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from tutelage.config import CONFIG_FILE
from tutelage.encodable import encodable
from tutelage.errors import RecordError
from tutelage.jobs.kinds import params_of, settings
from tutelage.jobs.model import CANCEL, LANES, NEXT, OVER, RUNS, Again, Cancel, Job, Progress, State
from tutelage.jobs.reading import JobReader
from tutelage.record_tables import JOB_LINES, JOB_MOVES, JOBS, LEASES
from tutelage.secrets import without_secrets
from tutelage.service_config import JobKind, JobsConfig
from tutelage.types import new_id

LONGEST_LINE = 4000
"""Characters of a line; the rest is cut off."""


class JobStore(JobReader):
    """Jobs of one record. Times are seconds since 1970, given by the caller; None is this machine's clock."""

    # -- queueing -------------------------------------------------------------------------------

    def submit(
        self,
        kind: JobKind | str,
        params: dict[str, Any] | None = None,
        *,
        key: str = "",
        by: str,
        due: float = 0.0,
        now: float | None = None,
    ) -> tuple[Job, bool]:
        """Queue a job.

        Args:
            key: a job that was submitted with it before is the same job; empty: a new one in any case.
            by: ``hand:NAME`` or ``trigger:NAME``.
            due: not before this.

        Returns:
            The job, and whether it is new.

        Raises:
            ConfigError: its kind does not take these params, or a setting among them makes no sense.
        """
        kind, made, job_id = JobKind(kind), _now(now), new_id("job")
        given = params_of(kind, params or {})
        folder = self.record.folder
        if folder is not None and (folder / CONFIG_FILE).exists():
            settings(folder, given)
        values = {
            "id": job_id,
            "kind": kind.value,
            "key": key or job_id,
            "by": by,
            "params": given.model_dump_json(exclude_defaults=True),
            "created": _moment(made),
        }
        with self.record.transaction() as connection:
            try:
                with connection.begin_nested():
                    connection.execute(insert(JOBS).values(values))
            except IntegrityError:
                return self._jobs(connection, JOBS.c.key == key)[0], False
            self._move(connection, job_id, State.QUEUED, reason=f"submitted by {by}", due=due, now=made)
            return self.get(job_id), True

    def cancel(self, job_id: str, by: str, now: float | None = None) -> Job:
        """Stop a job: a queued or failed one at once, a running one at its next heartbeat.

        Raises:
            RecordError: there is no such job, or it has succeeded or was cancelled.
        """
        with self.record.transaction() as connection:
            job_id = self.get(job_id).id
            last = self._locked(connection, job_id)
            if last.state in RUNS:
                connection.execute(update(LEASES).where(LEASES.c.job == job_id).values(cancel=True))
            else:
                self._move(connection, job_id, State.CANCELLED, reason=f"cancelled by {by}", now=_now(now))
            return self.get(job_id)

    def retry(self, job_id: str, by: str, now: float | None = None) -> Job:
        """Queue a failed or cancelled job again, with all its attempts.

        Raises:
            RecordError: there is no such job, or it neither failed nor was cancelled.
        """
        with self.record.transaction() as connection:
            job_id = self.get(job_id).id
            last = self._locked(connection, job_id)
            if last.state not in (State.FAILED, State.CANCELLED):
                raise RecordError(f"{job_id} is {last.state}; only what failed or was cancelled can be retried")
            again = {"again": Again.BY_HAND}
            self._move(connection, job_id, State.QUEUED, reason=f"retried by {by}", result=again, now=_now(now))
            return self.get(job_id)

    # -- running --------------------------------------------------------------------------------

    def lease(self, job_id: str, worker: str, now: float, seconds: float) -> int | None:
        """Take a queued job that is due.

        Returns:
            The number of the attempt; None if somebody else was first, or another job runs in its lane.
        """
        with self.record.transaction() as connection:
            last = self._locked(connection, job_id)
            if last.state != State.QUEUED or last.due > now:
                return None
            kind = connection.execute(select(JOBS.c.kind).where(JOBS.c.id == job_id)).scalar_one()
            attempt = int(last.attempt) + 1
            values = {
                "job": job_id,
                "lane": LANES.get(JobKind(kind)),
                "attempt": attempt,
                "worker": worker,
                "handle": "",
                "until": now + seconds,
                "progress": Progress().model_dump_json(),
                "cancel": False,
            }
            try:
                with connection.begin_nested():
                    connection.execute(insert(LEASES).values(values))
            except IntegrityError:
                return None
            self._move(connection, job_id, State.LEASED, attempt=attempt, worker=worker, now=now)
            return attempt

    def handled(self, job_id: str, attempt: int, handle: str) -> bool:
        """Note what the launcher knows the process of an attempt by; False if its lease is gone."""
        with self.record.transaction() as connection:
            return bool(
                connection.execute(update(LEASES).where(*_mine(job_id, attempt)).values(handle=handle)).rowcount
            )

    def started(self, job_id: str, attempt: int, worker: str, handle: str, now: float) -> bool:
        """The process of an attempt takes over its lease; False if it is gone, or another process has it.

        Args:
            handle: what the launcher knows it by, if the process can tell; empty: stays as it is.
        """
        with self.record.transaction() as connection:
            last = self._locked(connection, job_id)
            if last.state != State.LEASED or last.attempt != attempt:
                return False
            values = {"worker": worker, **({"handle": handle} if handle else {})}
            if not connection.execute(update(LEASES).where(*_mine(job_id, attempt)).values(values)).rowcount:
                return False
            self._move(connection, job_id, State.RUNNING, attempt=attempt, worker=worker, now=now)
            return True

    def beat(
        self, job_id: str, attempt: int, now: float, seconds: float, progress: Progress | None = None
    ) -> bool | Cancel:
        """A sign of life: the lease lasts for `seconds` from now.

        Returns:
            False: it is no longer this attempt's, and whoever runs it must end at once without noting anything.
            `CANCEL`: the job was told to stop.
        """
        values: dict[str, Any] = {"until": now + seconds}
        if progress is not None:
            values["progress"] = progress.model_dump_json()
        with self.record.transaction() as connection:
            if not connection.execute(update(LEASES).where(*_mine(job_id, attempt)).values(values)).rowcount:
                return False
            told = connection.execute(select(LEASES.c.cancel).where(*_mine(job_id, attempt))).scalar_one()
        return CANCEL if told else True

    def say(self, job_id: str, attempt: int, lines: Sequence[str], now: float | None = None) -> bool:
        """Keep lines that a job said, without secrets already; False, and nothing kept, without the attempt's lease."""
        with self.record.transaction() as connection:
            if not connection.execute(select(LEASES.c.job).where(*_mine(job_id, attempt))).first():
                return False
            row = {"job": job_id, "attempt": attempt, "created": _moment(_now(now))}
            rows = [{**row, "text": encodable(text[:LONGEST_LINE])} for text in lines]
            if rows:
                connection.execute(insert(JOB_LINES), rows)
            return True

    # -- ending ---------------------------------------------------------------------------------

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: State,
        reason: str = "",
        result: dict[str, Any] | None = None,
        now: float | None = None,
    ) -> bool:
        """The end of a job, by the attempt that holds its lease; False, and nothing written, for any other."""
        assert state in OVER, "use `again` for another attempt"
        return self._end(job_id, attempt, state, now=_now(now), reason=reason, result=result)

    def again(
        self, job_id: str, attempt: int, why: Again, reason: str, *, due: float, now: float | None = None
    ) -> bool:
        """Queue it for another attempt, by the attempt that holds its lease; False for any other.

        One that was told to stop is cancelled instead.
        """
        with self.record.transaction() as connection:
            self._locked(connection, job_id)
            if connection.execute(select(LEASES.c.cancel).where(*_mine(job_id, attempt))).scalar():
                return self.finish(job_id, attempt, State.CANCELLED, f"told to stop; {reason}", now=now)
            result = {"again": why}
            return self._end(job_id, attempt, State.QUEUED, now=_now(now), reason=reason, result=result, due=due)

    def abandon(
        self, job_id: str, attempt: int, reason: str, now: float, *, takeovers: int = JobsConfig().takeovers
    ) -> Job | None:
        """Take a job from an attempt whose process is dead; None if it no longer has the lease.

        It is queued again, or has failed if that happened `takeovers` times before, or is cancelled if it was to be.
        """
        with self.record.transaction() as connection:
            self._locked(connection, job_id)
            job = self.get(job_id)
            if not connection.execute(select(LEASES.c.job).where(*_mine(job_id, attempt))).first():
                return None
            if job.times(Again.TAKEN_OVER) >= takeovers and not job.cancel:
                reason = f"{reason}; it was taken over {takeovers} times before"
                self.finish(job_id, attempt, State.FAILED, reason, now=now)
            else:
                self.again(job_id, attempt, Again.TAKEN_OVER, reason, due=now, now=now)
            return self.get(job_id)

    def reclaim(self, now: float, *, takeovers: int = JobsConfig().takeovers) -> list[Job]:
        """Take over every job whose lease has run out; as they stood before, so with the handle of what to stop."""
        with self.record.reading() as connection:
            over = list(connection.execute(select(LEASES.c.job).where(LEASES.c.until < now)).scalars())
            late = self._jobs(connection, JOBS.c.id.in_(over)) if over else []
        found = []
        for job in late:
            with self.record.transaction() as connection:
                self._locked(connection, job.id)
                due = select(LEASES.c.job).where(*_mine(job.id, job.last.attempt), LEASES.c.until < now)
                if connection.execute(due).first():  # no heartbeat came since it was looked up
                    self.abandon(
                        job.id, job.last.attempt, f"{job.worker} gave no sign of life", now, takeovers=takeovers
                    )
                    found.append(job)
        return found

    # -- inside a transaction -------------------------------------------------------------------

    def _end(self, job_id: str, attempt: int, state: State, *, now: float, **values: Any) -> bool:
        with self.record.transaction() as connection:
            last = self._locked(connection, job_id)
            if not connection.execute(delete(LEASES).where(*_mine(job_id, attempt))).rowcount:
                return False
            self._move(connection, job_id, state, attempt=attempt, worker=last.worker, now=now, **values)
            return True

    def _locked(self, connection: Connection, job_id: str) -> Row[Any]:
        """The job's newest move; nobody else adds one until the transaction ends."""
        connection.execute(select(JOBS.c.id).where(JOBS.c.id == job_id).with_for_update())
        return self._last(connection, job_id)

    def _move(
        self,
        connection: Connection,
        job_id: str,
        state: State,
        *,
        now: float,
        attempt: int | None = None,
        worker: str = "",
        reason: str = "",
        due: float = 0.0,
        result: dict[str, Any] | None = None,
    ) -> None:
        """Append a state; `attempt` None is that of the state before."""
        last = self._newest(connection, job_id)
        if last is not None and state not in NEXT[State(last.state)]:
            raise RecordError(f"{job_id} is {last.state}, so it cannot become {state}")
        connection.execute(
            insert(JOB_MOVES).values(
                job=job_id,
                state=state.value,
                attempt=(last.attempt if last is not None else 0) if attempt is None else attempt,
                worker=worker,
                reason=without_secrets(encodable(reason)),  # messages of errors may quote what was sent
                due=due,
                result=json.dumps(result or {}, sort_keys=True),
                created=_moment(now),
            )
        )


def _mine(job_id: str, attempt: int) -> tuple[Any, Any]:
    """Where the lease of an attempt is."""
    return LEASES.c.job == job_id, LEASES.c.attempt == attempt


def _now(given: float | None) -> float:
    return time.time() if given is None else given


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

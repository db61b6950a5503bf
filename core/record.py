"""The record: one SQL database per workspace with everything that happened; all else can be rebuilt from it.

Rows are only ever added, but for what is forgotten. Each add is idempotent and one transaction of its own, unless it
happens inside ``with record.transaction():``, which makes several of them one.
"""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, bindparam, insert, select

from tutelage.database import where
from tutelage.errors import RecordError
from tutelage.fingerprint import fingerprint
from tutelage.measures import Student
from tutelage.record_experiences import batches
from tutelage.record_forgetting import Forgetting
from tutelage.record_tables import (
    DOCUMENTS,
    METADATA,
    METRICS,
    PROMOTIONS,
    STUDENTS,
    TRAJECTORIES,
    USES,
    VERDICTS,
)
from tutelage.tools import names
from tutelage.types import LIVE, OWN, SERVED, Split, Tool, Trajectory, Verdict, now

_PLACES = select(*TRAJECTORIES.c["id", "split", "tenant"]).where(
    TRAJECTORIES.c.id.in_(bindparam("values", expanding=True))
)


DELETED_STUDENT = "deleted-student"
"""Kind of the documents that say which students' weights were deleted, by whom and why (`tutelage.versions`)."""


class Record(Forgetting):
    """What happened in one workspace, as the nouns of `tutelage.types`."""

    # -- trajectories ---------------------------------------------------------------------------

    def add_trajectory(self, trajectory: Trajectory, *, key: str, cycle: int, arm: str) -> bool:
        """Keep a trajectory under `key`, its place in the run; False, and nothing written, if `key` is taken.

        It becomes the tenant's whom the record was opened for.

        Raises:
            RecordError: it was played here, and the runs here are another tenant's.
        """
        with self.transaction() as connection:
            if trajectory.origin == OWN:
                self.claim()
            if self.has_key(key):
                return False
            if self.tenant is not None:
                trajectory = trajectory.model_copy(update={"tenant": self.tenant})
            connection.execute(
                insert(TRAJECTORIES).values(
                    id=trajectory.id,
                    key=key,
                    cycle=cycle,
                    arm=arm,
                    environment=trajectory.task.environment,
                    family=trajectory.task.family,
                    seed=trajectory.task.seed,
                    split=trajectory.task.split,
                    policy=trajectory.policy,
                    memory=trajectory.memory,
                    success=trajectory.success,
                    reward=trajectory.reward,
                    ending=trajectory.ending,
                    steps=len(trajectory.steps),
                    created=trajectory.created,
                    body=trajectory.model_dump_json(),
                    tenant=trajectory.tenant,
                    origin=trajectory.origin,
                )
            )
            if trajectory.shown:
                uses = [{"experience": item.id, "version": item.version} for item in trajectory.shown]
                connection.execute(insert(USES), [{"trajectory": trajectory.id, **use} for use in uses])
            return True

    def claim(self) -> None:
        """See that the runs of this workspace are the tenant's whom the record was opened for, or nobody's yet.

        Cycles, students and places of episodes are one set per workspace, so all its runs are one tenant's.

        Raises:
            RecordError: they are another tenant's.
        """
        whose = self.runs_of() if self.tenant is not None else None
        if whose not in (None, self.tenant):
            raise RecordError(
                f"the runs in {self.name} are of tenant {whose!r}; those of {self.tenant!r} need a workspace of their "
                "own (--set workspace=DIR)"
            )

    def runs_of(self) -> str | None:
        """The tenant of the episodes that were played here; None while there are none."""
        played = select(TRAJECTORIES.c.tenant).where(TRAJECTORIES.c.origin == OWN).order_by(TRAJECTORIES.c.n).limit(1)
        rows = self._rows(played)
        return str(rows[0].tenant) if rows else None

    def has_key(self, key: str) -> bool:
        return bool(self._rows(select(TRAJECTORIES.c.n).where(TRAJECTORIES.c.key == key)))

    def has_trajectory(self, trajectory_id: str) -> bool:
        return bool(self._rows(select(TRAJECTORIES.c.n).where(TRAJECTORIES.c.id == trajectory_id)))

    def trajectory_places(self, trajectory_ids: Sequence[str]) -> dict[str, tuple[Split, str]]:
        """Split and tenant of each of these trajectories that is there, by id."""
        found = {}
        for part in batches(trajectory_ids):
            for row in self._rows(_PLACES, values=part):
                found[row.id] = (Split(row.split), row.tenant)
        return found

    def trajectory_by_key(self, key: str) -> Trajectory | None:
        rows = self._rows(select(TRAJECTORIES.c.body).where(TRAJECTORIES.c.key == key))
        return Trajectory.model_validate_json(rows[0].body) if rows else None

    def trajectory(self, trajectory_id: str) -> Trajectory:
        """Raises RecordError if there is none."""
        rows = self._rows(select(TRAJECTORIES.c.body).where(TRAJECTORIES.c.id == trajectory_id))
        return Trajectory.model_validate_json(self._one(rows, "trajectory", trajectory_id).body)

    def trajectories(
        self,
        *,
        cycle: int | None = None,
        arm: str | None = None,
        environment: str | None = None,
        family: str | None = None,
        split: Split | None = None,
        success: bool | None = None,
        policy: str | None = None,
        tenant: str | None = None,
        limit: int | None = None,
    ) -> list[Trajectory]:
        """In order of insertion; `tenant` None asks for those of whom the record was opened for."""
        wanted = where(
            TRAJECTORIES,
            cycle=cycle,
            arm=arm,
            environment=environment,
            family=family,
            split=split,
            success=success,
            policy=policy,
            tenant=tenant or self.tenant,
        )
        query = select(TRAJECTORIES.c.body).where(*wanted).order_by(TRAJECTORIES.c.n).limit(limit)
        return [Trajectory.model_validate_json(row.body) for row in self._rows(query)]

    def served(
        self, *, caller: str | None = None, before: datetime | None = None, limit: int | None = None
    ) -> list[Trajectory]:
        """Served conversations that were judged, of all tenants, in order of insertion.

        Args:
            caller: only those that came with the key of this name.
            before: only those whose last turn is older.
            limit: the newest ones.
        """
        wanted = where(TRAJECTORIES, arm=SERVED, origin=None if caller is None else f"{LIVE}:{caller}")
        if before is not None:
            wanted.append(TRAJECTORIES.c.created < before)
        newest = select(TRAJECTORIES.c.body).where(*wanted).order_by(TRAJECTORIES.c.n.desc()).limit(limit)
        return [Trajectory.model_validate_json(row.body) for row in reversed(self._rows(newest))]

    def names_offered(self, environment: str, tenant: str, *, limit: int = 500) -> frozenset[str]:
        """Names of the tools, and of their arguments, in the listings of the newest episodes played here."""
        mine = where(TRAJECTORIES, environment=environment, tenant=tenant, origin=OWN)
        query = select(TRAJECTORIES.c.body).where(*mine).order_by(TRAJECTORIES.c.n.desc()).limit(limit)
        listings = (json.loads(row.body).get("tools", []) for row in self._rows(query))
        return names([Tool.model_validate(tool) for listing in listings for tool in listing])

    # -- verdicts -------------------------------------------------------------------------------

    def add_verdict(self, verdict: Verdict) -> bool:
        """False, and nothing written, if this judge has judged this trajectory.

        Raises:
            RecordError: there is no such trajectory.
        """
        with self.transaction() as connection:
            same = where(VERDICTS, trajectory=verdict.trajectory, judge=verdict.judge)
            if self._rows(select(VERDICTS.c.n).where(*same)):
                return False
            if not self.has_trajectory(verdict.trajectory):
                raise RecordError(f"{self.name} has no trajectory {verdict.trajectory!r} to judge")
            connection.execute(
                insert(VERDICTS).values(
                    trajectory=verdict.trajectory,
                    judge=verdict.judge,
                    successful=verdict.successful,
                    body=verdict.model_dump_json(),
                )
            )
            return True

    def verdict(self, trajectory_id: str) -> Verdict | None:
        """The newest verdict on a trajectory."""
        mine = VERDICTS.c.trajectory == trajectory_id
        rows = self._rows(select(VERDICTS.c.body).where(mine).order_by(VERDICTS.c.n.desc()).limit(1))
        return Verdict.model_validate_json(rows[0].body) if rows else None

    def verdicts(self) -> list[Verdict]:
        rows = self._rows(select(VERDICTS.c.body).order_by(VERDICTS.c.n))
        return [Verdict.model_validate_json(row.body) for row in rows]

    # -- students -------------------------------------------------------------------------------

    def add_student(self, student: Student) -> bool:
        """False if exactly this student is there already.

        Raises:
            RecordError: its id or number is taken by another; students never change.
        """
        with self.transaction() as connection:
            taken = (STUDENTS.c.id == student.id) | (STUDENTS.c.number == student.number)
            rows = self._rows(select(STUDENTS.c.body).where(taken))
            if [Student.model_validate_json(row.body) for row in rows] == [student]:
                return False
            if rows:
                raise RecordError(f"{student.label} ({student.id}) exists and differs; students never change")
            connection.execute(
                insert(STUDENTS).values(
                    id=student.id, number=student.number, label=student.label, body=student.model_dump_json()
                )
            )
            return True

    def student(self, id_or_label: str) -> Student:
        """Raises RecordError if there is none."""
        mine = (STUDENTS.c.id == id_or_label) | (STUDENTS.c.label == id_or_label)
        rows = self._rows(select(STUDENTS.c.body).where(mine))
        return Student.model_validate_json(self._one(rows, "student", id_or_label).body)

    def students(self) -> list[Student]:
        """By number."""
        rows = self._rows(select(STUDENTS.c.body).order_by(STUDENTS.c.number))
        return [Student.model_validate_json(row.body) for row in rows]

    def promote(self, student_id: str, *, reason: str, evidence: dict[str, Any]) -> bool:
        """Append a promotion; False if the last one says exactly this.

        Raises:
            RecordError: there is no such student, or it was deleted.
        """
        with self.transaction() as connection:
            student = self.student(student_id)
            if (stone := self.get(DELETED_STUDENT, student_id)) is not None:
                raise RecordError(f"{student.label} was deleted by {stone['by']} ({stone['reason']})")
            entry = {"student": student_id, "reason": reason, "evidence": json.loads(json.dumps(evidence))}
            last = self.promotions()[-1:]
            if last and {name: last[0][name] for name in entry} == entry:
                return False
            values = {**entry, "evidence": json.dumps(evidence), "created": now()}
            connection.execute(insert(PROMOTIONS).values(values))
            return True

    def promoted(self) -> Student | None:
        """The student that was promoted last."""
        rows = self._rows(select(PROMOTIONS.c.student).order_by(PROMOTIONS.c.n.desc()).limit(1))
        return self.student(rows[0].student) if rows else None

    def promotions(self) -> list[dict[str, Any]]:
        """``student``, ``reason``, ``evidence`` and ``created`` of each, oldest first."""
        query = select(*PROMOTIONS.c["student", "reason", "evidence", "created"]).order_by(PROMOTIONS.c.n)
        return [
            {
                **row._mapping,
                "evidence": json.loads(row.evidence),
                "created": row.created.replace(tzinfo=UTC),  # SQLite drops the zone
            }
            for row in self._rows(query)
        ]

    # -- numbers and documents ------------------------------------------------------------------

    def add_metrics(self, run: str, step: int, values: dict[str, float]) -> None:
        """Keep the values of one step; a name that this step of the run has already stays as it is."""
        with self.transaction() as connection:
            known = {row.name for row in self._rows(select(METRICS.c.name).where(*where(METRICS, run=run, step=step)))}
            fresh = [
                {"run": run, "step": step, "name": name, "value": None if value != value else float(value)}
                for name, value in values.items()
                if name not in known
            ]
            if fresh:
                connection.execute(insert(METRICS), fresh)

    def metrics(self, run: str | None = None) -> list[dict[str, Any]]:
        """``run``, ``step``, ``name`` and ``value`` of each, in order of insertion."""
        query = select(*METRICS.c["run", "step", "name", "value"]).where(*where(METRICS, run=run)).order_by(METRICS.c.n)
        rows = [dict(row._mapping) for row in self._rows(query)]
        return [{**row, "value": float("nan")} if row["value"] is None else row for row in rows]

    def put(self, kind: str, key: str, body: dict[str, Any]) -> bool:
        """Keep a small JSON document; a change appends a version, the same again writes nothing (False)."""
        text = json.dumps(body, sort_keys=True)
        with self.transaction() as connection:
            last = self._rows(_newest_document(kind, key))
            if last and last[0].body == text:
                return False
            version = last[0].version + 1 if last else 1
            connection.execute(insert(DOCUMENTS).values(kind=kind, key=key, version=version, created=now(), body=text))
            return True

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The newest version of a document."""
        rows = self._rows(_newest_document(kind, key))
        return json.loads(rows[0].body) if rows else None

    def items(self, kind: str) -> dict[str, dict[str, Any]]:
        """Newest version of each document of a kind by key, in the order in which the keys were first put."""
        query = select(*DOCUMENTS.c["key", "body"]).where(DOCUMENTS.c.kind == kind).order_by(DOCUMENTS.c.n)
        return {row.key: json.loads(row.body) for row in self._rows(query)}

    def fingerprint(self, *, without: Collection[str] = ()) -> dict[str, list[dict[str, Any]]]:
        """Content of all tables but times, with ids replaced by the order in which they first appear.

        Two runs that did the same have equal fingerprints. `without` names kinds of documents to leave out.
        """
        tables = {
            name: [dict(row._mapping) for row in self._rows(select(table).order_by(table.primary_key.columns[0]))]
            for name, table in METADATA.tables.items()
        }
        tables["documents"] = [row for row in tables["documents"] if row["kind"] not in without]
        return fingerprint(tables)


def _newest_document(kind: str, key: str) -> Select[Any]:
    mine = where(DOCUMENTS, kind=kind, key=key)
    return select(*DOCUMENTS.c["version", "body"]).where(*mine).order_by(DOCUMENTS.c.version.desc()).limit(1)

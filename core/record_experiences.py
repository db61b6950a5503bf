"""The experiences of a record: every version, what was forgotten, and light reads for whoever needs no content."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import BindParameter, Connection, Row, Select, and_, bindparam, case, distinct, func, insert, select

from tutelage.database import Database, where
from tutelage.errors import RecordError
from tutelage.experience import Experience, Kind, Status, identity
from tutelage.record_tables import EXPERIENCE_SOURCES, EXPERIENCES, TOMBSTONES, TRAJECTORIES, USES
from tutelage.types import BROKEN, Split

T = TypeVar("T")
_BATCH = 500

# Statements that are needed many times a second; making one takes longer than running it.
_LATER = EXPERIENCES.alias()
_IS_NEWEST = ~(
    select(_LATER.c.n).where(_LATER.c.id == EXPERIENCES.c.id, _LATER.c.version > EXPERIENCES.c.version).exists()
)
_VALUES: BindParameter[Any] = bindparam("values", expanding=True)
_WITH_ID, _SAYING = (
    select(*EXPERIENCES.c["n", "tenant", "body"]).where(column.in_(_VALUES), _IS_NEWEST)
    for column in (EXPERIENCES.c.id, EXPERIENCES.c.identity)
)
_AT = select(EXPERIENCES.c.n, EXPERIENCES.c.body).where(EXPERIENCES.c.n.in_(_VALUES))
_TAKEN = tuple(select(table.c.id).where(table.c.id.in_(_VALUES)) for table in (EXPERIENCES, TOMBSTONES))
_NEWEST = select(
    select(func.coalesce(func.max(EXPERIENCES.c.n), 0)).scalar_subquery(),
    select(func.coalesce(func.max(TOMBSTONES.c.n), 0)).scalar_subquery(),
)


class ExperienceRow(NamedTuple):
    """The newest version of an experience without its content."""

    n: int
    """Number of its row; grows with every version that is saved, by whichever process, and is never used again."""
    id: str
    version: int
    kind: Kind
    environment: str
    family: str
    status: Status
    tenant: str
    trust: float
    identity: str
    created: datetime
    tasks: frozenset[str]
    """Ids of the tasks that it was drawn from."""


class Newest(NamedTuple):
    """How far the record is; one that is equal to an earlier one means that nothing was saved or forgotten since."""

    experience: int
    """Number of the newest row of an experience; 0 while there is none."""
    tombstone: int
    """Number of the newest tombstone; 0 while there is none."""


class Uses(NamedTuple):
    """In how many episodes with memory on an experience stood in the first message."""

    shown: int
    sound: int
    """Of those, the ones that did not break."""
    solved: int
    """Of the sound ones, those that the environment accepted."""


@dataclass(frozen=True)
class Tombstone:
    """What was forgotten: that it was there and what was made from it, and none of its content."""

    n: int
    """Grows with each; never used again."""
    kind: Literal["experience", "trajectory"]
    id: str
    tenant: str
    reason: str
    by: str
    derived: dict[str, list[str]]
    """Ids of what was made from it or showed it: ``students``, ``experiences`` and ``trajectories``."""
    created: datetime


class Experiences(Database):
    """A change makes a new version; versions are only ever added, unless the whole experience is forgotten."""

    def save_experience(self, experience: Experience) -> bool:
        """Add one version; False if exactly this is there already.

        Raises:
            RecordError: this version exists with other content, versions would be skipped, or it was forgotten.
        """
        with self.transaction() as connection:
            versions = {version.version: version for version in self.history(experience.id)}
            if experience.version in versions:
                if versions[experience.version] == experience:
                    return False
                raise RecordError(
                    f"experience {experience.id} version {experience.version} exists and differs; add a new version"
                )
            known = versions.get(1) or self.tombstone(experience.id)
            if known is not None and known.tenant != experience.tenant:
                raise RecordError(f"the id {experience.id} is taken")
            if not versions:
                self._refuse_forgotten(experience.id)
            if experience.version != len(versions) + 1:
                raise RecordError(
                    f"experience {experience.id} has {len(versions)} versions; the next is "
                    f"{len(versions) + 1}, not {experience.version}"
                )
            _insert(connection, [experience])
            return True

    def save_experiences(self, experiences: Sequence[Experience]) -> None:
        """`save_experience` for each in turn, all or none; new ones, whose ids nobody has, in one go.

        Raises:
            RecordError: as `save_experience`.
        """
        with self.transaction() as connection:
            known: set[str] = set()
            for part in batches([item.id for item in experiences]):
                known |= {row.id for query in _TAKEN for row in self._rows(query, values=part)}
            fresh: list[Experience] = []
            for item in experiences:
                if item.version == 1 and item.id not in known:
                    fresh.append(item)
                    known.add(item.id)
                else:
                    _insert(connection, fresh)
                    fresh = []
                    self.save_experience(item)
            _insert(connection, fresh)

    def experience(self, experience_id: str, version: int | None = None) -> Experience:
        """One version, the newest by default. Raises RecordError if there is none, or it was forgotten."""
        wanted = where(EXPERIENCES, id=experience_id, version=version)
        rows = self._rows(select(EXPERIENCES.c.body).where(*wanted).order_by(EXPERIENCES.c.version.desc()).limit(1))
        if not rows:
            self._refuse_forgotten(experience_id)
        what = "experience" if version is None else f"version {version} of experience"
        return Experience.model_validate_json(self._one(rows, what, experience_id).body)

    def experiences(
        self,
        *,
        kind: Kind | None = None,
        environment: str | None = None,
        family: str | None = None,
        status: Status | str | None = None,
        source: str | None = None,
        tenant: str | None = None,
    ) -> list[Experience]:
        """Newest versions, in the order in which the experiences were first added.

        `source` asks for those drawn from this trajectory, `tenant` None for those of whom the record was opened for.
        """
        newest = (
            select(
                EXPERIENCES.c.id,
                func.max(EXPERIENCES.c.version).label("version"),
                func.min(EXPERIENCES.c.n).label("first"),
            )
            .group_by(EXPERIENCES.c.id)
            .subquery()
        )
        whose = tenant or self.tenant
        wanted = where(EXPERIENCES, kind=kind, environment=environment, family=family, status=status, tenant=whose)
        if source is not None:
            drawn = select(EXPERIENCE_SOURCES.c.experience_id).where(EXPERIENCE_SOURCES.c.trajectory == source)
            wanted.append(EXPERIENCES.c.id.in_(drawn))
        query = (
            select(EXPERIENCES.c.body)
            .join(newest, (EXPERIENCES.c.id == newest.c.id) & (EXPERIENCES.c.version == newest.c.version))
            .where(*wanted)
            .order_by(newest.c.first)
        )
        return [Experience.model_validate_json(row.body) for row in self._rows(query)]

    def history(self, experience_id: str) -> list[Experience]:
        """All versions, oldest first; empty if there is no such experience."""
        mine = EXPERIENCES.c.id == experience_id
        rows = self._rows(select(EXPERIENCES.c.body).where(mine).order_by(EXPERIENCES.c.version))
        return [Experience.model_validate_json(row.body) for row in rows]

    def newest_of(
        self, tenant: str, *, ids: Sequence[str] = (), identities: Sequence[str] = ()
    ) -> tuple[list[Experience], list[Experience]]:
        """Newest versions of a tenant's experiences with these ids, and of those that say just this now, oldest first.

        See `identity`.
        """
        found: tuple[list[Experience], list[Experience]] = ([], [])
        for result, query, values in zip(found, (_WITH_ID, _SAYING), (ids, identities), strict=True):
            for part in batches(values):
                # A condition on the tenant would have SQLite walk through all that the tenant has.
                rows = sorted((row for row in self._rows(query, values=part) if row.tenant == tenant), key=_number)
                result += [Experience.model_validate_json(row.body) for row in rows]
        return found

    def experiences_at(self, numbers: Sequence[int]) -> dict[int, Experience]:
        """The versions in these rows, by number; ones that were forgotten are missing."""
        found = {}
        for part in batches(numbers):
            rows = self._rows(_AT, values=part)
            found.update({row.n: Experience.model_validate_json(row.body) for row in rows})
        return found

    # -- without their content ------------------------------------------------------------------

    def newest(self) -> Newest:
        """How far the record is; costs microseconds, so that it can be asked before every read."""
        return Newest._make(self._rows(_NEWEST)[0])

    def experience_rows(self, *, after: int = 0, tenant: str | None = None) -> list[ExperienceRow]:
        """The newest version of every experience that has a row numbered above `after`, by number of the row."""
        light, drawn = _light_rows(tenant is not None)
        values = {"after": after} | ({} if tenant is None else {"owner": tenant})
        with self.reading():
            rows = self._rows(light, **values)
            tasks: dict[int, set[str]] = defaultdict(set)
            for row in self._rows(drawn, **values):
                tasks[row.n].add(row.task)
        return [_light(row, frozenset(tasks[row[0]])) for row in rows]

    def uses(
        self, experience: str | None = None, *, tenant: str | None = None, split: Split | None = None
    ) -> dict[str, Uses]:
        """How often each experience was really shown with memory on, and how those episodes ended, by id.

        One that was never shown is missing.

        Args:
            split: count only episodes of its tasks. What decides anything may count those of train tasks only.
        """
        sound = TRAJECTORIES.c.ending.not_in(BROKEN)
        solved = and_(sound, TRAJECTORIES.c.success)
        episodes = [
            func.count(distinct(case((test, TRAJECTORIES.c.id)))) for test in (TRAJECTORIES.c.memory, sound, solved)
        ]
        query = (
            select(USES.c.experience, *episodes)
            .join(TRAJECTORIES, TRAJECTORIES.c.id == USES.c.trajectory)
            .where(TRAJECTORIES.c.memory, *where(USES, experience=experience))
            .where(*where(TRAJECTORIES, tenant=tenant, split=split))
            .group_by(USES.c.experience)
        )
        return {row[0]: Uses._make(row[1:]) for row in self._rows(query)}

    def tombstones(self, *, after: int = 0, tenant: str | None = None) -> list[Tombstone]:
        """What was forgotten, oldest first; only tombstones numbered above `after`."""
        query = select(TOMBSTONES).where(TOMBSTONES.c.n > after, *where(TOMBSTONES, tenant=tenant))
        return [_tombstone(row) for row in self._rows(query.order_by(TOMBSTONES.c.n))]

    def tombstone(self, forgotten_id: str) -> Tombstone | None:
        """The tombstone of an experience or a trajectory, if it was forgotten."""
        rows = self._rows(select(TOMBSTONES).where(TOMBSTONES.c.id == forgotten_id))
        return _tombstone(rows[0]) if rows else None

    def _refuse_forgotten(self, forgotten_id: str) -> None:
        stone = self.tombstone(forgotten_id)
        if stone is not None:
            raise RecordError(f"{stone.kind} {stone.id} was forgotten on {stone.created:%Y-%m-%d}: {stone.reason}")


@cache
def _light_rows(of_one_tenant: bool) -> tuple[Select[Any], Select[Any]]:
    """The light rows after a number, and the tasks of each."""
    wanted = and_(EXPERIENCES.c.n > bindparam("after"), _IS_NEWEST)
    if of_one_tenant:
        wanted = and_(EXPERIENCES.c.tenant == bindparam("owner"), wanted)
    columns = EXPERIENCES.c[*(name for name in ExperienceRow._fields if name != "tasks")]
    source = EXPERIENCE_SOURCES.c
    mine = and_(source.experience_id == EXPERIENCES.c.id, source.version == EXPERIENCES.c.version)
    drawn = select(EXPERIENCES.c.n, source.task).distinct().select_from(EXPERIENCES.join(EXPERIENCE_SOURCES, mine))
    return select(*columns).where(wanted).order_by(EXPERIENCES.c.n), drawn.where(wanted, source.task != "")


def _number(row: Row[Any]) -> int:
    return int(row.n)


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """In parts that fit into one statement."""
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _insert(connection: Connection, experiences: Sequence[Experience]) -> None:
    if not experiences:
        return
    values = [
        {
            "id": item.id,
            "version": item.version,
            "kind": item.kind,
            "environment": item.environment,
            "family": item.family,
            "status": item.status,
            "created": item.created,
            "body": item.model_dump_json(),
            "tenant": item.tenant,
            "trust": item.trust,
            "identity": identity(item),
        }
        for item in experiences
    ]
    sources = [
        {
            "experience_id": item.id,
            "version": item.version,
            "trajectory": source.trajectory,
            "task": source.task,
            "step": step,
        }
        for item in experiences
        for source in item.sources
        for step in source.steps or (None,)
    ]
    connection.execute(insert(EXPERIENCES), values)
    connection.execute(insert(EXPERIENCE_SOURCES), sources)


def _light(row: Row[Any], tasks: frozenset[str]) -> ExperienceRow:
    """By position: a start reads a hundred thousand of these."""
    n, key, version, kind, environment, family, status, tenant, trust, digest, created = tuple(row)
    at = created.replace(tzinfo=UTC)
    return ExperienceRow(n, key, version, kind, environment, family, Status(status), tenant, trust, digest, at, tasks)


def _tombstone(row: Row[Any]) -> Tombstone:
    derived = {"derived": json.loads(row.derived), "created": row.created.replace(tzinfo=UTC)}
    return Tombstone(**{**row._mapping, **derived})

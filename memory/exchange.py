"""Experiences in and out as files, with all their versions, and what an import would do before it does it.

An import is compared with memory the way versions of a document are: by what both sides have in common. What was
imported once is remembered by digests of what the file said, since admission may have kept it otherwise.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Status, identity
from tutelage.memory.admission import through
from tutelage.memory.compound import compound
from tutelage.memory.files import History
from tutelage.memory.store import MemoryStore
from tutelage.memory.trust import of_sources
from tutelage.types import Split

DOCUMENTS = "import"
"""Kind of the record's documents that say what an import's file held."""
LOCAL = frozenset({"id", "version", "tenant", "trust", "status", "absorbed_by", "merged", "change", "created"})
"""Fields that say what became of an experience in one memory, not what it says and what that rests on."""

WORDS = ("goal", "content", "core", "verbatim", "scopes", "touched")


class Finding(StrEnum):
    """What an import finds about one experience of its file."""

    NEW = "new"
    SAME = "same"
    NEWER = "newer"
    """The file has further versions."""
    OLDER = "older"
    """Memory has further versions."""
    CONFLICTING = "conflicting"
    """Both went on from different words."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Entry:
    """One experience of a file, and what its import does."""

    finding: Finding
    theirs: Experience
    """The newest version in the file."""
    id: str
    """Of the experience here that it is compared with, or becomes."""
    reason: str = ""
    added: tuple[Experience, ...] = ()
    """The versions that come in, as they are kept."""
    digests: tuple[str, ...] = ()

    @property
    def status(self) -> Status | None:
        """What it is here afterwards, if anything comes in."""
        return self.added[-1].status if self.added else None


@dataclass(frozen=True)
class Terms:
    """How a file is taken in."""

    name: str
    """Whom or what it comes from; what it is trusted for is configured under ``import:NAME``."""
    own: bool = False
    """It is this user's own export: origins, statuses and reasons are kept as the file has them."""
    take: bool = False
    """Of conflicting ones the file's newest version becomes the next one here; otherwise nothing is done."""

    @property
    def origin(self) -> str:
        return f"import:{self.name}"


class Importer:
    """Compares histories with one memory and takes them in, all in one transaction."""

    def __init__(self, memory: MemoryStore, terms: Terms) -> None:
        self._memory = memory
        self._record = memory.record
        self._terms = terms
        self._enter = through(memory.record, memory.tenant, memory.trust)

    def compare(self, histories: Sequence[History]) -> list[Entry]:
        """What an import would do, in the order of the file; nothing is written."""
        rows = self._record.experience_rows(tenant=self._memory.tenant)
        here = {row.id for row in rows}
        ids = {history[-1].id: self._id(history[-1].id, here) for history in histories}
        bases = self._record.items(DOCUMENTS)
        # An own export may hold two that say the same by now; each comes back as what it was.
        said = {row.identity: row.id for row in rows if not (self._terms.own and row.id in ids.values())}
        entries = []
        for theirs in histories:
            place = ids[theirs[-1].id]
            history = tuple(self._stamped(version, ids) for version in theirs)
            entry = self._against(history, place, bases) if place in here else self._compared(history, place, said)
            entry = self._admitted(replace(entry, theirs=theirs[-1]))
            if entry.finding is Finding.NEW and not self._terms.own:
                said[identity(history[-1])] = place
            entries.append(entry)
        return entries

    def take(self, histories: Sequence[History]) -> list[Entry]:
        """Take in what is new, newer and, if so asked, conflicting; an experience comes with all its versions or not
        at all, and after an error nothing has come in.

        Raises:
            RecordError: the record refuses.
        """
        with self._record.transaction():
            entries = self.compare(histories)
            self._record.save_experiences([version for entry in entries for version in entry.added])
            for entry in entries:
                if entry.added:
                    body = {"from": self._terms.name, "digests": list(entry.digests), "at": entry.added[-1].version}
                    self._record.put(DOCUMENTS, self._key(entry.id), body)
        return entries

    # -- inside ---------------------------------------------------------------------------------

    def _compared(self, history: History, place: str, said: dict[str, str]) -> Entry:
        """Against a memory that has no such id."""
        stone = self._record.tombstone(place)
        if stone is not None:
            reason = f"was forgotten on {stone.created:%Y-%m-%d}: {stone.reason}"
            return Entry(Finding.REFUSED, history[-1], place, reason)
        known = said.get(identity(history[-1]))
        if known is not None:
            return Entry(Finding.SAME, history[-1], known, "says exactly what is here already")
        count = f"{len(history)} version{'s' * (len(history) > 1)}"
        return Entry(Finding.NEW, history[-1], place, count, history, tuple(map(digest, history)))

    def _against(self, history: History, place: str, bases: Mapping[str, dict[str, Any]]) -> Entry:
        """Against the versions of the same id, from what was imported of it before."""
        mine = self._record.history(place)
        base = bases.get(self._key(place), {"digests": [], "at": 0})
        ours = [*base["digests"], *map(digest, mine[base["at"] :])]
        file = [digest(version) for version in history]
        common = next((n for n, pair in enumerate(zip(ours, file, strict=False)) if pair[0] != pair[1]), None)
        if common is None:
            ahead = len(file) - len(ours)
            if ahead == 0:
                return Entry(Finding.SAME, history[-1], place)
            count = f"{abs(ahead)} further version{'s' * (abs(ahead) > 1)}"
            if ahead < 0:
                return Entry(Finding.OLDER, history[-1], place, f"memory has {count}")
            fresh = _numbered(history[len(ours) :], len(mine) + 1)
            return Entry(Finding.NEWER, history[-1], place, count, fresh, tuple(file))
        reason = f"from version {common + 1} on; now {differences(mine[-1], history[-1])} differ"
        if not self._terms.take:
            return Entry(Finding.CONFLICTING, history[-1], place, reason)
        change = Change(by=self._terms.origin, reason="the file's words taken over the ones here")
        newest = history[-1].model_copy(update={"version": len(mine) + 1, "change": change})
        return Entry(Finding.CONFLICTING, history[-1], place, f"{reason}; the file's is taken", (newest,), tuple(file))

    def _admitted(self, entry: Entry) -> Entry:
        """What comes in as admission leaves it, or why nothing does."""
        if not entry.added:
            return entry
        try:
            self._refuse_held_out(entry.added)
            *before, last = [self._passed(version) for version in entry.added]
            added = (*(versions[0] for versions in before), *last)
            if not self._terms.own:
                added = tuple(self._memory.gate.passed(added))
        except RecordError as error:
            return replace(entry, finding=Finding.REFUSED, reason=str(error), added=(), digests=())
        if entry.finding is Finding.NEWER and not self._terms.take and self._outweighed(entry.id, added):
            reason = f"{entry.reason}, not trusted enough to take the place of what is in use"
            return replace(entry, finding=Finding.CONFLICTING, reason=reason, added=(), digests=())
        return replace(entry, added=added)

    def _outweighed(self, place: str, added: Sequence[Experience]) -> bool:
        """Whether words that are not trusted would take trusted ones out of use, or put themselves in their place."""
        ours = self._memory.get(place)
        if self._terms.own or ours.status in (Status.RETIRED, Status.QUARANTINED):
            return False
        doubted = of_sources(added[-1], self._memory.trust) < self._memory.trust.threshold
        doubted |= added[-1].status is Status.QUARANTINED
        return doubted and (ours.status is not added[-1].status or ours.trust > added[-1].trust)

    def _passed(self, version: Experience) -> tuple[Experience, ...]:
        """What admission makes of a version; of one's own export only its texts are made inert."""
        if not self._terms.own:
            return self._enter(compound(version, None))
        kept = self._enter(version)[0]
        return (version.model_copy(update={name: getattr(kept, name) for name in WORDS}),)

    def _refuse_held_out(self, versions: Sequence[Experience]) -> None:
        for source in {source for version in versions for source in version.sources}:
            if self._record.has_trajectory(source.trajectory):
                split = self._record.trajectory(source.trajectory).task.split
                if split is not Split.TRAIN:
                    raise RecordError(f"{source.task} is a {split.value} task; only train tasks may feed memory")

    def _stamped(self, version: Experience, ids: dict[str, str]) -> Experience:
        """As this memory may keep it: whose it is, where it comes from, and nothing claimed that was not seen here."""
        fields: dict[str, Any] = {
            "id": ids[version.id],
            "tenant": self._memory.tenant,
            "merged": tuple(ids.get(other, other) for other in version.merged),
        }
        if not self._terms.own:  # nor may a stranger's stand for one of ours, or show numbers of evidence
            said = ": ".join(part for part in (version.change.by, version.change.reason) if part)
            fields["sources"] = tuple(
                source.model_copy(update={"origin": self._terms.origin}) for source in version.sources
            )
            fields |= {"change": Change(by=self._terms.origin, reason=said), "merged": (), "absorbed_by": ""}
            if version.status in (Status.ACTIVE, Status.ABSORBED):
                fields["status"] = Status.CANDIDATE
        return version.model_copy(update=fields)

    def _id(self, theirs: str, here: Collection[str]) -> str:
        """The id here: the same, or one of its own where another tenant has it."""
        if theirs in here or not self._record.history(theirs):
            return theirs
        return f"exp_{sha256(f'{self._memory.tenant}/{theirs}'.encode()).hexdigest()[:16]}"

    def _key(self, place: str) -> str:
        return f"{self._memory.tenant}/{place}"


def digest(version: Experience) -> str:
    """Of what a version says and what that rests on, whatever became of it in one memory or another."""
    data = version.model_dump(mode="json", exclude=set(LOCAL))
    for source in data["sources"]:
        del source["origin"]
    return sha256(repr(data).encode()).hexdigest()


def differences(ours: Experience, theirs: Experience) -> str:
    """Names of the fields in which two versions differ."""
    mine, other = ours.model_dump(exclude=set(LOCAL)), theirs.model_dump(exclude=set(LOCAL))
    return ", ".join(name for name in mine if mine[name] != other[name]) or "nothing"


def _numbered(versions: Iterable[Experience], first: int) -> History:
    return tuple(version.model_copy(update={"version": first + n}) for n, version in enumerate(versions))

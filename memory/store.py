"""Experiences to add, search and recall. The record is the truth; what is searched is rebuilt from it."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tutelage.config import MemoryConfig, TrustConfig
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Change, Experience, Kind, Recall, Recaller, Status, identity
from tutelage.memory.admission import agreed, through
from tutelage.memory.compound import compound
from tutelage.memory.embedder import known_embedder
from tutelage.memory.gate import Gate
from tutelage.memory.query import Hit, Query
from tutelage.memory.search import FAMILY_BOOST, NEAR, Ranked, fused
from tutelage.memory.text import render, shown
from tutelage.memory.undoing import undo_merge, undone
from tutelage.memory.versions import successor
from tutelage.record import Record
from tutelage.record_experiences import Tombstone
from tutelage.types import Split, Step, Task, Trajectory

if TYPE_CHECKING:
    from tutelage.memory.finder import Finder

OBSERVATION_LENGTH = 1000
"""Characters of the first observation that take part in a recall."""
_RULES: tuple[Kind, ...] = ("guardrail",)
_TEXTS: tuple[Kind, ...] = ("skill", "sticker")
_FIXED = frozenset({"id", "version", "tenant", "created"})


class MemoryStore:
    """One tenant's memory in a workspace, for any number of processes and threads at once.

    Each write is a transaction of the record, which has one writer at a time, so that versions never collide. Whoever
    searches first takes over what others have written. What is needed for search alone is opened at the first search.
    """

    def __init__(self, record: Record, folder: Path, config: MemoryConfig, *, tenant: str | None = None) -> None:
        """The index is kept in `folder`, and repaired where it differs from the record.

        Args:
            tenant: whose memory; default: the configured one's. Nobody else's is ever read or written.

        Raises:
            UnknownName: there is no such embedder.
        """
        known_embedder(config.embedder)
        self._record = record
        self._folder = folder
        self._config = config
        self.tenant = tenant or config.tenant
        self.gate = Gate(record, self.tenant, config.trust)
        self._lock = threading.Lock()
        self._opened: Finder | None = None

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    render = staticmethod(render)

    @property
    def trust(self) -> TrustConfig:
        """How far words are trusted here."""
        return self._config.trust

    @property
    def record(self) -> Record:
        """Where all of it is kept; what is read and written in one of its transactions is one."""
        return self._record

    # -- writing --------------------------------------------------------------------------------

    def add(self, experience: Experience) -> Experience:
        """Keep an experience, merged into the one that says exactly the same if there is one.

        Returns:
            What memory now holds, which may have another id and version; idempotent.

        Raises:
            RecordError: it was drawn from a task that is held out, it is another tenant's, its version is taken, or it
                was forgotten.
        """
        return self.add_many([experience])[0]

    def add_many(self, experiences: Iterable[Experience]) -> list[Experience]:
        """`add` each, all in one transaction: all are kept or, after an error, none.

        Raises:
            RecordError: as `add`.
        """
        items = list(experiences)
        with self._record.transaction():
            places = self._admit(items)
            enter = through(self._record, self.tenant, self.trust)
            admitted = [enter(self._compound(item, places)) for item in items]
            ids, identities = [item.id for item in items], [identity(item) for item in chain(*admitted)]
            by_id, same = self._record.newest_of(self.tenant, ids=ids, identities=identities)
            known = {item.id: item for item in by_id}
            says = {identity(item): item.id for item in reversed(same)}  # of several the oldest
            known |= {item.id: item for item in same}
            saved: dict[str, list[Experience]] = {}

            def history(key: str) -> list[Experience]:
                there = self._record.history(key)
                return [*there, *(item for item in saved.get(key, ()) if item.version > len(there))]

            result: list[Experience] = []
            for versions in admitted:
                item = versions[-1]
                alike = (known.get(says.get(identity(version), "")) for version in versions)
                old = known.get(item.id) or next(filter(None, alike), None)
                if old is None or old.id == item.id:
                    kept = self.gate.passed(versions, history)
                    new = kept[-1]
                else:
                    both = agreed(history(old.id), item, self.trust)
                    kept = [] if both == old else self.gate.passed([both], history)
                    new = kept[-1] if kept else old
                if old is None or new.version > old.version:
                    if old is not None and says.get(identity(old)) == old.id:
                        del says[identity(old)]
                    known[new.id] = new
                    says.setdefault(identity(new), new.id)
                saved.setdefault(new.id, []).extend(kept)
                result.append(known[new.id])
            self._record.save_experiences(list(chain(*saved.values())))
        return result

    def change(self, experience_id: str, change: Change, **changes: Any) -> Experience:
        """Make the next version with these fields changed, for the reason given.

        Raises:
            RecordError: this tenant has no such experience, or the changes are not possible.
        """
        if fixed := sorted(_FIXED & changes.keys()):
            raise RecordError(f"experience {experience_id} cannot be changed so: {', '.join(fixed)} is for good")
        with self._record.transaction():
            old = self.get(experience_id)
            return self._saved(successor(old, change, **changes))

    def move(self, experience_id: str, status: Status, change: Change) -> Experience:
        """Give it this status, for the reason given; the same version if it has it, and the trust for it.

        Raises:
            RecordError: this tenant has no such experience.
        """
        with self._record.transaction():
            item = self.get(experience_id)
            there = item.status is status and (status not in IN_USE or self.trusts(item))
            return item if there else self.change(experience_id, change, status=status)

    def undo(self, experience_id: str, *, by: str) -> Experience:
        """Take back the newest change that was not taken back yet, by one more version; a merge on both sides.

        Raises:
            RecordError: this tenant has no such experience, or nothing is left to undo.
        """
        with self._record.transaction():
            parted = undo_merge(self, self._record, experience_id, by=by)
            return parted or self._saved(undone(self.history(experience_id), by))

    def forget(self, experience_id: str, *, reason: str, by: str) -> Tombstone:
        """Erase it, all versions and its text wherever the record quotes it; a tombstone stays.

        Returns:
            The tombstone, which says what was derived from it; the first one if it was forgotten before.

        Raises:
            RecordError: this tenant has no such experience.
        """
        stone = self._record.tombstone(experience_id)
        if stone is None or stone.tenant != self.tenant:
            self.get(experience_id)
            stone = self._record.forget_experience(experience_id, reason, by)
        self.sync()
        return stone

    def sync(self) -> None:
        """Take over what other processes have written to the record; every search does so by itself."""
        self._finder.sync()

    def reindex(self) -> int:
        """Drop the index and build it from the record; returns how many experiences it holds."""
        return self._finder.reindex()

    # -- reading --------------------------------------------------------------------------------

    def get(self, experience_id: str) -> Experience:
        """The newest version. Raises RecordError if this tenant has no such experience, or forgot it."""
        found, _ = self._record.newest_of(self.tenant, ids=[experience_id])
        if found:
            return found[0]
        stone = self._record.tombstone(experience_id)
        if stone is not None and stone.tenant == self.tenant:
            raise RecordError(f"{stone.kind} {stone.id} was forgotten on {stone.created:%Y-%m-%d}: {stone.reason}")
        raise RecordError(f"memory has no experience {experience_id!r}")

    def history(self, experience_id: str) -> list[Experience]:
        """All versions, oldest first. Raises RecordError if this tenant has no such experience."""
        with self._record.reading():
            self.get(experience_id)
            return self._record.history(experience_id)

    def experiences(self, *, kind: Kind | None = None, statuses: Collection[Status] = ()) -> list[Experience]:
        """This tenant's experiences, oldest first; `statuses` empty means all."""
        items = self._record.experiences(kind=kind, tenant=self.tenant)
        return [item for item in items if not statuses or item.status in statuses]

    def guardrails(self, environment: str) -> tuple[Experience, ...]:
        """Those of an environment, of all its families, that are in use and trusted; oldest first."""
        found = self._record.experiences(kind="guardrail", environment=environment, tenant=self.tenant)
        return tuple(item for item in found if item.status in self._in_use and self.trusts(item))

    def trusts(self, experience: Experience) -> bool:
        """Whether agents, and those who may only read, may be shown what this version of one says (`memory.gate`)."""
        return self.gate.trusts(experience)

    def search(self, query: Query) -> list[Hit]:
        """The best by vectors over distilled text and BM25 over verbatim text, best first."""
        self.sync()
        found = self._loaded(self._ranked(query), query.k, trusted=query.trusted)
        hits = (Hit(item, rank.score, rank.vector, rank.keyword, rank.parts) for rank, item in found)
        return list(islice(hits, query.k))

    def recall(self, task: Task, goal: str, observation: str) -> Recall:
        """What fits this situation: the best skills and stickers as text, and the family's guardrails as rules.

        Experiences of other families of the environment may be shown too, so that an unseen family gets
        something. Nothing that was drawn from this very task is returned.
        """
        return self._recalled(task, goal, observation, self._in_use)

    def recaller(
        self, *, absorbed: bool = False, without: Collection[str] = frozenset(), only: str | None = None
    ) -> Recaller:
        """Recall for measuring what experiences do.

        Args:
            absorbed: also show and enforce what a student has absorbed.
            without: ids that are never shown or enforced.
            only: id of the one experience that is shown or enforced, whatever its status if it is trusted, wherever its
                environment is the task's, and nothing else; not for a task that it was drawn from.
        """
        statuses = self._in_use | {Status.ABSORBED} if absorbed else self._in_use
        return _Recaller(self, statuses, frozenset(without), only)

    def _recalled(
        self,
        task: Task,
        goal: str,
        observation: str,
        statuses: Collection[Status],
        without: Collection[str] = (),
        only: str | None = None,
    ) -> Recall:
        if only is not None:
            return self._only(task, only)
        self.sync()
        here = Query("", environment=task.environment, exclude_task=task.id)
        rules = replace(here, family=task.family, kinds=_RULES, statuses=statuses)
        found = self._finder.load(row.id for row in self._finder.rows(rules, without=without))
        best: dict[str, Experience] = {}
        top = self._config.top_k
        if top:
            # What is absorbed keeps its place: were others to take it, absorbing would free no room in the prompt.
            wanted = replace(
                here,
                text=f"{goal}\n{observation[:OBSERVATION_LENGTH]}",
                kinds=_TEXTS,
                statuses={*statuses, Status.ABSORBED},
                prefer_family=task.family,
                k=top,
            )
            for _, item in self._loaded(self._ranked(wanted, without), top, trusted=True):
                best.setdefault(render(item), item)
                if len(best) == top:
                    break
        return Recall(
            shown=tuple(shown(item) for item in best.values() if item.status in statuses),
            guardrails=tuple(filter(self.trusts, found)),
        )

    def _only(self, task: Task, experience_id: str) -> Recall:
        found, _ = self._record.newest_of(self.tenant, ids=[experience_id])
        if not found:  # forgotten in the meantime
            return Recall()
        item = found[0]
        elsewhere = item.environment != task.environment or not self.trusts(item)
        if elsewhere or any(source.task == task.id for source in item.sources):
            return Recall()
        return Recall(guardrails=(item,)) if item.kind == "guardrail" else Recall(shown=(shown(item),))

    def sources(self, experience_id: str) -> list[tuple[Trajectory, Step, int]]:
        """The steps it was drawn from, each with its trajectory and index in it.

        Without those that are not in this record (written by hand, imported, forgotten) or are another tenant's.
        """
        found = []
        for source in self.get(experience_id).sources:
            _, tenant = self._record.trajectory_places([source.trajectory]).get(source.trajectory, (None, None))
            if tenant == self.tenant:
                trajectory = self._record.trajectory(source.trajectory)
                steps = dict(enumerate(trajectory.steps))
                found += [(trajectory, steps[index], index) for index in source.steps or steps if index in steps]
        return found

    def stats(self) -> dict[str, Any]:
        """How many experiences there are, by kind and status, and what they are indexed with."""
        self.sync()
        return self._finder.stats()

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _in_use(self) -> frozenset[Status]:
        return IN_USE if self._config.candidates else frozenset({Status.ACTIVE})

    @property
    def _finder(self) -> "Finder":
        with self._lock:
            if self._opened is None:
                from tutelage.memory.finder import Finder

                self._opened = Finder(self._record, self._folder, self._config, self.tenant)
            return self._opened

    def _saved(self, experience: Experience) -> Experience:
        (kept,) = self.gate.passed([experience])
        self._record.save_experience(kept)
        return kept

    def _admit(self, experiences: Sequence[Experience]) -> dict[str, tuple[Split, str]]:
        """Split and tenant of their sources that are in the record; RecordError unless all may stand in this memory."""
        for item in experiences:
            if item.tenant != self.tenant:
                raise RecordError(f"this is the memory of {self.tenant!r}, not of {item.tenant!r}")
        places = self._record.trajectory_places(
            list({source.trajectory for item in experiences for source in item.sources})
        )
        for item in experiences:
            for source in item.sources:
                split, _ = places.get(source.trajectory, (Split.TRAIN, ""))
                if split is not Split.TRAIN:
                    raise RecordError(f"{source.task} is a {split.value} task; only train tasks may feed memory")
        return places

    def _compound(self, experience: Experience, places: Mapping[str, tuple[Split, str]]) -> Experience:
        """In its compound form, from its first source if that is this tenant's own."""
        first = experience.sources[0].trajectory
        _, tenant = places.get(first, (Split.TRAIN, ""))
        return compound(experience, self._record.trajectory(first) if tenant == self.tenant else None)

    def _ranked(self, query: Query, without: Collection[str] = ()) -> list[Ranked]:
        vectors, keywords = self._finder.candidates(query, without=without)
        family = query.prefer_family
        own = self._finder.of_family(family, vectors) if family else ()
        return fused(
            vectors,
            keywords,
            weight=self._config.vector_weight,
            normalise=self._config.normalise,
            mode=query.mode,
            boosts={"family": dict.fromkeys(own, FAMILY_BOOST)} if family else None,
            near=max(NEAR, query.k),
        )

    def _loaded(self, ranked: Sequence[Ranked], at_once: int, *, trusted: bool) -> Iterator[tuple[Ranked, Experience]]:
        """With their experiences, some at a time, until the caller has enough."""
        for start in range(0, len(ranked), at_once):
            part = {rank.id: rank for rank in ranked[start : start + at_once]}
            for item in self._finder.load(part):
                if not trusted or self.trusts(item):
                    yield part[item.id], item


@dataclass(frozen=True)
class _Recaller:
    store: MemoryStore
    statuses: frozenset[Status]
    without: frozenset[str]
    only: str | None

    def recall(self, task: Task, goal: str, observation: str) -> Recall:
        return self.store._recalled(task, goal, observation, self.statuses, self.without, self.only)

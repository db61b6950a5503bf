"""Experiences to add, search and recall. The record is the truth; what is searched is rebuilt from it."""

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tutelage.config import MemoryConfig
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Change, Experience, Kind, Recall, Recaller, Status, identity
from tutelage.keyword import KeywordIndex, tokens
from tutelage.memory.embedder import embedder
from tutelage.memory.index import VectorIndex
from tutelage.memory.query import Hit, Query
from tutelage.memory.text import distilled, render, verbatim
from tutelage.memory.versions import merged, successor, undone
from tutelage.record import Record
from tutelage.types import Shown, Split, Step, Task, Trajectory

_LOG = logging.getLogger(__name__)

NEAR = 64
"""Candidates that each of the two searches contributes to the fusion."""
FAMILY_BOOST = 0.5
"""Added to the score of experiences of the task's own family; it says more than a similar wording."""
OBSERVATION_LENGTH = 1000
"""Characters of the first observation that take part in a recall."""
ON_TRIAL = "(on trial) "
"""What the text of a candidate begins with where an agent sees it."""


class MemoryStore:
    """Memory of one workspace; one process at a time, any number of its threads."""

    def __init__(self, record: Record, folder: Path, config: MemoryConfig, *, tenant: str | None = None) -> None:
        """Open the index in `folder` and repair it where it differs from the record.

        Args:
            tenant: whose memory; default: the configured one's. Nobody else's is ever read or written.

        Raises:
            MemoryBusy: another process has it open.
            UnknownName, MissingPart: there is no such embedder, or something is not installed.
        """
        self._record = record
        self._config = config
        self.tenant = tenant or config.tenant
        self._embedder = embedder(config.embedder)
        self._lock = threading.RLock()
        self._index = VectorIndex(folder, embedder=self._embedder.name, dimension=self._embedder.dimension)
        self._load()

    def close(self) -> None:
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    render = staticmethod(render)

    # -- writing --------------------------------------------------------------------------------

    def add(self, experience: Experience) -> Experience:
        """Keep an experience, merged into the one that says exactly the same if there is one.

        Returns:
            What memory now holds, which may have another id and version; idempotent.
            Inside a transaction of the record that is rolled back, open the memory again before using it.

        Raises:
            RecordError: it was drawn from a task that is held out, or its version is taken.
        """
        with self._lock:
            known = self._items.get(experience.id) or self._same.get(identity(experience))
            if known == experience:
                return experience
            if experience.tenant != self.tenant:
                raise RecordError(f"this is the memory of {self.tenant!r}, not of {experience.tenant!r}")
            self._refuse_held_out(experience)
            return self._save(merged(known, experience) if known and known.id != experience.id else experience)

    def add_many(self, experiences: Iterable[Experience]) -> list[Experience]:
        """`add` each, all in one transaction: all are kept or, after an error, none.

        Raises:
            RecordError: as `add`.
        """
        with self._lock:
            try:
                with self._record.transaction():
                    return [self.add(experience) for experience in experiences]
            except BaseException:
                self._load()
                raise

    def change(self, experience_id: str, change: Change, **changes: Any) -> Experience:
        """Make the next version with these fields changed, for the reason given.

        Raises:
            RecordError: this tenant has no such experience, or the changes are not possible.
        """
        with self._lock, self._record.transaction():
            return self._save(successor(self.get(experience_id), change, **changes))

    def move(self, experience_id: str, status: Status, change: Change) -> Experience:
        """Give it this status, for the reason given; the same version if it has it.

        Raises:
            RecordError: this tenant has no such experience.
        """
        with self._lock, self._record.transaction():
            item = self.get(experience_id)
            return item if item.status is status else self.change(experience_id, change, status=status)

    def undo(self, experience_id: str, *, by: str) -> Experience:
        """Take back the newest change: the next version says what the version before it said.

        Raises:
            RecordError: this tenant has no such experience, or it has only one version.
        """
        with self._lock, self._record.transaction():
            self.get(experience_id)
            return self._save(undone(self._record.history(experience_id), by))

    def sync(self) -> None:
        """Take over what other processes have written to the record; every read does so by itself."""
        with self._lock:
            self._load()

    def reindex(self) -> int:
        """Drop the index and build it from the record; returns how many experiences it holds."""
        with self._lock:
            self._index.clear()
            self._load()
            return len(self._items)

    # -- reading --------------------------------------------------------------------------------

    def get(self, experience_id: str) -> Experience:
        """The newest version. Raises RecordError if this tenant has no such experience."""
        with self._lock:
            if experience_id not in self._items:
                raise RecordError(f"memory has no experience {experience_id!r}")
            return self._items[experience_id]

    def history(self, experience_id: str) -> list[Experience]:
        """All versions, oldest first. Raises RecordError if this tenant has no such experience."""
        self.get(experience_id)
        return self._record.history(experience_id)

    def experiences(self, *, kind: Kind | None = None, statuses: Collection[Status] = ()) -> list[Experience]:
        """This tenant's experiences, oldest first; `statuses` empty means all."""
        with self._lock:
            items = list(self._items.values())
        return [item for item in items if kind in (None, item.kind) and (not statuses or item.status in statuses)]

    def search(self, query: Query) -> list[Hit]:
        """The best by vectors over distilled text and BM25 over verbatim text, best first."""
        wanted = _wanted(
            kind=list(query.kinds) or None,
            environment=query.environment,
            family=query.family,
            status=list(query.statuses) or None,
        )
        hits = self._ranked(query.text, wanted, query.exclude_task, prefer=query.prefer_family)
        return [hit for hit in hits if hit.experience.trust >= query.min_trust][: query.k]

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
            only: id of the one experience that is shown or enforced, whatever its status, wherever its environment
                is the task's, and nothing else; not for a task that it was drawn from.
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
        with self._lock:
            if only is not None:
                return self._only(task, only)
            wanted = _wanted(environment=task.environment, status=list(statuses))
            rules = self._matching({**wanted, "family": [task.family], "kind": ["guardrail"]}, task.id)
            found: dict[str, Experience] = {}
            if self._config.top_k:
                # What is absorbed keeps its place: were others to take it, absorbing would free no room in the prompt.
                wanted |= {"status": list({*statuses, Status.ABSORBED}), "kind": ["skill", "sticker"]}
                text = f"{goal}\n{observation[:OBSERVATION_LENGTH]}"
                for hit in self._ranked(text, wanted, task.id, prefer=task.family):
                    if hit.experience.id not in without:
                        found.setdefault(render(hit.experience), hit.experience)
            best = [item for item in list(found.values())[: self._config.top_k] if item.status in statuses]
            enforced = tuple(rule for rule in rules.values() if rule.id not in without)
            return Recall(shown=tuple(_shown(item) for item in best), guardrails=enforced)

    def _only(self, task: Task, experience_id: str) -> Recall:
        item = self.get(experience_id)
        if item.environment != task.environment or any(source.task == task.id for source in item.sources):
            return Recall()
        if item.kind == "guardrail":
            return Recall(guardrails=(item,))
        return Recall(shown=(_shown(item),))

    def sources(self, experience_id: str) -> list[tuple[Trajectory, Step, int]]:
        """The steps it was drawn from, each with its trajectory and index in it."""
        found = []
        for source in self._record.experience(experience_id).sources:
            trajectory = self._record.trajectory(source.trajectory)
            for index in source.steps or range(len(trajectory.steps)):
                found.append((trajectory, trajectory.steps[index], index))
        return found

    def stats(self) -> dict[str, Any]:
        """How many experiences there are, by kind and status, and what they are indexed with."""
        with self._lock:
            items = list(self._items.values())
            kinds = sorted({item.kind for item in items})
            return {
                "experiences": len(items),
                "by_kind": {kind: sum(item.kind == kind for item in items) for kind in kinds},
                "by_status": {status.value: sum(item.status is status for item in items) for status in Status},
                "indexed": len(self._index.versions()),
                "embedder": self._embedder.name,
                "dimension": self._embedder.dimension,
            }

    @property
    def _in_use(self) -> frozenset[Status]:
        return IN_USE if self._config.candidates else frozenset({Status.ACTIVE})

    # -- inside ---------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the record, and make the index hold just that."""
        self._items = {item.id: item for item in self._record.experiences(tenant=self.tenant)}
        self._same = {identity(item): item for item in self._items.values()}
        self._words: dict[str, tuple[int, list[str]]] = {}
        self._keywords: KeywordIndex | None = None
        stored = self._index.versions()
        stale = [item for item in self._items.values() if stored.get(item.id) != item.version]
        gone = [key for key in stored if key not in self._items]
        if stale or gone:
            _LOG.info("memory index: %d experiences to write, %d to remove", len(stale), len(gone))
        self._index.delete(gone)
        self._write(stale)

    def _save(self, experience: Experience) -> Experience:
        """Record first: if the process dies in between, the next open repairs the index."""
        if self._record.save_experience(experience):
            if experience.id in self._items:
                self._same.pop(identity(self._items[experience.id]), None)
            self._items[experience.id] = self._same[identity(experience)] = experience
            self._keywords = None
            self._write([experience])
        return self._items[experience.id]

    def _write(self, experiences: list[Experience]) -> None:
        if experiences:
            vectors = self._embedder.embed([distilled(item) for item in experiences])
            self._index.upsert([item.id for item in experiences], vectors, [_metadata(item) for item in experiences])

    def _ranked(
        self, text: str, wanted: Mapping[str, list[str]], exclude_task: str | None, *, prefer: str | None = None
    ) -> list[Hit]:
        """All candidates, best first; each of the two scores is scaled to 0…1 over them, then weighted."""
        with self._lock:
            allowed = self._matching(wanted, exclude_task)
            if not allowed:
                return []
            count = NEAR + len(self._matching(wanted, None)) - len(allowed)
            vector = self._embedder.embed([text])[0]
            near = self._index.search(vector, count, _where(wanted))
            if prefer:
                near |= self._index.search(vector, count, _where({**wanted, "family": [prefer]}))
            words = {key: score for key, score in self._keyword_scores(text).items() if key in allowed}
            candidates = list(dict.fromkeys([*(key for key in near if key in allowed), *list(words)[:NEAR]]))
            near |= self._index.similarities(vector, [key for key in candidates if key not in near])
            vectors = _scaled([near[key] for key in candidates], low=min(near.values()))
            keywords = _scaled([words.get(key, 0.0) for key in candidates], low=0.0)
            weight = self._config.vector_weight
            hits = []
            for key, by_vector, by_keyword in zip(candidates, vectors, keywords, strict=True):
                item = allowed[key]
                boost = FAMILY_BOOST if item.family == prefer else 0.0
                score = weight * by_vector + (1 - weight) * by_keyword + boost
                parts = {"vector": weight * by_vector, "keyword": (1 - weight) * by_keyword, "family": boost}
                hits.append(Hit(item, score, near[key], words.get(key, 0.0), parts))
            return sorted(hits, key=lambda hit: -hit.score)

    def _keyword_scores(self, text: str) -> dict[str, float]:
        if self._keywords is None:
            stale = [item for item in self._items.values() if self._words.get(item.id, (0,))[0] != item.version]
            if stale:
                for item, words in zip(stale, tokens([self._verbatim(item) for item in stale]), strict=True):
                    self._words[item.id] = (item.version, words)
            self._keywords = KeywordIndex({key: words for key, (_, words) in self._words.items()})
        return self._keywords.scores(tokens([text])[0])

    def _verbatim(self, experience: Experience) -> str:
        first = experience.sources[0].trajectory
        known = self._record.has_trajectory(first)
        return verbatim(experience, self._record.trajectory(first) if known else None)

    def _matching(self, wanted: Mapping[str, Collection[str]], exclude_task: str | None) -> dict[str, Experience]:
        return {
            item.id: item
            for item in self._items.values()
            if all(getattr(item, name) in values for name, values in wanted.items())
            and all(source.task != exclude_task for source in item.sources)
        }

    def _refuse_held_out(self, experience: Experience) -> None:
        for source in experience.sources:
            if self._record.has_trajectory(source.trajectory):
                split = self._record.trajectory(source.trajectory).task.split
                if split is not Split.TRAIN:
                    raise RecordError(f"{source.task} is a {split.value} task; only train tasks may feed memory")


@dataclass(frozen=True)
class _Recaller:
    store: MemoryStore
    statuses: frozenset[Status]
    without: frozenset[str]
    only: str | None

    def recall(self, task: Task, goal: str, observation: str) -> Recall:
        return self.store._recalled(task, goal, observation, self.statuses, self.without, self.only)


def _shown(item: Experience) -> Shown:
    """As an agent sees it, marked where its effect is unmeasured."""
    mark = ON_TRIAL if item.status is Status.CANDIDATE else ""
    return Shown(id=item.id, version=item.version, text=mark + render(item))


def _wanted(**values: list[Any] | str | None) -> dict[str, list[str]]:
    return {name: value if isinstance(value, list) else [value] for name, value in values.items() if value is not None}


def _where(wanted: Mapping[str, list[str]]) -> dict[str, Any] | None:
    """The same as a Chroma filter."""
    tests = [{name: {"$in": [str(value) for value in values]}} for name, values in wanted.items()]
    return {"$and": tests} if len(tests) > 1 else (tests[0] if tests else None)


def _metadata(experience: Experience) -> dict[str, str | int]:
    return {
        "version": experience.version,
        "kind": experience.kind,
        "environment": experience.environment,
        "family": experience.family,
        "status": experience.status.value,
    }


def _scaled(values: list[float], *, low: float) -> list[float]:
    high = max(values, default=low)
    return [(value - low) / (high - low) if high > low else float(value > 0) for value in values]

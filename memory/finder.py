"""What search works on, kept in step with the record: filters, vectors and words of one tenant's experiences.

Every process has its own, in memory; it takes over what others have written before each search. The one process that
holds the index's folder also keeps Chroma, and asks it wherever comparing with every candidate would take longer.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tutelage import keyword
from tutelage.config import MemoryConfig
from tutelage.errors import MemoryBusy
from tutelage.experience import Experience
from tutelage.memory import compound as compounds
from tutelage.memory import text as texts
from tutelage.memory.catalog import Catalog, Mask, Slots
from tutelage.memory.derived import Derived, Row
from tutelage.memory.embedder import Vectors, embedder
from tutelage.memory.exact import ExactIndex, top
from tutelage.memory.index import VectorIndex
from tutelage.memory.query import Query
from tutelage.memory.search import NEAR, asked
from tutelage.memory.words import WordIndex, hashed, numbers
from tutelage.record import Record
from tutelage.record_experiences import ExperienceRow, Newest
from tutelage.types import Trajectory

_LOG = logging.getLogger(__name__)

EXACT = 8192
"""Candidates up to which each is compared with the query."""
FETCH = 512
"""Neighbours asked of Chroma at once at most, to find those among them that pass the filters."""
FLUSH = 1000
"""Vectors that wait in memory before Chroma is given them: one at a time costs it as much as hundreds."""
T = TypeVar("T")
_BATCH = 500
_KEPT = 5000


class Finder:
    """Safe for threads. Reads the record, never writes to it."""

    def __init__(self, record: Record, folder: Path, config: MemoryConfig, tenant: str) -> None:
        """Open everything and take the record's experiences over.

        Raises:
            MissingPart: something is not installed.
        """
        self._record = record
        self._tenant = tenant
        self._lock = threading.RLock()
        self.embedder = embedder(config.embedder)
        dimension = self.embedder.dimension
        made_with = f"{self.embedder.name}, texts {_text_version()}"
        self._derived = Derived(folder, tenant=tenant, made_with=made_with, dimension=dimension)
        self._chroma: VectorIndex | None = None
        self.holder = ""
        try:
            self._chroma = VectorIndex(folder, tenant=tenant, made_with=made_with, dimension=dimension)
        except MemoryBusy as error:
            self.holder = str(error)
        try:
            self._forget_all()
            self._done = {name: self._chroma.done(name) for name in self._chroma.environments} if self._chroma else {}
            self.sync()
            self._repair()
        except BaseException:
            self.close()
            raise

    def _forget_all(self) -> None:
        self.catalog = Catalog()
        self._vectors = ExactIndex(self.embedder.dimension)
        self._words = WordIndex()
        self._seen = Newest(0, 0)
        self._stamp: int | None = None
        self._tentative = False
        self._pending: set[int] = set()  # slots whose vectors Chroma does not have yet
        self._cache: dict[int, Experience] = {}

    def close(self) -> None:
        with self._lock:
            if self._chroma is not None:
                try:
                    if not self._tentative:
                        self.flush()
                finally:
                    self._chroma.close()
                    self._chroma = None
            self._derived.close()

    # -- keeping in step ------------------------------------------------------------------------

    def sync(self) -> None:
        """Take over what the record has that is not here yet, and drop what was forgotten."""
        with self._lock:
            stamp = None if self._record.writing else self._record.stamp()
            if stamp is not None and stamp == self._stamp:
                return
            if self._tentative:  # what was read inside a transaction may have been taken back
                self._forget_all()
            with self._record.reading():
                newest = self._record.newest()
                if newest != self._seen:
                    self._tentative = self._record.writing
                    self._catch_up(newest)
            self._stamp = stamp
            if len(self._pending) >= FLUSH and not self._tentative:
                self.flush()

    def _catch_up(self, newest: Newest) -> None:
        rows = self._record.experience_rows(after=self._seen.experience, tenant=self._tenant)
        stones = []
        if newest.tombstone > self._seen.tombstone:
            stones = self._record.tombstones(after=self._seen.tombstone, tenant=self._tenant)
        self._forget([stone.id for stone in stones if stone.kind == "experience"])
        if stones:
            self._cache.clear()  # it may quote what was forgotten
            rows = self._with_reworded(rows, [stone.id for stone in stones if stone.kind == "trajectory"])
        self._take(rows)
        self._seen = newest

    def _take(self, rows: Sequence[ExperienceRow]) -> None:
        """Put experiences where search finds them, with what is known of them or else is made now."""
        wanted = {row.id: row for row in rows}
        everything = len(rows) > len(self.catalog)
        found = []
        for made in self._derived.rows(None if everything else list(wanted)):
            row = wanted.get(made.id)
            if row is not None and row.version == made.version:
                found.append((row, made))
                del wanted[made.id]
        self._put(found)
        missing = list(wanted.values())
        for start in range(0, len(missing), _BATCH):
            made_now = self._made(missing[start : start + _BATCH])
            self._put(made_now)
            if not self._tentative:
                self._derived.put(made for _, made in made_now)

    def _made(self, rows: Sequence[ExperienceRow]) -> list[tuple[ExperienceRow, Row]]:
        bodies = self._record.experiences_at([row.n for row in rows])
        rows = [row for row in rows if row.n in bodies]  # the others were forgotten just now
        sources = self._sources(list(bodies.values()))
        # What was kept before there was a compound form is found by one all the same.
        items = [
            compounds.compound(item, sources.get(item.sources[0].trajectory))
            for item in (bodies[row.n] for row in rows)
        ]
        vectors = self.embedder.embed([texts.gist(item) for item in items])
        words = hashed([texts.verbatim(item, sources) for item in items])
        return [
            (row, Row(row.id, row.version, vector, numbers))
            for row, vector, numbers in zip(rows, vectors, words, strict=True)
        ]

    def _sources(self, experiences: Sequence[Experience]) -> dict[str, Trajectory]:
        """The trajectories whose words the experiences are found by, this tenant's only."""
        cited = {source.trajectory for item in experiences for source in item.sources[: texts.SOURCES]}
        places = self._record.trajectory_places(sorted(cited - {""}))
        return {key: self._record.trajectory(key) for key, (_, tenant) in places.items() if tenant == self._tenant}

    def _put(self, known: Sequence[tuple[ExperienceRow, Row]]) -> None:
        words = {}
        for row, made in known:
            slot = self.catalog.put(row)
            self._vectors.put(slot, made.vector)
            words[slot] = made.words
            if row.n > self._done.get(row.environment, 0):
                self._pending.add(slot)
        self._words.put(words)

    def _forget(self, ids: Sequence[str]) -> None:
        self._derived.delete(ids)
        for key in ids:
            slot = self.catalog.remove(key)
            if slot is not None:
                self._words.remove(slot)
                self._pending.discard(slot)
                self._vectors.put(slot, np.zeros(self.embedder.dimension, dtype=np.float32))
                if self._chroma is not None:
                    self._tell_chroma(VectorIndex.delete, self.catalog.rows[slot].environment, [key])

    def _with_reworded(self, rows: list[ExperienceRow], trajectories: Iterable[str]) -> list[ExperienceRow]:
        """With those whose words came from a forgotten trajectory, so that they are made again."""
        drawn = {item.id for key in trajectories for item in self._record.experiences(source=key, tenant=self._tenant)}
        self._derived.delete(sorted(drawn))
        known = {row.id for row in rows}
        slots = [self.catalog.slots[key] for key in drawn - known if key in self.catalog.slots]
        return rows + [self.catalog.rows[slot] for slot in slots]

    # -- Chroma ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Give Chroma the vectors that wait."""
        with self._lock:
            if self._chroma is not None:
                self._write(self._pending)
            self._pending.clear()

    def _write(self, waiting: Collection[int]) -> None:
        slots = np.array(sorted(waiting), dtype=np.int64)
        for environment in {self.catalog.rows[slot].environment for slot in slots}:
            mine = slots[self.catalog.of("environment", environment, slots)]
            ids = [self.catalog.rows[slot].id for slot in mine]
            self._tell_chroma(VectorIndex.upsert, environment, ids, self._vectors.vectors(mine))
            self._tell_chroma(VectorIndex.mark, environment, self._seen.experience)
            self._done[environment] = self._seen.experience

    def _repair(self) -> None:
        """Make Chroma hold just what is here, after however the last process ended."""
        if self._chroma is None:
            return
        stale, removed = set(self._pending), 0
        for environment in {*self._chroma.environments, *self.catalog.environments()}:
            slots = np.flatnonzero(self.catalog.all_of(environment)).tolist()
            if self._chroma.count(environment) + len(stale.intersection(slots)) != len(slots):
                there = set(self._chroma.ids(environment))
                gone = sorted(there - {self.catalog.rows[slot].id for slot in slots})
                self._chroma.delete(environment, gone)
                removed += len(gone)
                stale |= {slot for slot in slots if self.catalog.rows[slot].id not in there}
        if stale or removed:
            _LOG.info("memory index: %d experiences to write, %d to remove", len(stale), removed)
        self._pending = stale
        self.flush()

    def _tell_chroma(self, work: Callable[..., T], *arguments: Any) -> T | None:
        """Do without Chroma from now on if it fails; it is made anew at the next open, where it differs."""
        if self._chroma is None:
            return None
        try:
            return work(self._chroma, *arguments)
        except Exception as error:  # anything at all: disk full, files gone, a bug; the record has everything
            _LOG.warning("the memory index failed (%s); searching without it", error)
            self._chroma.close()
            self._chroma = None
            return None

    def reindex(self) -> int:
        """Drop all that was made for search, and make it again from the record; returns how many there are."""
        with self._lock:
            self._derived.clear()
            if self._chroma is not None:
                self._chroma.clear()
            self._done = {}
            self._forget_all()
            self.sync()
            self.flush()
            return len(self.catalog)

    def indexed(self) -> int:
        """How many experiences the vector index holds."""
        with self._lock:
            if self._chroma is None:
                return len(self.catalog)
            self.flush()
            return sum(self._chroma.count(environment) for environment in self._chroma.environments)

    # -- searching ------------------------------------------------------------------------------

    def candidates(self, query: Query, *, without: Collection[str] = ()) -> tuple[dict[str, float], dict[str, float]]:
        """What may answer a query: cosine similarity of every candidate, and BM25 score of those that have one."""
        with self._lock:
            passed = self.catalog.mask(query, without=without)
            slots = np.flatnonzero(passed)
            if not len(slots):
                return {}, {}
            vector = self.embedder.embed([query.text])[0]
            near = {}
            scores = np.zeros(len(passed))
            found: list[Slots] = []
            if query.mode != "keyword":
                found += self._near(vector, query, passed, slots)
            if query.mode != "vector":
                scores = self._words.scores(numbers(asked(query.text)), len(passed))
                having = np.flatnonzero(passed & (scores > 0))
                found.append(having[top(scores[having], max(NEAR, query.k))])
            chosen = np.unique(np.concatenate(found))
            ids = [self.catalog.rows[slot].id for slot in chosen]
            near = dict(zip(ids, self._vectors.similarities(vector, chosen).tolist(), strict=True))
            words = {key: score for key, score in zip(ids, scores[chosen].tolist(), strict=True) if score > 0}
            return near, words

    def _near(self, vector: Vectors, query: Query, passed: Mask, slots: Slots) -> list[Slots]:
        """The nearest in all, and of the preferred family."""
        count = query.k if query.mode == "vector" and not query.prefer_family else max(NEAR, query.k)
        found = [self._nearest(vector, passed, slots, count)]
        if query.prefer_family:
            own = slots[self.catalog.of("family", query.prefer_family, slots)]
            found.append(self._vectors.nearest(vector, own, count))
        return found

    def _nearest(self, vector: Vectors, passed: Mask, slots: Slots, count: int) -> Slots:
        if self._chroma is None or len(slots) <= EXACT:
            return self._vectors.nearest(vector, slots, count)
        found: set[int] = set()
        for environment in self._chroma.environments:  # one that is all pending is added below
            here = self.catalog.all_of(environment)
            share = np.count_nonzero(passed & here)
            if share:
                size = int(np.count_nonzero(here))
                fetch = min(int(1.3 * count * size / share) + 8, size)
                if fetch > FETCH:  # too few of its neighbours would pass the filters
                    return self._vectors.nearest(vector, slots, count)
                ids = self._tell_chroma(VectorIndex.search, environment, vector, fetch) or ()
                found |= {slot for key in ids if (slot := self.catalog.slots.get(key)) is not None and passed[slot]}
        found |= {slot for slot in self._pending if passed[slot]}
        if len(found) < count:
            return self._vectors.nearest(vector, slots, count)
        return np.array(sorted(found), dtype=np.int64)

    def rows(self, query: Query, *, without: Collection[str] = ()) -> list[ExperienceRow]:
        """All that pass the filters of a query, whatever its text."""
        with self._lock:
            slots = np.flatnonzero(self.catalog.mask(query, without=without))
            return [self.catalog.rows[slot] for slot in slots]

    def of_family(self, family: str, ids: Iterable[str]) -> list[str]:
        """Those that belong to this family."""
        with self._lock:
            rows = (self.catalog.rows[self.catalog.slots[key]] for key in ids if key in self.catalog.slots)
            return [row.id for row in rows if row.family == family]

    def load(self, ids: Iterable[str]) -> list[Experience]:
        """The experiences as they were at the last `sync`, without any that have been forgotten since."""
        with self._lock:
            slots = [self.catalog.slots[key] for key in ids if key in self.catalog.slots]
            numbers = [self.catalog.rows[slot].n for slot in slots]
            missing = [n for n in numbers if n not in self._cache]
            if missing:
                if len(self._cache) + len(missing) > _KEPT:
                    self._cache.clear()
                    missing = numbers
                self._cache |= self._record.experiences_at(missing)
            return [self._cache[n] for n in numbers if n in self._cache]

    def stats(self) -> dict[str, Any]:
        """How many experiences there are, by kind and status, and what they are indexed with."""
        with self._lock:
            kinds, statuses = self.catalog.counts()
            return {
                "experiences": len(self.catalog),
                "by_kind": kinds,
                "by_status": statuses,
                "indexed": self.indexed(),
                "index": self.holder or "Chroma, kept by this process",
                "embedder": self.embedder.name,
                "dimension": self.embedder.dimension,
            }


def _text_version() -> str:
    """Changes with the code that makes the texts, so that nothing made by an older one is used."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (texts, compounds, keyword))
    return sha256(code).hexdigest()[:12]

"""Consolidation: near-duplicates merged, contradictions surfaced, the least useful retired. Planned, then done.

The plan is made from what memory holds and changes nothing. Carrying it out is one transaction per step, so that a
run that was killed goes on with what is left, and a second one finds nothing to do.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from tutelage.config import MemoryConfig
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.experience import IN_USE, Change, Experience, Status
from tutelage.memory.capacity import NEVER, least_useful, utility
from tutelage.memory.contradictions import Bounds, Contradiction, forbidden_skills, keep, resolved
from tutelage.memory.embedder import Embedder, Vectors, embedder
from tutelage.memory.merging import BY, DECISIONS, decide, gather, merge, pair_key
from tutelage.memory.polarity import Agreement, agreement
from tutelage.memory.text import distilled
from tutelage.record import Record
from tutelage.record_experiences import Uses
from tutelage.types import Split

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore

NEIGHBOURS = 16
"""Neighbours of one experience that it is compared with at most, nearest first."""
ROWS = 512
"""Experiences whose similarities are computed at once."""
BATCH = 16
"""Pairs about which a reader is asked between two writes to the record."""
MERGER = "merger"
"""Who decided, where a reader did."""

_READ_AS_OPPOSITE = (Agreement.UNCLEAR, Agreement.OPPOSITE)
_POOL = IN_USE | {Status.ABSORBED}

Pair = tuple[Experience, Experience]
Reader = Callable[[Sequence[Pair]], Sequence[Agreement | TutelageError]]
"""Says of pairs whether they are the same, opposite or other; or why it has no answer."""


@dataclass(frozen=True)
class Merge:
    """One experience that is to stand for another as well."""

    winner: str
    loser: str
    similarity: float
    by: str


@dataclass(frozen=True)
class Plan:
    """What consolidation would do."""

    experiences: int
    """In use now."""
    pairs: int
    """Near pairs that were compared."""
    merges: tuple[Merge, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    retired: tuple[tuple[str, float, int], ...] = ()
    """Beyond the capacity: id, utility and sound episodes it was shown in."""
    kept_apart: dict[str, int] = field(default_factory=dict)
    """How many near pairs stay two, by reason."""
    unclear: tuple[tuple[str, str, float], ...] = ()
    """Pairs that a reader could tell, with their similarity, nearest first."""

    @property
    def left(self) -> int:
        """How many would be in use afterwards."""
        resolved = sum(bool(found.winner) for found in self.contradictions)
        return self.experiences - len(self.merges) - resolved - len(self.retired)


def consolidate(
    store: "MemoryStore",
    record: Record,
    config: MemoryConfig,
    *,
    reader: Reader | None = None,
    effects: Mapping[str, Bounds] | None = None,
    on_plan: Callable[[Plan], object] | None = None,
    dry_run: bool = False,
) -> Plan:
    """Merge, surface, resolve, and keep to the capacity.

    Args:
        reader: asked about near pairs that differ in words only; what it says is kept. None: they stay two.
        effects: effects measured in pairs, by id. Without them a contradiction is only surfaced: episodes in which
            one was shown differ from others in who played, when and what, so how they ended proves nothing of it.
        on_plan: is given the plan before anything is changed.
        dry_run: change nothing, and ask nobody.

    Returns:
        What was done, or would be.

    Raises:
        BudgetSpent: the reader reached a limit; what it said so far is kept.
    """
    if not dry_run:
        gather(store, record)
    found = plan(store.experiences(statuses=_POOL), record, config, effects=effects)
    if reader is not None and not dry_run and _ask(reader, found, store, record, config.asked):
        found = plan(store.experiences(statuses=_POOL), record, config, effects=effects)
    if dry_run:
        return found
    if on_plan is not None:
        on_plan(found)
    for item in found.merges:
        reason = f"says the same as {item.winner}"
        merge(store, record, item.winner, item.loser, reason=reason, by=item.by, similarity=item.similarity)
    for contradiction in found.contradictions:
        _settle(store, record, contradiction)
    for experience_id, useful, shown in found.retired:
        numbers: dict[str, float | str] = {"utility": useful, "shown": float(shown), "capacity": float(config.capacity)}
        change = Change(by="capacity", reason="more in use than the memory shall hold", numbers=numbers)
        store.move(experience_id, Status.RETIRED, change)
    return found


def plan(
    items: Sequence[Experience],
    record: Record,
    config: MemoryConfig,
    *,
    effects: Mapping[str, Bounds] | None = None,
) -> Plan:
    """What there is to do about these experiences of one tenant, oldest first."""
    pool = [item for item in items if item.status in _POOL]
    uses = record.uses(split=Split.TRAIN)
    decided = record.items(DECISIONS)
    pairs = list(near(pool, config))
    apart: Counter[str] = Counter()
    same: dict[str, dict[str, tuple[float, str]]] = {}
    opposite, unclear = [], []
    for first, second, similarity in pairs:
        found = agreement(first, second)
        decision = decided.get(pair_key(first, second), {})
        said = Agreement(decision["agreement"]) if decision else None
        if said is Agreement.OTHER:
            apart[f"{found.reason}, apart by {decision['by']}"] += 1
        elif found.agreement is Agreement.SAME or (found.mergeable and said is Agreement.SAME):
            by = decision.get("by", BY) if found.agreement is not Agreement.SAME else BY
            same.setdefault(first.id, {})[second.id] = same.setdefault(second.id, {})[first.id] = (similarity, by)
        elif found.agreement is Agreement.OPPOSITE or (found.agreement, said) == _READ_AS_OPPOSITE:
            opposite.append(Contradiction(first.id, second.id, found.reason, similarity))
        else:
            apart[found.reason] += 1
            if found.agreement is Agreement.UNCLEAR and said is None:
                unclear.append((first.id, second.id, similarity))
    merges = tuple(_merges(pool, same, uses))
    gone = {item.loser for item in merges}
    left = [item for item in pool if item.id not in gone]
    in_use = [item for item in left if item.status in IN_USE]
    known = {item.id for item in in_use}
    contradictions = [
        resolved(found, effects or {})
        for found in (*opposite, *forbidden_skills(in_use))
        if found.first in known and found.second in known
    ]
    beaten = {found.loser for found in contradictions if found.winner}
    rest = [item for item in in_use if item.id not in beaten]
    retired = least_useful(rest, uses, len(rest) - config.capacity)
    return Plan(
        experiences=sum(item.status in IN_USE for item in pool),
        pairs=len(pairs),
        merges=merges,
        contradictions=tuple(contradictions),
        retired=tuple((item.id, utility(used := uses.get(item.id, NEVER)), used.sound) for item in retired),
        kept_apart=dict(apart.most_common()),
        unclear=tuple(sorted(unclear, key=lambda pair: -pair[2])),
    )


def near(items: Sequence[Experience], config: MemoryConfig) -> Iterator[tuple[Experience, Experience, float]]:
    """Pairs of one kind and family whose texts are at least `config.similar` alike, each once, with their cosine.

    In the given order, and the earlier one of a pair first.
    """

    def place(item: Experience) -> tuple[str, ...]:
        return item.tenant, item.environment, item.family, item.kind

    for _, group in groupby(sorted(items, key=place), key=place):
        alike = list(group)
        if len(alike) > 1:
            vectors = _embedder(config.embedder).embed([distilled(item) for item in alike])
            yield from _near(alike, vectors, config.similar)


@lru_cache(maxsize=1)
def _embedder(name: str) -> Embedder:
    return embedder(name)


def _near(
    items: Sequence[Experience], vectors: Vectors, similar: float
) -> Iterator[tuple[Experience, Experience, float]]:
    met = set()
    for start in range(0, len(items), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        for row, at in enumerate(range(start, min(start + ROWS, len(items)))):
            cosines[row, at] = -1.0
            nearest = np.argsort(-cosines[row], kind="stable")[:NEIGHBOURS]
            for other in nearest[cosines[row, nearest] >= similar].tolist():
                pair = (min(at, other), max(at, other))
                if pair not in met:
                    met.add(pair)
                    yield items[pair[0]], items[pair[1]], round(float(cosines[row, other]), 4)


def _merges(
    pool: Sequence[Experience], same: Mapping[str, Mapping[str, tuple[float, str]]], uses: Mapping[str, Uses]
) -> Iterator[Merge]:
    """Each experience takes those that say the same as itself; never what is only the same as one of those.

    The one with more evidence stays: active before absorbed before on trial, then more sound uses, more tasks, age.
    """
    rank = {Status.ACTIVE: 0, Status.ABSORBED: 1, Status.CANDIDATE: 2}

    def standing(item: Experience) -> tuple[int, ...]:
        tasks = {source.task for source in item.sources}
        return rank[item.status], -uses.get(item.id, NEVER).sound, -len(tasks)

    gone: set[str] = set()
    for item in sorted(pool, key=standing):
        if item.id in gone:
            continue
        gone.add(item.id)
        for other, (similarity, by) in same.get(item.id, {}).items():
            if other not in gone:
                gone.add(other)
                yield Merge(item.id, other, similarity, by)


def _ask(reader: Reader, found: Plan, store: "MemoryStore", record: Record, most: int) -> int:
    """Have the reader decide about what is unclear, nearest first; returns how many pairs it decided about."""
    decided = 0
    pairs = [(store.get(first), store.get(second)) for first, second, _ in found.unclear[:most]]
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        answers = reader(batch)
        for (first, second), said in zip(batch, answers, strict=True):
            if isinstance(said, Agreement):
                decide(record, first, second, said, by=MERGER)
                decided += 1
        for said in answers:
            if isinstance(said, BudgetSpent):
                raise said
    return decided


def _settle(store: "MemoryStore", record: Record, found: Contradiction) -> None:
    """Keep a contradiction; where evidence speaks for one, retire the other."""
    with record.transaction():
        keep(record, found)
        if found.winner:
            won, lost = sorted(found.effects, reverse=True)
            numbers: dict[str, float | str] = {
                "contradicts": found.winner,
                "of": won.of,
                "low": lost.low,
                "high": lost.high,
                "other low": won.low,
                "other high": won.high,
            }
            change = Change(by="evidence", reason=f"contradicts {found.winner}, which does better", numbers=numbers)
            store.move(found.loser, Status.RETIRED, change)

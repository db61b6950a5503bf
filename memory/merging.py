"""Two experiences that say the same become one, and can be parted again.

The one with more evidence stays and gets the sources of the other, which is retired with its reason. Nothing is
lost: both histories say what happened, `Experience.merged` says whom one stands for, and parting them gives each
what it would have without the other. As the trust of words is that of their source, a merged experience is trusted
as little as the least trusted of them.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Source, Status, identity
from tutelage.memory.versions import origin_of, regained, united
from tutelage.record import Record

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore

BY = "merging"
"""`Change.by` of merges."""
INTO, FROM, APART, GATHERED = "merged into", "merged with", "parted from", "sources of merged ones"
"""Entries of `Change.numbers`, by which a merge or a parting (with an id) and what followed from it is known again."""
DECISIONS = "merging"
"""Kind of the documents that keep what was decided about two texts; the key is `pair_key`."""


def merge(
    store: "MemoryStore", record: Record, winner_id: str, loser_id: str, *, reason: str, by: str = BY, **numbers: float
) -> Experience:
    """Let the winner stand for the loser too; both get a version that says so, in one transaction.

    Returns:
        The winner's newest version.

    Raises:
        RecordError: this tenant has not both, or they are of different places.
    """
    with record.transaction():
        winner, loser = store.get(winner_id), store.get(loser_id)
        if _place(winner) != _place(loser) or winner.id == loser.id:
            raise RecordError(f"{loser_id} and {winner_id} cannot be one: they are of different kinds or places")
        if loser.id in winner.merged:
            return winner
        store.change(
            loser.id, Change(by=by, reason=reason, numbers={INTO: winner.id, **numbers}), status=Status.RETIRED
        )
        return store.change(
            winner.id,
            Change(by=by, reason=reason, numbers={FROM: loser.id, **numbers}),
            sources=united(winner.sources, loser.sources),
            merged=tuple(dict.fromkeys((*winner.merged, loser.id, *loser.merged))),
            trust=min(winner.trust, loser.trust),
        )


def part(store: "MemoryStore", record: Record, loser_id: str, *, by: str) -> Experience:
    """Undo a merge: the loser is what it was, and whoever stands for it no longer does. They stay apart from then on.

    Returns:
        The loser's newest version.

    Raises:
        RecordError: nobody stands for it.
    """
    with record.transaction():
        loser = store.get(loser_id)
        merges = [version for version in store.history(loser_id) if INTO in version.change.numbers]
        holders = [item for item in store.experiences() if loser_id in item.merged]
        if not merges or (not holders and loser.status is not Status.RETIRED):
            raise RecordError(f"experience {loser_id} is not merged into another")
        gone = {loser_id, *loser.merged}
        for holder in holders:
            rest = tuple(item for item in holder.merged if item not in gone)
            sources, trust = _sum(store, [holder.id, *rest])
            change = Change(by=by, reason="undone: merged", numbers={APART: loser_id})
            store.change(holder.id, change, merged=rest, sources=sources, trust=trust)
            decide(record, loser, holder, "other", by=by)
        before = store.history(loser_id)[merges[-1].version - 2]
        winner = str(merges[-1].change.numbers[INTO])
        change = Change(by=by, reason="undone: merged", numbers={APART: winner})
        return store.change(loser_id, change, status=regained(loser, before))


def gather(store: "MemoryStore", record: Record) -> int:
    """Give sources that came to merged ones since to whoever stands for them; returns how many gained some.

    What one stands for may be forgotten, or never have been here: an export need not hold everything.
    """
    gained = 0
    with record.transaction():
        known = {item.id: item for item in store.experiences()}
        for item in known.values():
            if item.merged and item.status is not Status.RETIRED:
                merged = (known[gone].sources for gone in item.merged if gone in known)
                sources = united(item.sources, _joined(merged))
                if sources != item.sources:
                    numbers = {GATHERED: float(len(sources) - len(item.sources))}
                    change = Change(by=BY, reason="further sources of what it stands for", numbers=numbers)
                    store.change(item.id, change, sources=sources)
                    gained += 1
    return gained


def pair_key(first: Experience, second: Experience) -> str:
    """Names what two experiences say; whatever says the same again is the same pair."""
    return " ".join(sorted((identity(first), identity(second))))


def decide(record: Record, first: Experience, second: Experience, agreement: str, *, by: str) -> None:
    """Keep what was decided about two experiences, so that it holds and is not asked for again."""
    record.put(DECISIONS, pair_key(first, second), {"agreement": agreement, "by": by})


def _sum(store: "MemoryStore", ids: Sequence[str]) -> tuple[tuple[Source, ...], float]:
    """Sources and trust of experiences taken together; forgotten ones are left out."""
    owned = []
    for experience_id in ids:
        try:
            owned.append(_own(store.history(experience_id)))
        except RecordError:
            continue
    return _joined(sources for sources, _ in owned), min(trust for _, trust in owned)


def _own(history: Sequence[Experience]) -> tuple[tuple[Source, ...], float]:
    """The sources and the trust that an experience has without those it was merged with."""
    sources = {origin_of(source): source for source in history[0].sources}
    trust = history[0].trust
    for before, after in pairwise(history):
        if not {FROM, APART, GATHERED}.isdisjoint(after.change.numbers):
            continue
        sources |= {origin_of(source): source for source in after.sources if source not in before.sources}
        for gone in {*map(origin_of, before.sources)} - {*map(origin_of, after.sources)}:
            sources.pop(gone, None)
        trust = after.trust if after.trust != before.trust else trust
    return tuple(sources.values()), trust


def _joined(parts: Iterable[tuple[Source, ...]]) -> tuple[Source, ...]:
    joined: tuple[Source, ...] = ()
    for sources in parts:
        joined = united(joined, sources)
    return joined


def _place(experience: Experience) -> tuple[str, ...]:
    return experience.tenant, experience.environment, experience.family, experience.kind

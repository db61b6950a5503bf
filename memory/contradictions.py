"""Experiences that cannot both be right: found, shown to people, and resolved where evidence tells them apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Experience, Guardrail, Skill
from tutelage.memory.merging import DECISIONS, pair_key
from tutelage.memory.polarity import Agreement, agreement, same_pattern
from tutelage.record import Record

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore

DOCUMENTS = "contradiction"
"""Kind of the documents that keep them; the key is both ids, that of the older one first."""
FORBIDDEN = "a guardrail without a trigger forbids what a skill does"


class Bounds(NamedTuple):
    """What is known of an experience's effect: an interval, and what it is of."""

    low: float
    high: float
    of: str


@dataclass(frozen=True)
class Contradiction:
    """Two experiences of one place, neither of which is worth anything if the other is right."""

    first: str
    second: str
    reason: str
    similarity: float | None = None
    """Cosine of their texts; None where it is not by their texts that they contradict each other."""
    winner: str = ""
    """Id of the one that evidence speaks for; empty while none does."""
    effects: tuple[Bounds, ...] = ()
    """Of the first and the second, where there is a winner."""

    @property
    def key(self) -> str:
        return f"{self.first} {self.second}"

    @property
    def loser(self) -> str:
        return self.second if self.winner == self.first else self.first


def forbidden_skills(items: Sequence[Experience]) -> Iterator[Contradiction]:
    """Guardrails that always forbid what a skill of the same family prescribes."""

    def place(item: Experience) -> tuple[str, str, str]:
        return item.tenant, item.environment, item.family

    for _, group in groupby(sorted(items, key=place), key=place):
        family = list(group)
        for rule in family:
            if not isinstance(rule.content, Guardrail) or rule.content.trigger:
                continue
            for skill in family:
                forbidden = rule.content.forbidden
                if isinstance(skill.content, Skill) and any(
                    same_pattern(forbidden, step) for step in skill.content.procedure
                ):
                    yield Contradiction(rule.id, skill.id, FORBIDDEN)


def resolved(found: Contradiction, effects: Mapping[str, Bounds]) -> Contradiction:
    """With its winner, if the effects of both were measured, are of the same thing, and do not overlap."""
    first, second = effects.get(found.first), effects.get(found.second)
    if first is None or second is None or first.of != second.of:
        return found
    winner = found.first if first.low > second.high else found.second if second.low > first.high else ""
    return Contradiction(
        found.first, found.second, found.reason, found.similarity, winner, (first, second) if winner else ()
    )


def keep(record: Record, found: Contradiction) -> None:
    """Keep what was found, and what became of it; the same again writes nothing."""
    body = {
        "first": found.first,
        "second": found.second,
        "reason": found.reason,
        "similarity": found.similarity,
        "winner": found.winner,
        "effects": [list(effect) for effect in found.effects],
    }
    record.put(DOCUMENTS, found.key, body)


def open_contradictions(store: "MemoryStore", record: Record) -> list[Contradiction]:
    """Those of this tenant that still stand: both are in use and say what they said."""
    found = []
    for body in record.items(DOCUMENTS).values():
        try:
            first, second = store.get(body["first"]), store.get(body["second"])
        except RecordError:  # forgotten, or another tenant's
            continue
        if first.status in IN_USE and second.status in IN_USE and _stands(record, first, second):
            found.append(Contradiction(first.id, second.id, body["reason"], body["similarity"]))
    return found


def _stands(record: Record, first: Experience, second: Experience) -> bool:
    if first.kind != second.kind:
        return any(forbidden_skills((first, second)))
    decision = record.get(DECISIONS, pair_key(first, second)) or {}
    opposite = agreement(first, second).agreement is Agreement.OPPOSITE
    return opposite or decision.get("agreement") == Agreement.OPPOSITE

"""Fusion: what two searches found, as one list. Pure functions, scores in, ranked ids out.

After Structured Distillation for agent memory (2603.13017), which adds vector and keyword scores, each normalised.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["fused", "vector", "keyword"]
Normalise = Literal["range", "top", "rank"]

NEAR = 64
"""Candidates that each of the two searches contributes to the fusion."""
FAMILY_BOOST = 0.5
"""Added to the score of experiences of the task's own family; it says more than a similar wording."""
RANK_OFFSET = 10
"""How slowly a score by rank falls: rank 1 is worth 1, rank 1 + this one half."""


@dataclass(frozen=True)
class Ranked:
    """One id found, with its score and what that is made of."""

    id: str
    score: float
    vector: float
    """Cosine similarity."""
    keyword: float
    """BM25 score."""
    parts: dict[str, float]
    """The terms that `score` is the sum of; those that add nothing are 0."""


def fused(
    vectors: Mapping[str, float],
    keywords: Mapping[str, float],
    *,
    weight: float,
    normalise: Normalise = "range",
    mode: Mode = "fused",
    boosts: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Ranked]:
    """Candidates of both searches, best first; of equal ones the one with the lower id.

    Args:
        vectors: cosine similarity of every candidate, by id. One that only the keywords found needs its own too.
        keywords: BM25 score by id; what is missing counts as 0.
        weight: of the vector score; the rest is BM25's. Mode ``vector`` is weight 1, ``keyword`` is weight 0.
        boosts: by name of the term, what it adds to the score of an id.

    Raises:
        KeyError: an id of `keywords` has no vector score.
    """
    weight = {"fused": weight, "vector": 1.0, "keyword": 0.0}[mode]
    ids = sorted(found(vectors, keywords, mode))
    by_vector = normalised([vectors[key] for key in ids], normalise)
    by_keyword = normalised([keywords.get(key, 0.0) for key in ids], normalise, low=0.0)
    ranked = []
    for key, near, words in zip(ids, by_vector, by_keyword, strict=True):
        extra = {name: values.get(key, 0.0) for name, values in (boosts or {}).items()}
        parts = {"vector": weight * near, "keyword": (1 - weight) * words, **extra}
        ranked.append(Ranked(key, sum(parts.values()), vectors[key], keywords.get(key, 0.0), parts))
    return sorted(ranked, key=lambda item: -item.score)


def found(vectors: Mapping[str, float], keywords: Mapping[str, float], mode: Mode) -> Collection[str]:
    """The ids that a search of this mode may return: by keyword only those with a word in common."""
    match mode:
        case "vector":
            return vectors.keys()
        case "keyword":
            return keywords.keys()
    return vectors.keys() | keywords.keys()


def normalised(values: Sequence[float], how: Normalise, *, low: float | None = None) -> list[float]:
    """Scores of one search as numbers from 0 to 1 that can be added to another's.

    ``range`` stretches from the lowest (or `low`) to the highest, ``top`` divides by the highest, and ``rank`` looks at
    the order alone, as reciprocal rank fusion does. Scores of 0 or less stay 0 in the last two.
    """
    high = max(values, default=0.0)
    match how:
        case "range":
            low = min(values, default=0.0) if low is None else low
            return [(value - low) / (high - low) if high > low else float(value > 0) for value in values]
        case "top":
            return [max(value, 0.0) / high if high > 0 else 0.0 for value in values]
        case "rank":
            order = {value: place for place, value in enumerate(sorted(set(values), reverse=True))}
            return [RANK_OFFSET / (RANK_OFFSET + order[value]) if value > 0 else 0.0 for value in values]

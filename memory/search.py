"""Fusion: what two searches found, as one list. Pure functions, scores in, ranked ids out.

After Structured Distillation for agent memory (2603.13017), which adds vector and keyword scores, each normalised.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.keyword import tokens

Mode = Literal["fused", "vector", "keyword"]
Normalise = Literal["top", "range", "rank"]

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
    normalise: Normalise = "top",
    mode: Mode = "fused",
    boosts: Mapping[str, Mapping[str, float]] | None = None,
    near: int = NEAR,
) -> list[Ranked]:
    """Candidates of both searches, best first; of equal ones the one with the lower id.

    Args:
        vectors: cosine similarity of every candidate, by id. One that only the keywords found needs its own too.
        keywords: BM25 score by id; what is missing counts as 0.
        weight: of the vector score; the rest is BM25's. Mode ``vector`` is weight 1, ``keyword`` is weight 0.
        boosts: by name of the term, what it adds to the score of an id. One that is boosted is a candidate, however
            far down it is in both searches.
        near: candidates that each search contributes.

    Raises:
        KeyError: an id of `keywords` has no vector score.
    """
    weight = {"fused": weight, "vector": 1.0, "keyword": 0.0}[mode]
    ids = sorted(_candidates(vectors, keywords, mode, near, boosts or {}))
    by_vector = normalised([vectors[key] for key in ids], normalise)
    by_keyword = normalised([keywords.get(key, 0.0) for key in ids], normalise, low=0.0)
    ranked = []
    for key, meaning, words in zip(ids, by_vector, by_keyword, strict=True):
        extra = {name: values.get(key, 0.0) for name, values in (boosts or {}).items()}
        parts = {"vector": weight * meaning, "keyword": (1 - weight) * words, **extra}
        ranked.append(Ranked(key, sum(parts.values()), vectors[key], keywords.get(key, 0.0), parts))
    return sorted(ranked, key=lambda item: -item.score)


def _candidates(
    vectors: Mapping[str, float],
    keywords: Mapping[str, float],
    mode: Mode,
    near: int,
    boosts: Mapping[str, Mapping[str, float]],
) -> set[str]:
    """The best of each search that the mode asks for. Scores are normalised over these, so that neither the size of
    memory nor what is far off changes what a weight means."""
    searches = {"fused": (vectors, keywords), "vector": (vectors,), "keyword": (keywords,)}[mode]
    found = {key for scores in searches for key in heapq.nsmallest(near, scores, key=lambda key: (-scores[key], key))}
    boosted = {key for values in boosts.values() for key, value in values.items() if value}
    return found | {key for key in boosted if any(key in scores for scores in searches)}


def asked(text: str) -> list[str]:
    """The words of a query, each once: a page that says "button" ten times does not ask for it ten times."""
    return list(dict.fromkeys(tokens([text])[0]))


def normalised(values: Sequence[float], how: Normalise, *, low: float | None = None) -> list[float]:
    """Scores of one search as numbers from 0 to 1 that can be added to another's.

    ``top`` divides by the highest, so that a score does not depend on which other candidates there are; ``range``
    stretches from the lowest (or `low`) to the highest; ``rank`` looks at the order alone, as reciprocal rank fusion
    does. Scores of 0 or less are 0 in ``top`` and ``rank``.
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

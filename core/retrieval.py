"""How well search finds what a question asks for: graded questions, ways to search, measures with intervals.

After the evaluation in Structured Distillation for agent memory (2603.13017): vectors, keywords and both, over the
distilled text, the verbatim text, and across the two layers. Where we depart from it: grades come from a rule over
episodes (`tutelage.relevance`) instead of from language models, and intervals resample groups of related questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.experience import Experience, Kind
from tutelage.keyword import KeywordIndex, tokens
from tutelage.memory.embedder import Embedder, Vectors
from tutelage.memory.search import Normalise, asked, fused, normalised
from tutelage.relevance import FITS
from tutelage.types import Frozen

Method = Literal["vector", "BM25", "fused"]
Layer = Literal["distilled", "verbatim", "cross-layer"]
METHODS: tuple[Method, ...] = ("vector", "BM25", "fused")
LAYERS: tuple[Layer, ...] = ("distilled", "verbatim", "cross-layer")
MEASURES = ("MRR", "recall@1", "recall@5", "nDCG@10")
RESAMPLES = 2000


class Question(Frozen):
    """A query with its graded answers."""

    id: str
    sort: str
    """What kind of question it is, e.g. ``situation``."""
    group: str
    """Questions of one group are related and are resampled together."""
    half: Literal["tuning", "report"] = "report"
    text: str
    environment: str | None = None
    """Where it is asked; None: anywhere."""
    kinds: tuple[Kind, ...] = ()
    """Kinds that are looked for; empty: all."""
    task: str | None = None
    """Task it was asked in; whatever was drawn from that is no answer."""
    grades: dict[str, int]
    """By id of an experience, above 0 only."""


@dataclass(frozen=True)
class Library:
    """Experiences ready to be searched in every way, with both of their texts; rows are in the order of `items`."""

    items: Sequence[Experience]
    embedder: Embedder
    vectors: Mapping[str, Vectors]
    keywords: Mapping[str, KeywordIndex]

    @classmethod
    def of(cls, items: Sequence[Experience], texts: Mapping[str, Sequence[str]], embedder: Embedder) -> "Library":
        """`texts` has for each layer the text of every item."""
        ids = [item.id for item in items]
        vectors = {layer: embedder.embed(list(lines)) for layer, lines in texts.items()}
        words = {layer: tokens(list(lines)) for layer, lines in texts.items()}
        indexes = {layer: KeywordIndex(dict(zip(ids, lines, strict=True))) for layer, lines in words.items()}
        return cls(items, embedder, vectors, indexes)

    def ranking(
        self, question: Question, method: Method, layer: Layer, *, weight: float, normalise: Normalise
    ) -> list[str]:
        """Ids that may answer the question, best first; by keywords, only those with a word in common."""
        allowed = {item.id: row for row, item in enumerate(self.items) if _asked_for(item, question)}
        near = {name: self._near(question.text, name, allowed) for name in self.vectors}
        words = {name: self._words(question.text, name, allowed) for name in self.keywords}
        if method == "fused":
            one, other = ("distilled", "verbatim") if layer == "cross-layer" else (layer, layer)
            return [item.id for item in fused(near[one], words[other], weight=weight, normalise=normalise)]
        found = near if method == "vector" else words
        scores = found[layer] if layer != "cross-layer" else _added(found["distilled"], found["verbatim"])
        return sorted(scores, key=lambda key: (-scores[key], key))

    def _near(self, text: str, layer: str, allowed: Mapping[str, int]) -> dict[str, float]:
        similar = self.vectors[layer] @ self.embedder.embed([text])[0]
        return {key: float(similar[row]) for key, row in allowed.items()}

    def _words(self, text: str, layer: str, allowed: Mapping[str, int]) -> dict[str, float]:
        return {key: score for key, score in self.keywords[layer].scores(asked(text)).items() if key in allowed}


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Scores of one method over two layers, each as a share of its highest."""
    ids = sorted(one.keys() | other.keys())
    shares = [normalised([layer.get(key, 0.0) for key in ids], "top") for layer in (one, other)]
    return {key: a + b for key, a, b in zip(ids, *shares, strict=True)}


def _asked_for(item: Experience, question: Question) -> bool:
    return (
        question.environment in (None, item.environment)
        and (not question.kinds or item.kind in question.kinds)
        and all(source.task != question.task for source in item.sources)
    )


def measured(ranking: Sequence[str], grades: Mapping[str, int]) -> tuple[float, ...]:
    """The `MEASURES` of one ranking, each from 0 to 1.

    MRR and recall look at what fits (grade 2) alone. Recall@k is the share found of what could stand among k; nDCG
    counts a grade g as 2^g − 1.
    """
    fitting = {key for key, grade in grades.items() if grade >= FITS}
    ranks = [place for place, key in enumerate(ranking, 1) if key in fitting]
    recalls = [sum(rank <= k for rank in ranks) / min(k, len(fitting)) for k in (1, 5)]
    best = _discounted(sorted(grades.values(), reverse=True)[:10])
    gained = _discounted([grades.get(key, 0) for key in ranking[:10]])
    return (1 / ranks[0] if ranks else 0.0, *recalls, gained / best)


def _discounted(found: Sequence[int]) -> float:
    return float(sum((2**grade - 1) / np.log2(place + 1) for place, grade in enumerate(found, 1)))


def interval(values: NDArray[np.float64], groups: Sequence[str], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over questions; whole groups are resampled."""
    names, of = np.unique(np.array(groups), return_inverse=True)
    sums, counts = np.bincount(of, weights=values), np.bincount(of)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def compared(old: NDArray[np.float64], new: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float, float]:
    """Mean gain of `new` over `old`, the same questions in both, with its interval."""
    low, high = interval(new - old, groups)
    return float(np.mean(new - old)), low, high


def shown(values: NDArray[np.float64], groups: Sequence[str]) -> list[str]:
    """Each measure's mean with its interval; `values` has a row per question and a column per measure."""
    found = ((column.mean(), *interval(column, groups)) for column in values.T)
    return [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in found]

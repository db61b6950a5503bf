"""How well the memory of a workspace finds what fits, by questions about the workspace's own episodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product

import numpy as np
from numpy.typing import NDArray

from tutelage.cycle import experience_trajectories
from tutelage.errors import ConfigError
from tutelage.experience import IN_USE, Experience
from tutelage.memory.compound import compound
from tutelage.memory.embedder import embedder
from tutelage.memory.query import Query
from tutelage.memory.search import Normalise
from tutelage.memory.text import SOURCES, gist, verbatim
from tutelage.questions import SEEKING, asked_in, details
from tutelage.retrieval import LAYERS, MEASURES, METHODS, Layer, Library, Method, Question, interval, measured
from tutelage.types import BROKEN, Trajectory
from tutelage.workspace import Workspace

DEPTH = 100
"""Hits that are looked at where memory itself is asked."""
AS_ASKED, AS_RECALLED = "memory query", "recall"

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Benchmark:
    """Questions, and for each way of searching the measures of each question."""

    experiences: int
    questions: Sequence[Question]
    figures: dict[str, Figures]
    """By way of searching; shape (questions, measures)."""

    def rows(self) -> list[dict[str, object]]:
        """One row per way of searching, with each measure's mean and interval, and the MRR of each sort."""
        groups = [item.group for item in self.questions]
        sorts = sorted({item.sort for item in self.questions})
        rows: list[dict[str, object]] = []
        for way, found in self.figures.items():
            row: dict[str, object] = {"search": way}
            for name, column in zip(MEASURES, found.T, strict=True):
                low, high = interval(column, groups)
                row |= {name: float(column.mean()), f"{name} low": low, f"{name} high": high}
            for sort in sorts:
                row[f"MRR: {sort}"] = float(found[[item.sort == sort for item in self.questions], 0].mean())
            rows.append(row)
        return rows


def benchmark(workspace: Workspace, per_family: int, *, seed: int = 0) -> Benchmark:
    """Ask about the train episodes of the workspace; what was drawn from the task a question is about never counts.

    Episodes of tasks that memory learned nothing from come first. All searches see what is in use and nothing else.

    Args:
        per_family: questions of each sort per task family at most.

    Raises:
        ConfigError: there is nothing to ask.
    """
    memory = workspace.memory
    items = memory.experiences(statuses=IN_USE)
    questions = _questions(workspace, items, per_family, seed)
    if not questions:
        raise ConfigError("memory has no answer to any question about this workspace's episodes; `tutelage run` first")
    library = _library(workspace, items)
    weight, normalise = workspace.config.memory.vector_weight, workspace.config.memory.normalise

    def hits(question: Question, family: str | None = None) -> list[str]:
        query = Query(
            question.text,
            question.kinds,
            question.environment,
            exclude_task=question.task,
            prefer_family=family,
            k=DEPTH,
        )
        return [hit.experience.id for hit in memory.search(query)]

    ways: dict[str, Callable[[Question], list[str]]] = {
        AS_ASKED: hits,
        AS_RECALLED: lambda question: hits(question, question.group.partition("/")[2]),
    }
    for method, layer in product(METHODS, LAYERS):
        ways[f"{method}, {layer}"] = partial(
            _ranking, library, method=method, layer=layer, weight=weight, normalise=normalise
        )
    found = {way: np.array([measured(rank(item), item.grades) for item in questions]) for way, rank in ways.items()}
    return Benchmark(len(items), questions, found)


def _ranking(
    library: Library, question: Question, *, method: Method, layer: Layer, weight: float, normalise: Normalise
) -> list[str]:
    return library.ranking(question, method, layer, weight=weight, normalise=normalise)


def _questions(workspace: Workspace, items: Sequence[Experience], per_family: int, seed: int) -> list[Question]:
    episodes = [item for item in experience_trajectories(workspace) if item.ending not in BROKEN and item.steps]
    learned_from = {source.task for item in items for source in item.sources}
    episodes.sort(key=lambda item: item.task.id in learned_from)
    used = {source.trajectory for item in items for source in item.sources}
    learned = [item for item in episodes if item.id in used]
    sorts = (asked_in(sort, items, episodes, per_family, _group) for sort in SEEKING)
    return [*chain(*sorts), *details(items, learned, per_family, _group, seed=seed)]


def _group(environment: str, family: str) -> str:
    return f"{environment}/{family}"


def _library(workspace: Workspace, items: Sequence[Experience]) -> Library:
    record, tenant = workspace.record, workspace.memory.tenant
    cited = {source.trajectory for item in items for source in item.sources[:SOURCES]}
    places = record.trajectory_places(sorted(cited))
    sources: dict[str, Trajectory] = {
        key: record.trajectory(key) for key, (_, owner) in places.items() if owner == tenant
    }
    full = [compound(item, sources.get(item.sources[0].trajectory)) for item in items]
    texts = {"distilled": [gist(item) for item in full], "verbatim": [verbatim(item, sources) for item in full]}
    return Library.of(full, texts, embedder(workspace.config.memory.embedder))

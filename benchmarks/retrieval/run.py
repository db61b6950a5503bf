"""Measure search on the frozen questions: vectors, BM25 and both, over distilled text, verbatim text and across them.

    python benchmarks/retrieval/run.py [--tune]

Figures are of the report half; `--tune` prints what each setting gives on the tuning half, on which the defaults were
chosen. README.md says what the questions are.
"""

import argparse
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tutelage.config import MemoryConfig
from tutelage.experience import Experience
from tutelage.memory.compound import compound
from tutelage.memory.embedder import embedder
from tutelage.memory.search import Normalise
from tutelage.memory.text import gist, verbatim
from tutelage.retrieval import LAYERS, MEASURES, METHODS, Layer, Library, Method, Question, compared, measured, shown
from tutelage.types import Trajectory

HERE = Path(__file__).resolve().parent
FROZEN = {
    "corpus.jsonl.gz": "3aac3525ec509cbf42fbc3a34612f69b90f85fc429aa875fb0f681075ff79a9f",
    "questions.jsonl": "4f9c8f04f5ebe80b45c60073e935e0dd7b8c4b26ba40373ae12369116cd949a4",
}
"""SHA-256 of the data; figures of other data are not comparable."""
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DEFAULT = MemoryConfig()
Figures = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="settings on the tuning half")
    tune = parser.parse_args().tune
    library, questions = loaded()
    questions = [item for item in questions if item.half == ("tuning" if tune else "report")]
    console = Console(width=140)
    console.print(f"{len(library.items)} experiences, {len(questions)} questions of the {questions[0].half} half")
    for table in tuned(library, questions) if tune else reported(library, questions):
        console.print(table)


def loaded() -> tuple[Library, list[Question]]:
    """The frozen data. Exits if they are not what was frozen."""
    for name, digest in FROZEN.items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{name} is not what was frozen")
    with gzip.open(HERE / "corpus.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    episodes = [Trajectory.model_validate(row["trajectory"]) for row in rows if "trajectory" in row]
    sources = {item.id: item for item in episodes}
    bare = [Experience.model_validate(row["experience"]) for row in rows if "experience" in row]
    items = [compound(item, sources[item.sources[0].trajectory]) for item in bare]
    texts = {"distilled": [gist(item) for item in items], "verbatim": [verbatim(item, sources) for item in items]}
    lines = (HERE / "questions.jsonl").read_text().splitlines()
    return Library.of(items, texts, embedder("wordllama")), [Question.model_validate_json(line) for line in lines]


def figures(
    library: Library,
    questions: Sequence[Question],
    method: Method = "fused",
    layer: Layer = "cross-layer",
    weight: float = DEFAULT.vector_weight,
    normalise: Normalise = DEFAULT.normalise,
) -> Figures:
    """Shape (questions, measures)."""
    rankings = (library.ranking(item, method, layer, weight=weight, normalise=normalise) for item in questions)
    return np.array([measured(ranking, item.grades) for ranking, item in zip(rankings, questions, strict=True)])


def reported(library: Library, questions: Sequence[Question]) -> list[Table]:
    groups = [item.group for item in questions]
    ways = {(method, layer): figures(library, questions, method, layer) for method in METHODS for layer in LAYERS}
    every = Table("search", "layer", *MEASURES, title="all questions: mean [95 % interval]")
    for (method, layer), found in ways.items():
        every.add_row(method, layer, *shown(found, groups))
    default = ways["fused", "cross-layer"]
    gains = Table("instead of", "MRR gained by fused, cross-layer", title="paired difference [95 % interval]")
    for (method, layer), found in ways.items():
        if found is not default:
            gain, low, high = compared(found[:, 0], default[:, 0], groups)
            gains.add_row(f"{method}, {layer}", f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    sorts = sorted({item.sort for item in questions})
    by_sort = Table("search", "layer", *sorts, title="MRR by sort of question")
    for (method, layer), found in ways.items():
        by_sort.add_row(method, layer, *(f"{value:.3f}" for value in _means(found, questions, sorts)))
    return [every, gains, by_sort]


def tuned(library: Library, questions: Sequence[Question]) -> list[Table]:
    sorts = sorted({item.sort for item in questions})
    table = Table("normalised by", "weight", *MEASURES, *sorts, title="fused, cross-layer; MRR by sort on the right")
    for how in get_args(Normalise):
        for weight in WEIGHTS:
            found = figures(library, questions, weight=weight, normalise=how)
            values = [*found.mean(axis=0), *_means(found, questions, sorts)]
            table.add_row(how, f"{weight:.1f}", *(f"{value:.3f}" for value in values))
    return [table]


def _means(found: Figures, questions: Sequence[Question], sorts: Sequence[str]) -> list[float]:
    return [float(found[[item.sort == sort for item in questions], 0].mean()) for sort in sorts]


if __name__ == "__main__":
    main()

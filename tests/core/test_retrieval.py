"""The measures by example, and a library that answers each question within its bounds."""

from math import log2

import numpy as np
import pytest

from tutelage.experience import Experience, Skill, Source
from tutelage.memory.embedder import embedder
from tutelage.retrieval import LAYERS, METHODS, Library, Question, compared, interval, measured


def test_measures_by_example() -> None:
    grades = {"a": 2, "b": 2, "c": 1}
    assert measured(["a", "b", "c"], grades) == pytest.approx((1, 1, 1, 1))
    gained = (1 / log2(3) + 3 / log2(4)) / (3 + 3 / log2(3) + 1 / log2(4))
    assert measured(["x", "c", "a"], grades) == pytest.approx((1 / 3, 0, 0.5, gained))
    assert measured([], grades) == (0, 0, 0, 0)
    late = [*(f"x{n}" for n in range(10)), "a"]
    assert measured(late, grades) == pytest.approx((1 / 11, 0, 0, 0))


def test_intervals_resample_groups() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    apart = interval(values, list("abcdef"))
    together = interval(values, list("aaabbb"))
    assert together == (0.0, 1.0)  # two groups: all of one, of the other, or both
    assert 0 < apart[0] < 0.5 < apart[1] < 1
    assert compared(values, values, list("abcdef")) == (0, 0, 0)
    assert compared(np.zeros(6), values, list("abcdef"))[0] == 0.5


def _item(id: str, goal: str, environment: str, task: str) -> Experience:
    content = Skill(preconditions=(), procedure=("done()",), verification=())
    where = (Source(trajectory="t", task=task),)
    return Experience(
        id=id, environment=environment, family="f", goal=goal, content=content, sources=where, author="rules"
    )


def test_every_way_of_searching_keeps_to_environment_kind_and_task() -> None:
    items = [
        _item("own", "copy the red file", "files", "files/f@1"),
        _item("good", "copy the blue file", "files", "files/f@2"),
        _item("far", "delete everything", "files", "files/f@3"),
        _item("elsewhere", "copy the red file", "toy", "toy/f@1"),
    ]
    texts = {name: [item.goal for item in items] for name in ("distilled", "verbatim")}
    library = Library.of(items, texts, embedder("wordllama"))
    asked = Question(id="q", sort="s", group="g", text="copy a file", environment="files", task="files/f@1", grades={})
    for method in METHODS:
        for layer in LAYERS:
            found = library.ranking(asked, method, layer, weight=0.5, normalise="top")
            assert found == (["good"] if method == "BM25" else ["good", "far"])
    rules = asked.model_copy(update={"kinds": ("guardrail",)})
    assert library.ranking(rules, "fused", "cross-layer", weight=0.5, normalise="top") == []

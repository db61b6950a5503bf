"""The questions: a fixed list per family and split, each with its answer and the passages that hold it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from tutelage.environments.research.world import SEED, World, world
from tutelage.types import Split

COUNTS = {Split.TRAIN: 400, Split.VALIDATION: 100, Split.TEST: 100}
"""Questions per family at most; there are only so many rivers and pairs."""
TOLERANCE = 0.051
"""Answers that are numbers are whole or rounded to one decimal; an unrounded one is right too."""
_PATIENCE = 500
"""Draws without a new question before a family is held to be exhausted."""


@dataclass(frozen=True)
class Question:
    """A question whose answer follows from what `sources`, titles of passages, say together."""

    text: str
    answer: str
    sources: frozenset[str]

    def accepts(self, value: str) -> bool:
        """Whether `value` is the answer: numbers within `TOLERANCE`, text up to case, blanks and a full stop."""
        wanted = _number(self.answer)
        if wanted is None:
            return _plain(value) == _plain(self.answer)
        found = _number(value)
        return found is not None and abs(found - wanted) <= TOLERANCE


def _number(text: str) -> float | None:
    """The number that `text` is, commas between thousands allowed."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .\"'").lower()


def _population_sum(world: World, split: Split, rng: random.Random) -> Question:
    a, b = rng.sample(world.towns[split], 2)
    text = f"What is the combined population of the towns {a.name} and {b.name}?"
    return Question(text, str(a.population + b.population), frozenset({a.name, b.name}))


def _densest_town(world: World, split: Split, rng: random.Random) -> Question:
    towns = rng.sample(world.towns[split], 3)
    best = max(towns, key=lambda town: town.population / town.area)
    first, second, third = (town.name for town in towns)
    text = f"Which of the towns {first}, {second} and {third} has the most people per square km?"
    return Question(text, best.name, frozenset({first, second, third}))


def _founding_gap(world: World, split: Split, rng: random.Random) -> Question:
    led, other = rng.sample(world.companies[split], 2)
    text = (
        f"How many years lie between the founding of {other.name}"
        f" and the founding of the company that {led.leader} leads?"
    )
    return Question(text, str(abs(led.founded - other.founded)), frozenset({led.leader, led.name, other.name}))


def _birth_gap(world: World, split: Split, rng: random.Random) -> Question:
    a, b = rng.sample(world.companies[split], 2)
    text = f"How many days lie between the births of the leaders of {a.name} and {b.name}?"
    return Question(text, str(abs((a.born - b.born).days)), frozenset({a.leader, b.leader}))


def _bridges(world: World, split: Split, rng: random.Random) -> Question:
    river = rng.choice(world.rivers[split])
    kind, measure = rng.choice(("mean", "total")), rng.choice(("height", "length"))
    values = [bridge.height if measure == "height" else bridge.length for bridge in river.bridges]
    value = round(sum(values) / len(values), 1) if kind == "mean" else sum(values)
    rounding = " Round to one decimal." if kind == "mean" else ""
    text = f"What is the {kind} {measure} in m of the bridges over the {river.name}?{rounding}"
    return Question(text, str(value), frozenset({river.name, *(bridge.name for bridge in river.bridges)}))


FAMILIES: dict[str, Callable[[World, Split, random.Random], Question]] = {
    "birth-gap": _birth_gap,
    "bridges": _bridges,
    "densest-town": _densest_town,
    "founding-gap": _founding_gap,
    "population-sum": _population_sum,
}


@lru_cache(maxsize=64)
def questions(family: str, split: Split) -> tuple[Question, ...]:
    """All questions of a family in a split; no two ask the same, in whatever order."""
    return tuple(islice(_distinct(family, split), COUNTS[split]))


def _distinct(family: str, split: Split) -> Iterator[Question]:
    rng = random.Random(f"{SEED} {family} {split}")
    seen: set[frozenset[str]] = set()
    misses = 0
    while misses < _PATIENCE:
        question = FAMILIES[family](world(), split, rng)
        words = frozenset(question.text.replace(",", "").split())
        misses = misses + 1 if words in seen else 0
        if words not in seen:
            seen.add(words)
            yield question

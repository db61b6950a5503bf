"""The expert for the research environment: it reads the passages found so far, looks up what they lack,
lets Python compute, and answers with what Python printed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import permutations

from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.registry import NoExpert
from tutelage.tools import write_call

_PASSAGE = re.compile(r"\[\d+\] ([^:\n]+): (.*)")
_PRINTED = re.compile(r"Printed: (.*)", re.DOTALL)
_CLOSE = 0.051
"""How far a printed number may be from the expert's own, which is rounded to one decimal."""


class _Unknown(Exception):
    """Some passages are missing; its arguments are the names to look up, in any order."""


@dataclass(frozen=True)
class _Plan:
    """How to compute the answer from operands whose order is free."""

    value: str
    operands: list[str]
    code: Callable[..., str]

    def calls(self) -> tuple[str, ...]:
        orders = permutations(self.operands)
        return tuple(dict.fromkeys(write_call("python", {"code": self.code(*order)}) for order in orders))


class _Facts:
    """What the passages seen so far say."""

    def __init__(self, view: View) -> None:
        texts = [text for text in view.observations if not _PRINTED.match(text)]
        self.passages: dict[str, str] = dict(found for text in texts for found in _PASSAGE.findall(text))

    def of(self, name: str, pattern: str) -> str:
        """What `pattern` finds in the passage called `name`.

        Raises:
            _Unknown: it was not found yet.
        """
        found = re.search(pattern, self.passages.get(name, ""))
        if found is None:
            raise _Unknown(name)
        return found[1]

    def leader(self, company: str) -> str:
        """Day of birth of the company's leader, whose passage a search for the company finds."""
        for text in self.passages.values():
            born = re.search(r"born on (\d{4}-\d\d-\d\d)", text)
            if born and re.search(rf"\bleads {re.escape(company)}\b", text):
                return born[1]
        raise _Unknown(company)

    def each(self, names: list[str], read: Callable[[str], str]) -> list[str]:
        """`read` of all names.

        Raises:
            _Unknown: naming all that are missing, not just the first.
        """
        values: list[str] = []
        missing: list[str] = []
        for name in names:
            try:
                values.append(read(name))
            except _Unknown as unknown:
                missing += unknown.args
        if missing:
            raise _Unknown(*dict.fromkeys(missing))
        return values


def _population_sum(facts: _Facts, a: str, b: str) -> _Plan:
    people = facts.each([a, b], lambda name: facts.of(name, r"(\d+) people"))
    return _Plan(str(sum(map(int, people))), people, "print({} + {})".format)


def _densest_town(facts: _Facts, a: str, b: str, c: str) -> _Plan:
    def ratio(name: str) -> str:
        return " / ".join(facts.of(name, pattern) for pattern in (r"(\d+) people", r"(\d+) square km"))

    names = [a, b, c]
    ratios = facts.each(names, ratio)
    best = max(zip(names, ratios, strict=True), key=lambda pair: _ratio(pair[1]))[0]
    pairs = [f"({ratio}, '{name}')" for name, ratio in zip(names, ratios, strict=True)]
    return _Plan(best, pairs, "print(max({}, {}, {})[1])".format)


def _founding_gap(facts: _Facts, other: str, leader: str) -> _Plan:
    def year(name: str) -> str:
        company = facts.of(leader, r"leads (\w+)") if name == leader else name
        return facts.of(company, r"founded in (\d+)")

    years = facts.each([leader, other], year)
    return _Plan(str(abs(int(years[0]) - int(years[1]))), years, "print(abs({} - {}))".format)


def _birth_gap(facts: _Facts, a: str, b: str) -> _Plan:
    born = facts.each([a, b], facts.leader)
    days = abs(date.fromisoformat(born[0]) - date.fromisoformat(born[1])).days
    write = "from datetime import date; day = date.fromisoformat; print(abs(day('{}') - day('{}')).days)".format
    return _Plan(str(days), born, write)


def _bridges(facts: _Facts, kind: str, measure: str, river: str) -> _Plan:
    names = re.split(r", | and ", facts.of(river, r"Its bridges are ([^.]+)\."))
    unit = "high" if measure == "height" else "long"
    values = facts.each(names, lambda name: facts.of(name, rf"(\d+) m {unit}"))
    total = sum(map(int, values))
    if kind == "total":
        return _Plan(str(total), values, lambda *each: f"print({' + '.join(each)})")
    mean = str(round(total / len(values), 1))
    return _Plan(mean, values, lambda *each: f"print(round(({' + '.join(each)}) / {len(each)}, 1))")


_GOALS: dict[str, Callable[..., _Plan]] = {
    r"What is the combined population of the towns (?P<a>\w+) and (?P<b>\w+)\?": _population_sum,
    r"Which of the towns (?P<a>\w+), (?P<b>\w+) and (?P<c>\w+) has the most people per square km\?": _densest_town,
    r"How many years lie between the founding of (?P<other>\w+)"
    r" and the founding of the company that (?P<leader>[\w ]+) leads\?": _founding_gap,
    r"How many days lie between the births of the leaders of (?P<a>\w+) and (?P<b>\w+)\?": _birth_gap,
    r"What is the (?P<kind>mean|total) (?P<measure>height|length) in m of the bridges over the (?P<river>\w+)\?"
    r"(?: Round to one decimal\.)?": _bridges,
}

COVERED: tuple[str, ...] = ("birth-gap", "bridges", "densest-town", "founding-gap", "population-sum")
"""Families it claims to solve."""


def advise(view: View) -> Advice:
    """What to do now: look up what is missing, in any order, else compute, else answer.

    Raises:
        NoExpert: another kind of question.
    """
    goal = " ".join(view.goal.split())
    for pattern, plan in _GOALS.items():
        match = re.fullmatch(pattern, goal)
        if match is None:
            continue
        try:
            planned = plan(_Facts(view), **match.groupdict())
        except _Unknown as unknown:
            return Advice(tuple(write_call("search", {"query": name}) for name in unknown.args))
        printed = _printed(view, planned.value)
        return Advice((write_call("answer", {"value": printed}),) if printed else planned.calls())
    raise NoExpert(f"the scripted expert does not know this goal: {goal[:200]!r}")


def _printed(view: View, value: str) -> str:
    """The newest output that is the value sought, as it was printed; empty if there is none."""
    for observation in reversed(view.observations):
        output = _PRINTED.fullmatch(observation)
        if output and _same(output[1], value):
            return output[1]
    return ""


def _same(output: str, value: str) -> bool:
    try:
        return abs(float(output) - float(value)) <= _CLOSE
    except ValueError:
        return output == value


def _ratio(text: str) -> float:
    people, area = text.split(" / ")
    return int(people) / int(area)

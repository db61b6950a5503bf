"""An episode looked at again, step by step, with what the scripted expert says about it."""

from collections.abc import Iterable

from tutelage.agents.experts import View, acceptable
from tutelage.agents.requests import Request
from tutelage.types import Verdict

CANNOT_TELL = "There is no scripted expert for this environment, so it cannot tell."
UNKNOWN_GOAL = "The scripted expert does not know this goal, so it cannot tell."
"""Reasons of verdicts that are none."""


def tells(verdict: Verdict) -> bool:
    """Whether the judge could tell at all; the scripted one cannot where there is no expert."""
    return verdict.reason not in (CANNOT_TELL, UNKNOWN_GOAL)


def mistakes(request: Request) -> list[int]:
    """Steps that the expert would not have taken.

    Raises:
        NoExpert: it does not know the goal.
        UnknownName: there is none for this environment.
    """
    return [
        index
        for index, turn in enumerate(request.turns)
        if not acceptable(request.environment, view(request, index), turn.action)
    ]


def view(request: Request, index: int) -> View:
    """What was to be seen before step `index`."""
    turns = request.turns
    return View(
        goal=request.goal,
        observations=tuple(turn.observation for turn in turns[: index + 1]),
        actions=tuple(turn.action for turn in turns[:index]),
    )


def distinct(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number > 1 else "")

"""What the experts for tools share: which past calls took effect, and goals by their wording."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.registry import NoExpert
from tutelage.calls import CallError, parse_call
from tutelage.tools import write_call


@dataclass(frozen=True)
class Made:
    """A past call and the observation that followed it."""

    name: str
    arguments: dict[str, Any]
    before: str
    result: str


def calls(view: View) -> Iterator[Made]:
    """The well-formed past calls in order.

    One that was refused or blocked left the observation as it was; so may have one that took effect.
    """
    for action, before, result in zip(view.actions, view.observations, view.observations[1:], strict=False):
        try:
            call = parse_call(action)
        except CallError:
            continue
        arguments = call.args[0] if call.args else {}
        if len(call.args) <= 1 and isinstance(arguments, dict):
            yield Made(call.name, arguments, before, result)


def call(name: str, **arguments: Any) -> str:
    return write_call(name, arguments) if arguments else f"{name}()"


Answer = Callable[..., Advice]


class Goals:
    """Answers by the wording of goals, tried in the order of their definition."""

    def __init__(self) -> None:
        self._answers: list[tuple[re.Pattern[str], Answer]] = []
        self.families: set[str] = set()

    def goal(self, *wordings: str, families: str) -> Callable[[Answer], Answer]:
        """Register a function of the view; a wording's named groups are its keyword arguments.

        Args:
            wordings: patterns of which one must match the whole goal.
            families: the families it claims, separated by blanks; for the record, not for dispatch.
        """

        def register(answer: Answer) -> Answer:
            self._answers += [(re.compile(wording), answer) for wording in wordings]
            self.families |= set(families.split())
            return answer

        return register

    def advise(self, view: View) -> Advice:
        """What to do now.

        Raises:
            NoExpert: no wording matches.
        """
        goal = " ".join(view.goal.split())
        for pattern, answer in self._answers:
            match = pattern.fullmatch(goal)
            if match:
                return answer(view, **match.groupdict())
        raise NoExpert(f"the scripted expert does not know this goal: {goal[:200]!r}")

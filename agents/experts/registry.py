"""Which scripted expert answers which goal: one declarative table, filled by `expert`."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tutelage.agents.experts.page import Advice, NotOnPage, Page, View, wait
from tutelage.errors import TutelageError


class NoExpert(TutelageError):
    """The scripted expert does not know this goal."""


Answer = Callable[..., Advice]
Condition = Callable[[Page], bool]


@dataclass(frozen=True)
class Rule:
    pattern: re.Pattern[str]
    when: Condition | None
    answer: Answer


class Experts:
    """The rules of one environment, tried in the order of their definition."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.families: list[str] = []

    def expert(self, pattern: str, *, families: str, when: Condition | None = None) -> Callable[[Answer], Answer]:
        """Register a function of the page; the pattern's named groups are its keyword arguments.

        Args:
            pattern: must match the whole goal.
            families: the families it claims, separated by blanks; for the record, not for dispatch.
            when: what else must hold of the page.
        """

        def register(answer: Answer) -> Answer:
            self.rules.append(Rule(re.compile(pattern, re.DOTALL), when, answer))
            self.families += [family for family in families.split() if family not in self.families]
            return answer

        return register

    def advise(self, view: View) -> Advice:
        """What to do now; where the page does not (yet) show what is needed, wait.

        Raises:
            NoExpert: no rule matches.
        """
        page = Page(view)
        goal = " ".join(view.goal.split())
        for rule in self.rules:
            match = rule.pattern.fullmatch(goal)
            if match and (rule.when is None or rule.when(page)):
                try:
                    return rule.answer(page, **match.groupdict())
                except (NotOnPage, LookupError):  # or the page has no third field, no such row, …
                    return wait()
        raise NoExpert(f"the scripted expert does not know this goal: {goal[:200]!r}")


def has(role: str, count: int = 1) -> Condition:
    """The page shows at least `count` elements of this role."""
    return lambda page: len(page.all(role)) >= count

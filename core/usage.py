"""What LLM calls cost, per role, and the hard limits on it."""

from collections.abc import Callable, Mapping
from functools import reduce
from threading import Lock
from typing import Any

from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent
from tutelage.types import Frozen

Sink = Callable[[str, str, dict[str, Any]], object]
"""Where totals are kept: takes kind, key and body, as `Record.put` does."""


class Usage(Frozen):
    """Requests sent and what they cost."""

    calls: int = 0
    """Requests sent, retries and repairs included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    """Answers of models without a known price; they count as 0 dollars."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})


class UsageLog:
    """Totals per role, shared by all models of a run; safe to use from many threads."""

    def __init__(self, sink: Sink | None = None, before: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """
        Args:
            sink: is given ``("usage", role, totals)`` by `save`.
            before: totals by role to go on from, as an earlier log saved them.
        """
        self._sink = sink
        self._lock = Lock()
        self._roles = {role: Usage.model_validate(body) for role, body in (before or {}).items()}

    def roles(self) -> dict[str, Usage]:
        with self._lock:
            return dict(self._roles)

    def total(self) -> Usage:
        return reduce(Usage.plus, self.roles().values(), Usage())

    def reserve(self, role: str, budget: BudgetConfig) -> None:
        """Count one call that is about to be made.

        Raises:
            BudgetSpent: a limit is reached; nothing is counted. Calls already under way still finish, so
                tokens and dollars may end above their limit by what those cost.
        """
        with self._lock:
            spent = reduce(Usage.plus, self._roles.values(), Usage())
            limits = (("calls", spent.calls), ("tokens", spent.tokens), ("dollars", spent.dollars))
            for name, value in limits:
                limit = getattr(budget, name)
                if limit and value >= limit:
                    raise BudgetSpent(f"LLM budget spent: {value:g} of {limit:g} {name}; raise budget.{name} to go on")
            self._roles[role] = self._roles.get(role, Usage()).plus(Usage(calls=1))

    def add(self, role: str, usage: Usage) -> None:
        """Add what an answer cost."""
        with self._lock:
            self._roles[role] = self._roles.get(role, Usage()).plus(usage)

    def save(self, role: str) -> None:
        """Hand the role's totals to the sink."""
        if self._sink is not None and (usage := self.roles().get(role)):
            self._sink("usage", role, usage.model_dump())

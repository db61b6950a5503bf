"""What LLM calls cost, per role and per cycle, and the hard limits on it."""

import time
from collections.abc import Callable, Mapping
from functools import reduce
from threading import Lock
from typing import Any

from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent
from tutelage.types import Frozen

Sink = Callable[[str, str, dict[str, Any]], object]
"""Where totals are kept: takes kind, key and body, as `Record.put` does."""

TOTAL, BY_CYCLE = "usage", "usage-cycle"
"""Kinds of documents: totals by role, and totals by ``CYCLE/ROLE``."""


class Usage(Frozen):
    """Requests sent and what they cost."""

    calls: int = 0
    """Requests sent, retries and repairs included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that the provider had in its cache."""
    dollars: float = 0.0
    unpriced: int = 0
    """Answers of models without a known price; they count as 0 dollars."""
    replayed: int = 0
    """Attempts answered from a cassette. They were not sent and cost nothing: all other figures leave them out."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    def minus(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in type(self).model_fields})

    def __str__(self) -> str:
        """The figures in a few words, for one line."""
        known = money(self.dollars) if self.dollars or not self.unpriced else "no known price"
        partly = f" and {self.unpriced} answers without a known price" if self.dollars and self.unpriced else ""
        replayed = f", {self.replayed:,} replayed" if self.replayed else ""
        return f"{self.calls:,} calls, {self.tokens:,} tokens, {known}{partly}{replayed}"


class UsageLog:
    """Totals per role, shared by all models of a run; safe to use from many threads."""

    def __init__(self, sink: Sink | None = None, before: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """
        Args:
            sink: is given ``("usage", role, totals)`` by `save`, and ``("usage-cycle", "CYCLE/ROLE", totals)``
                while a cycle runs; from any thread, one at a time.
            before: totals by role to go on from, as an earlier log saved them.
        """
        self._sink = sink
        self._lock, self._saving = Lock(), Lock()
        self._roles = _read(before or {})
        self._cycle: int | None = None
        self._in_cycle: dict[str, Usage] = {}
        self._began: float | None = None

    def begin_cycle(self, cycle: int, before: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Count what follows under this cycle too.

        Args:
            before: documents by ``CYCLE/ROLE`` as earlier logs saved them; this cycle goes on from its own.
        """
        mine = {key.partition("/")[2]: body for key, body in (before or {}).items() if key.startswith(f"{cycle}/")}
        with self._lock:
            self._cycle, self._in_cycle = cycle, _read(mine)

    def end_cycle(self) -> None:
        """What follows belongs to no cycle."""
        with self._lock:
            self._cycle, self._in_cycle = None, {}

    def roles(self) -> dict[str, Usage]:
        with self._lock:
            return dict(self._roles)

    def total(self) -> Usage:
        return in_all(self.roles())

    def reserve(self, role: str, budget: BudgetConfig) -> None:
        """Count one call that is about to be made.

        Raises:
            BudgetSpent: a limit is reached; nothing is counted. Calls already under way still finish, so
                tokens, dollars and seconds may end above their limit by what those take.
        """
        with self._lock:
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            spent = in_all(self._roles)
            values = {"calls": spent.calls, "tokens": spent.tokens, "dollars": spent.dollars}
            for name, value in {**values, "seconds": now - self._began}.items():
                limit = getattr(budget, name)
                if limit and value >= limit:
                    raise BudgetSpent(_stopped(name, value, limit, spent))
            self._add(role, Usage(calls=1))

    def add(self, role: str, usage: Usage) -> None:
        """Add what an answer cost."""
        with self._lock:
            self._add(role, usage)

    def save(self, role: str) -> None:
        """Hand the role's totals to the sink."""
        with self._saving:  # or else older totals might come after newer ones
            with self._lock:
                total, cycle, part = self._roles.get(role), self._cycle, self._in_cycle.get(role)
            if self._sink is not None and total:
                self._sink(TOTAL, role, total.model_dump())
                if cycle is not None and part:
                    self._sink(BY_CYCLE, f"{cycle}/{role}", part.model_dump())

    def _add(self, role: str, usage: Usage) -> None:
        self._roles[role] = self._roles.get(role, Usage()).plus(usage)
        if self._cycle is not None:
            self._in_cycle[role] = self._in_cycle.get(role, Usage()).plus(usage)


def in_all(roles: Mapping[str, Usage]) -> Usage:
    """The sum over roles."""
    return reduce(Usage.plus, roles.values(), Usage())


def money(dollars: float) -> str:
    """Dollars for readers; small amounts keep their first digits."""
    if dollars == 0 or dollars >= 1:
        return f"${dollars:,.2f}"
    return f"${dollars:.2g}" if dollars >= 0.0001 else "under $0.0001"


def _read(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Usage]:
    return {role: Usage.model_validate(body) for role, body in bodies.items()}


def _stopped(name: str, value: float, limit: float, spent: Usage) -> str:
    """What was spent, what is saved, how to go on; one line."""
    higher = f"raise budget.{name}, e.g. with -s budget.{name}={2 * limit:g}, and "
    return (
        f"LLM budget spent: {value:.6g} of {limit:g} {name} (in this workspace so far: {spent}). "
        f"What is finished is saved; {'' if name == 'seconds' else higher}give the same command again to go on"
    )

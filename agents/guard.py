"""Guardrails, checked in code before an action is executed.

A guardrail forbids an action if each of its triggers holds on the observation and its `forbidden`
pattern covers the action's meaning. A trigger holds if it matches some line; with ``not`` before it, if
it matches none. A guardrail with an unusable pattern forbids nothing.

Texts over `tutelage.patterns.MAX_TEXT` match nothing, unless a caller is `careful`: then they are looked at too, and
where that cannot be finished, the guardrail forbids.
"""

from collections.abc import Iterable

from tutelage.experience import Experience, Guardrail
from tutelage.patterns import fits, matches, problem

NEGATION = "not "


def forbids(
    guardrails: Iterable[Experience], meaning: str, observation: str, goal: str, *, careful: bool = False
) -> Experience | None:
    """The first guardrail that forbids the action, or None.

    Args:
        guardrails: experiences; those of another kind are passed over.
        meaning: the action with references resolved; empty (malformed) is never blocked, because the
            grammar refuses it anyway and says why.
    """
    if not meaning:
        return None
    for experience in guardrails:
        rule = experience.content
        if isinstance(rule, Guardrail) and covers(rule, meaning, observation, goal, careful=careful):
            return experience
    return None


def covers(rule: Guardrail, meaning: str, observation: str, goal: str, *, careful: bool = False) -> bool:
    """Whether `rule` forbids this action here."""
    if any(problem(pattern.removeprefix(NEGATION)) for pattern in (*rule.trigger, rule.forbidden)):
        return False
    look = fits if careful else matches
    covered = look(rule.forbidden, meaning, goal) is not False
    return covered and triggered(rule.trigger, observation, goal, careful=careful)


def triggered(trigger: Iterable[str], observation: str, goal: str, *, careful: bool = False) -> bool:
    """Whether every line pattern holds on `observation`."""
    lines = [line.strip() for line in observation.splitlines()]
    return all(_holds(pattern, lines, goal, careful=careful) for pattern in trigger)


def _holds(pattern: str, lines: Iterable[str], goal: str, *, careful: bool) -> bool:
    inner, negated = pattern.removeprefix(NEGATION), pattern.startswith(NEGATION)
    found = (True,) if negated else (True, None)  # what cannot be told is no reason to let an action through
    look = fits if careful else matches
    return any(look(inner, line, goal) in found for line in lines) is not negated

"""Guardrails, checked in code before an action is executed.

A guardrail forbids an action if each of its triggers holds on the observation and its `forbidden`
pattern covers the action's meaning. A trigger holds if it matches some line; with ``not`` before it, if
it matches none. A guardrail with an unusable pattern forbids nothing.
"""

from collections.abc import Iterable

from tutelage.experience import Experience, Guardrail
from tutelage.patterns import matches, problem

NEGATION = "not "


def forbids(guardrails: Iterable[Experience], meaning: str, observation: str, goal: str) -> Experience | None:
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
        if isinstance(rule, Guardrail) and covers(rule, meaning, observation, goal):
            return experience
    return None


def covers(rule: Guardrail, meaning: str, observation: str, goal: str) -> bool:
    """Whether `rule` forbids this action here."""
    if any(problem(pattern.removeprefix(NEGATION)) for pattern in (*rule.trigger, rule.forbidden)):
        return False
    return matches(rule.forbidden, meaning, goal) and triggered(rule.trigger, observation, goal)


def triggered(trigger: Iterable[str], observation: str, goal: str) -> bool:
    """Whether every line pattern holds on `observation`."""
    lines = [line.strip() for line in observation.splitlines()]
    return all(
        any(matches(pattern.removeprefix(NEGATION), line, goal) for line in lines) is not pattern.startswith(NEGATION)
        for pattern in trigger
    )

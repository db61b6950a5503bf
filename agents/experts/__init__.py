"""Scripted experts: demonstrators that see only what a language model would see.

`expert_for` gives one callable per environment; it decides by the goal's text and the page, never by
the family's name, which is not in the prompt.
"""

from collections.abc import Callable

from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.registry import NoExpert
from tutelage.calls import Call, CallError, parse_call
from tutelage.registry import resolve

BUILTIN = {
    "files": "tutelage.agents.experts.files:advise",
    "mcp": "tutelage.agents.experts.mcp:advise",
    "miniwob": "tutelage.agents.experts.miniwob:advise",
    "research": "tutelage.agents.experts.research:advise",
    "sqlite": "tutelage.agents.experts.sqlite:advise",
    "toy": "tutelage.agents.experts.toy:advise",
}

COVERED = {
    "files": "tutelage.agents.experts.files:COVERED",
    "mcp": "tutelage.agents.experts.mcp:COVERED",
    "miniwob": "tutelage.agents.experts.miniwob:COVERED",
    "research": "tutelage.agents.experts.research:COVERED",
    "sqlite": "tutelage.agents.experts.sqlite:COVERED",
    "toy": "tutelage.agents.experts.toy:COVERED",
}

Expert = Callable[[View], tuple[str, str]]
"""From what is seen to (thought, action)."""

__all__ = [
    "Advice",
    "Expert",
    "NoExpert",
    "View",
    "acceptable",
    "advise",
    "covered_families",
    "expert_for",
    "expert_names",
]


def advise(environment: str, view: View) -> Advice:
    """All actions the expert holds equally good here.

    Raises:
        UnknownName: no expert for this environment.
        NoExpert: the expert does not know this goal.
    """
    answer: Advice = resolve(environment, BUILTIN, what="scripted expert")(view)
    return answer


def expert_for(environment: str) -> Expert:
    """The scripted expert of an environment; its answers raise `NoExpert` for a goal it does not know.

    Raises:
        UnknownName: no expert for this environment.
    """
    answer = resolve(environment, BUILTIN, what="scripted expert")

    def expert(view: View) -> tuple[str, str]:
        advice = answer(view)
        return advice.thought, advice.actions[0]

    return expert


def expert_names() -> tuple[str, ...]:
    """The environments that have a scripted expert."""
    return tuple(BUILTIN)


def covered_families(environment: str) -> tuple[str, ...]:
    """The task families that the scripted expert of an environment claims to solve.

    Raises:
        UnknownName: there is no expert for it.
    """
    covered: tuple[str, ...] = resolve(environment, COVERED, what="scripted expert")
    return covered


def acceptable(environment: str, view: View, action: str) -> bool:
    """Whether the expert would also take `action` here, up to choices whose order is free."""
    good = advise(environment, view).actions
    try:
        call = _plain(parse_call(action))
    except CallError:
        return False
    return any(_plain(parse_call(other)) == call for other in good)


def _plain(call: Call) -> Call:
    """``done({})`` is ``done()``."""
    return Call(call.name, ()) if call.args == ({},) else call

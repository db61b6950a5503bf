"""The one call grammar of all environments: ``click("r3")``, ``fill("r2", "text")``, ``tool({...})``.

A call is a name and JSON arguments in parentheses, and nothing else. It is parsed, never evaluated.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from tutelage.errors import TutelageError

MAX_LENGTH = 8000
"""Characters; anything longer is not an action but a text."""
MAX_DEPTH = 32
"""Objects and lists inside each other; all that handles a call may then recurse."""

_SHAPE = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\((.*)\)\Z", re.DOTALL)


class CallError(TutelageError):
    """The text is not a call; the message tells the agent what to write instead."""


@dataclass(frozen=True)
class Call:
    """A parsed call: a name and its JSON arguments."""

    name: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(json.dumps(arg, ensure_ascii=False) for arg in self.args)})"


def parse_call(text: str, example: str = 'click("r1")') -> Call:
    """Parse exactly one call; `example` shows the agent how one is written where this is none.

    Raises:
        CallError: with a message fit to be shown to the agent.
    """
    text = text.strip()
    if not text:
        raise CallError("The reply is empty; write one action.")
    if len(text) > MAX_LENGTH:
        raise CallError(f"The action has {len(text)} characters; the limit is {MAX_LENGTH}.")
    match = _SHAPE.match(text)
    if match is None:
        raise CallError(f"{_quote(text)} is not an action; write one call such as {example}.")
    name, inside = match.groups()
    try:
        args = json.loads(f"[{inside}]", parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CallError(
            f"The arguments of {_quote(text)} are not JSON; put text in double quotes, as in {example}."
        ) from error
    if too_deep(args):
        raise CallError(f"The arguments of {_quote(text)} are nested too deeply.")
    return Call(name, tuple(args))


def too_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH`, counting a call's list of arguments."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")

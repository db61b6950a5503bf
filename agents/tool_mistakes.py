"""Ways to err in calls to tools: a wrong value, another tool, an end too early, the same call again."""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tutelage.calls import Call, CallError, parse_call
from tutelage.conversation import read_turn, split_reply
from tutelage.patterns import goal_values
from tutelage.types import Context, Tool

ENDINGS = ("done", "answer", "end_turn", "finish", "submit")
"""Names of tools that end a task or hand it over."""
MAX_VALUE = 40
"""Characters of a piece of a result that may be taken for a value."""

_CELLS = re.compile(r"\s*[|,;\t]\s*|: +")


class ToolSituation:
    """What a context shows of an episode with tools: goal, results, tools and the previous call."""

    def __init__(self, context: Context) -> None:
        turns = [read_turn(message.content) for message in context.messages if message.role == "user"]
        replies = [message.content for message in context.messages if message.role == "assistant"]
        self.goal = turns[0][0] or ""
        self.tools = context.tools
        self.previous = split_reply(replies[-1])[1] if replies else ""
        self.values = _values(self.goal, [observation for _, observation in turns])
        """Everything visible that may be an argument."""

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


Slip = Callable[[Call, ToolSituation, Random], Call | None]


def arguments_of(call: Call) -> dict[str, Any] | None:
    """The arguments by name; None if the call is not one to a tool."""
    arguments = call.args[0] if call.args else {}
    return arguments if isinstance(arguments, dict) and len(call.args) < 2 else None


def wrong_value(call: Call, situation: ToolSituation, random: Random) -> Call | None:
    """One argument with another value from the conversation, or with a slip of the pen."""
    arguments = arguments_of(call)
    if not arguments:
        return None
    key = random.choice(sorted(arguments))
    value = _other_value(arguments[key], situation.values, random)
    return None if value is None else Call(call.name, ({**arguments, key: value},))


def wrong_tool(call: Call, situation: ToolSituation, random: Random) -> Call | None:
    """The same arguments for another tool that takes them."""
    arguments = arguments_of(call)
    if not arguments:
        return None
    others = [
        tool.name
        for tool in situation.tools
        if tool.name != call.name and _required(tool) <= set(arguments) <= set(_properties(tool))
    ]
    return Call(random.choice(others), (arguments,)) if others else None


def missing_argument(call: Call, situation: ToolSituation, random: Random) -> Call | None:
    """The call with one argument left out."""
    arguments = arguments_of(call)
    if not arguments:
        return None
    left_out = random.choice(sorted(arguments))
    return Call(call.name, ({key: value for key, value in arguments.items() if key != left_out},))


def premature_end(call: Call, situation: ToolSituation, random: Random) -> Call | None:
    """A call to what ends the task, while something else is still due."""
    endings = [tool for tool in situation.tools if tool.name in ENDINGS]
    if not endings or call.name in ENDINGS:
        return None
    tool = random.choice(endings)
    arguments = {key: _made_up(_properties(tool)[key], situation.values, random) for key in _ordered_required(tool)}
    return Call(tool.name, (arguments,) if arguments else ())


def repeated_call(call: Call, situation: ToolSituation, random: Random) -> Call | None:
    """The previous call once more."""
    try:
        return parse_call(situation.previous)
    except CallError:
        return None


SLIPS: dict[Slip, int] = {wrong_value: 4, premature_end: 4, wrong_tool: 3, repeated_call: 2, missing_argument: 1}
"""Ways to err with their weights; those that the schema catches teach least."""


def _values(goal: str, observations: Sequence[str]) -> list[str]:
    """The values that the goal names, and the short pieces of all results; each once, in order."""
    found = [value for _, value in goal_values(goal)]
    for observation in observations:
        for line in observation.splitlines():
            found += [value for _, value in goal_values(line)]
            found += [piece for piece in _CELLS.split(line.strip()) if piece.count(" ") < 3]
    return [value for value in dict.fromkeys(found) if value.strip() and len(value) <= MAX_VALUE]


def _other_value(value: Any, visible: Sequence[str], random: Random) -> Any:
    """A value of the same type, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + random.choice([-1, 1])
    if isinstance(value, list) and value:
        at = random.randrange(len(value))
        other = _other_value(value[at], visible, random)
        return value[:at] + value[at + 1 :] if other is None else [*value[:at], other, *value[at + 1 :]]
    if not isinstance(value, str) or not value:
        return None
    if re.fullmatch(r"-?\d{1,12}", value):
        return str(int(value) + random.choice([-1, 1]))
    alike = [other for other in visible if other != value and _shape(other) == _shape(value)]
    if alike and random.random() < 0.6:
        return random.choice(alike)
    return _mistyped(value, random)


def _shape(text: str) -> tuple[bool, bool, bool, bool]:
    """Whether it is a file name or path, has digits, is several words, is a sentence."""
    return bool(re.search(r"\w\.\w|/", text)), any(map(str.isdigit, text)), " " in text, text.endswith((".", ":"))


def _mistyped(text: str, random: Random) -> str:
    place = random.randrange(len(text))
    typos = [text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:], text.swapcase()]
    return random.choice(typos)


def _made_up(schema: Any, visible: Sequence[str], random: Random) -> Any:
    """Some value of the schema's type, as one answers without having looked."""
    schema = schema if isinstance(schema, dict) else {}
    numbers = [value for value in visible if re.fullmatch(r"\d{1,12}", value)]
    match schema:
        case {"enum": [*options]} if options:
            return random.choice(options)
        case {"type": "integer" | "number"}:
            return int(random.choice(numbers)) if numbers else random.randint(1, 9)
        case {"type": "boolean"}:
            return random.random() < 0.5
        case {"type": "array"}:
            return []
        case {"type": "object"}:
            return {}
    return random.choice(visible) if visible else str(random.randint(1, 9))


def _properties(tool: Tool) -> dict[str, Any]:
    properties = tool.parameters.get("properties", {})
    return properties if isinstance(properties, dict) else {}


def _required(tool: Tool) -> set[str]:
    return set(_ordered_required(tool))


def _ordered_required(tool: Tool) -> list[str]:
    required = tool.parameters.get("required") or ()
    return [name for name in _properties(tool) if name in required]

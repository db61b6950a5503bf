"""Tools and calls to them: checked against their schemas, and written the three ways the field writes them.

Inside there is one form, the call grammar with one JSON object: ``move({"source": "a", "target": "b"})``.
Towards language models that take tools as data it becomes OpenAI's tool-calling format (`to_openai`), and
for everything else the system message lists one-line signatures (`listing`). Nothing is ever evaluated.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from tutelage.calls import Call, CallError, parse_call, too_deep
from tutelage.errors import EnvironmentBroken
from tutelage.types import Tool

HEADING = "Tools:"
DESCRIPTION_LENGTH = 100
"""Characters of a description in a signature."""

_INLINE = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""What JSON leaves as it is although it ends a line, or is half of a character."""


def check_call(call: Call, tools: Sequence[Tool]) -> dict[str, Any]:
    """The arguments of a call, after checking them against the schema of the tool it names.

    Arguments that the schema does not name are refused even where it would allow them.

    Raises:
        CallError: no such tool, or arguments that do not fit; the message says how to write the call.
        EnvironmentBroken: the tool's own schema is not one.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        names = ", ".join(tool.name for tool in tools)
        raise CallError(f"There is no tool {call.name[:40]!r}; the tools are {_cut(names, 250)}.")
    arguments = call.args[0] if call.args else {}
    if len(call.args) > 1 or not isinstance(arguments, dict):
        raise CallError(f"{call.name} takes one JSON object: {usage(tool)}")
    if not _is_text(arguments):
        raise CallError("The arguments hold half of a character (a lone surrogate).")
    unknown = sorted(set(arguments) - set(_properties(tool)))
    if unknown:
        raise CallError(f"{call.name} has no argument {_cut(unknown[0], 40)!r}; write {usage(tool)}")
    problem = _problem(tool, arguments)
    if problem is not None:
        place = "".join(f" of {part}" for part in list(problem.absolute_path)[:2])
        raise CallError(f"Wrong arguments{place}: {_cut(problem.message, 120)}; write {usage(tool)}")
    return arguments


def usage(tool: Tool) -> str:
    """How to write a call, e.g. ``move({"source": string, "target": string})``; optional ones end with ``?``."""
    inside = ", ".join(f'"{name}"{"" if needed else "?"}: {kind}' for name, kind, needed in _arguments(tool))
    return _cut(f"{tool.name}({{{inside}}})" if inside else f"{tool.name}({{}})", 200)


def signature(tool: Tool) -> str:
    """One line: ``move(source: string, target?: string) - Move a file.``"""
    inside = ", ".join(f"{name}{'' if needed else '?'}: {kind}" for name, kind, needed in _arguments(tool))
    description = " ".join(tool.description.split())
    return f"{tool.name}({inside})" + (f" - {_cut(description, DESCRIPTION_LENGTH)}" if description else "")


def listing(tools: Sequence[Tool]) -> str:
    """The signatures of all tools under a heading, as the system message ends; empty without tools."""
    return "\n".join([HEADING, *map(signature, tools)]) if tools else ""


def names(tools: Iterable[Tool]) -> frozenset[str]:
    """Names of the tools and of their arguments."""
    tools = list(tools)
    return frozenset(tool.name for tool in tools).union(*map(_properties, tools))


def with_listing(intro: str, tools: Sequence[Tool]) -> str:
    """A system message: `intro` and the list of tools."""
    return f"{intro}\n{listing(tools)}" if tools else intro


def without_listing(system: str, tools: Sequence[Tool]) -> str:
    """The system message without the list that `with_listing` put there, for models that get tools as data."""
    head, found, _ = system.rpartition(f"\n{HEADING}\n")  # an episode may offer more tools than it began with
    return head if tools and found else system


def write_call(name: str, arguments: dict[str, Any]) -> str:
    """A call in the one grammar, on one line."""
    return f"{name}({_inline(arguments)})"


def meaning(action: str) -> str:
    """A tool call with its arguments by name: ``move(source="a", target="b")``; empty if it is none.

    Names stand outside the quotes, so that patterns can put slots in the place of quoted values.
    """
    try:
        call = parse_call(action)
    except CallError:
        return ""
    arguments = call.args[0] if call.args else {}
    if len(call.args) > 1 or not isinstance(arguments, dict) or not _is_text(arguments):
        return ""
    return f"{call.name}({', '.join(f'{key}={_dumps(value)}' for key, value in arguments.items())})"


# -- OpenAI's format ----------------------------------------------------------------------------


def to_openai(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools as the ``tools`` parameter of a chat completion."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def call_to_openai(action: str, call_id: str) -> dict[str, Any] | None:
    """A call as an entry of an assistant message's ``tool_calls``; None if it is not a tool call."""
    try:
        call = parse_call(action)
    except CallError:
        return None
    arguments = call.args[0] if call.args else {}
    if len(call.args) > 1 or not isinstance(arguments, dict):
        return None
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": _inline(arguments)}}


def call_from_openai(name: str, arguments: str) -> str:
    """A provider's tool call in our grammar, on one line; arguments that are not a JSON object are kept as they
    are, so that the grammar refuses them with its own message."""
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict) and not too_deep(parsed):
        return write_call(name, parsed)
    return " ".join(f"{name}({arguments})".split())


# -- inside -------------------------------------------------------------------------------------


def _properties(tool: Tool) -> dict[str, Any]:
    properties = tool.parameters.get("properties", {})
    return properties if isinstance(properties, dict) else {}


def _arguments(tool: Tool) -> list[tuple[str, str, bool]]:
    """Name, type and whether it must be given."""
    required = tool.parameters.get("required") or ()
    return [(name, _kind(schema), name in required) for name, schema in _properties(tool).items()]


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if isinstance(schema.get("enum"), list):
        return "|".join(_dumps(value) for value in schema["enum"][:8])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"[{_kind(schema.get('items', {}))}]"
    return "|".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _problem(tool: Tool, arguments: dict[str, Any]) -> ValidationError | None:
    try:
        problem: ValidationError | None = best_match(_validator(_dumps(tool.parameters)).iter_errors(arguments))
    except OverflowError as error:  # an integer beyond all floats, where the schema has one
        raise CallError(f"Wrong arguments: a number is too large; write {usage(tool)}") from error
    except (SchemaError, Unresolvable, RecursionError, re.error) as error:
        raise EnvironmentBroken(f"the schema of tool {tool.name!r} is not usable: {_cut(str(error), 100)}") from error
    return problem


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Draft202012Validator:
    """A validator that fetches nothing, whatever the schema refers to."""
    parsed = {"type": "object", **json.loads(schema)}
    Draft202012Validator.check_schema(parsed)
    return Draft202012Validator(parsed, registry=Registry())


def _is_text(value: Any) -> bool:
    try:
        _dumps(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _inline(value: Any) -> str:
    return _INLINE.sub(lambda match: f"\\u{ord(match[0]):04x}", _dumps(value))


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."

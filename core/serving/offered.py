"""Tools that a request offers: names that the call grammar can write, schemas that are safe to check, calls read.

A schema comes from whoever calls, and calls are checked against it here. So what can take forever is not: patterns
are left out of the check, with whatever would refuse valid calls without them, and a schema that refers to itself, or
that its references make huge, is refused.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tutelage import tools as tooling
from tutelage.calls import CallError, parse_call, too_deep
from tutelage.conversation import split_reply
from tutelage.errors import EnvironmentBroken, RequestRefused
from tutelage.serving.types import ToolCall
from tutelage.types import Tool, new_id

MAX_SCHEMA = 32_000
"""Characters of a tool's schema as JSON."""
MAX_PARTS = 5000
"""Subschemas of a tool, each counted as often as it is referred to."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_MAPS = ("properties", "$defs", "definitions", "dependentSchemas")
_DATA = ("enum", "const", "default", "examples", "required", "dependentRequired")
_UNCHECKED = ("pattern", "patternProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems")
_NAMED = ("$id", "$anchor", "$dynamicAnchor", "$schema", "$comment")


class Names:
    """Names of tools as callers write them, and as the call grammar can: ``get-weather`` is ``get_weather`` inside."""

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(set(names), key=lambda name: (_NAME.fullmatch(name) is None, name))
        self._inside: dict[str, str] = {}
        self._outside: dict[str, str] = {}
        for name in ordered:
            alias = re.sub(r"[^A-Za-z0-9_.]", "_", name)
            alias = alias if _NAME.fullmatch(alias) else f"_{alias}"
            while alias in self._outside:
                alias += "_"
            self._inside[name], self._outside[alias] = alias, name

    def inside(self, name: str) -> str:
        return self._inside[name]

    def outside(self, alias: str) -> str:
        return self._outside[alias]


@dataclass(frozen=True)
class Read:
    """A reply with its calls read out of it."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    problem: str = ""
    """Why there is no call, in words for the student; empty if there is one."""


def read(text: str, native: Sequence[ToolCall], tools: Sequence[Tool], *, only: str = "", most: int = 0) -> Read:
    """The calls of a whole reply that fit their tools; a reply with one that does not stays text.

    Args:
        text: the reply; a call in our grammar is its last line.
        native: calls that the engine gave apart from the text.
        only: the tool that must be the one called; empty: any.
        most: how many calls are kept; 0: all.
    """
    thought, action = (text.strip(), "") if native else split_reply(text)
    written = [tooling.call_from_openai(call.name, call.arguments) for call in native] or [action]
    try:
        found = [_checked_call(line, tools, only) for line in written]
    except (CallError, EnvironmentBroken) as error:
        return Read("\n".join(part for part in (thought, *written) if part) if native else text, problem=str(error))
    ids = [call.id for call in native] or [new_id("call")]
    calls = tuple(replace(call, id=id) for call, id in zip(found, ids, strict=True))
    return Read(thought, calls[:most] if most else calls)


def _checked_call(line: str, tools: Sequence[Tool], only: str) -> ToolCall:
    call = parse_call(line, tooling.usage(tools[0]))
    if only and call.name != only:
        raise CallError(f"The tool to call is {only}.")
    arguments = tooling.check_call(call, [checkable(tool) for tool in tools if tool.name == call.name] or tools)
    return ToolCall(id="", name=call.name, arguments=json.dumps(arguments, ensure_ascii=False))


def checkable(tool: Tool) -> Tool:
    """The tool with that of its schema that calls are held to.

    Raises:
        RequestRefused: the schema is none, or cannot be checked in bounded time.
    """
    if not tool.parameters:
        return tool
    try:
        written = json.dumps(tool.parameters, ensure_ascii=False, allow_nan=False, sort_keys=True)
        written.encode()
    except (ValueError, RecursionError) as error:  # NaN, half of a character
        raise RequestRefused(f"the parameters of tool {tool.name!r} are not JSON") from error
    if len(written) > MAX_SCHEMA or too_deep(tool.parameters):
        raise RequestRefused(f"the parameters of tool {tool.name!r} are longer than {MAX_SCHEMA} or nested too deeply")
    try:
        return tool.model_copy(update={"parameters": json.loads(_checkable(written))})
    except (SchemaError, ValueError, LookupError, TypeError, RecursionError) as error:
        why = error.message if isinstance(error, SchemaError) else str(error)
        raise RequestRefused(f"the parameters of tool {tool.name!r} are no usable schema: {why[:200]}") from error


@lru_cache(256)
def _checkable(written: str) -> str:
    """Raises ValueError, LookupError, TypeError, RecursionError, SchemaError: it is not usable."""
    schema = json.loads(written)
    if schema.get("type", "object") != "object":
        raise ValueError("the arguments of a tool are an object")
    Draft202012Validator.check_schema(schema)
    bare = _bare(schema, _weakened(schema))
    left = [MAX_PARTS]
    _count(bare, bare, left)
    return json.dumps(bare, ensure_ascii=False)


def _weakened(schema: Any) -> frozenset[int]:
    """The `id` of every subschema that takes more than it says because something within it is not checked."""
    above: dict[int, list[int]] = defaultdict(list)
    """From a subschema to those that it is part of, or that refer to it."""
    weak, seen, rest = list[int](), set[int](), [schema]
    while rest:
        part = rest.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        if any(key in part for key in _UNCHECKED):
            weak.append(id(part))
        checked = {key: value for key, value in part.items() if key not in _UNCHECKED}
        inner = list(_parts(checked))
        if isinstance(part.get("$ref"), str):
            inner.append(_referred(schema, part["$ref"]))
        for item in inner:
            above[id(item)].append(id(part))
        rest += inner
    found = set[int]()
    while weak:
        if (place := weak.pop()) not in found:
            found.add(place)
            weak += above[place]
    return frozenset(found)


def _bare(schema: Any, weak: frozenset[int]) -> Any:
    """A schema without what is not checked, and without what would make its references mean something else.

    Nothing that it refuses may be what the whole schema takes. So what is only right if all of it is checked goes, too:
    that other properties than those of a pattern are forbidden, that something is not so, or so only once.
    """
    if not isinstance(schema, dict):
        return [_bare(item, weak) for item in schema] if isinstance(schema, list) else schema
    dropped = {*_UNCHECKED, *_NAMED}
    if "patternProperties" in schema:
        dropped.add("additionalProperties")
    dropped |= {key for key in ("not", "if") if id(schema.get(key)) in weak}
    if id(schema.get("contains")) in weak:
        dropped.add("maxContains")
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            found[key] = {name: _bare(item, weak) for name, item in value.items()}
        elif key in _DATA:
            found[key] = value
        elif key not in dropped:
            found[key] = _bare(value, weak)
    several = schema.get("oneOf")
    if isinstance(several, list) and any(id(item) in weak for item in several):
        found["allOf"] = [*found.get("allOf", ()), {"anyOf": found.pop("oneOf")}]
    return found


def _count(schema: Any, root: Any, left: list[int]) -> None:
    """Take every subschema, and whatever it refers to, off what is left."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("it refers to itself, or its references make it too large")
    if not isinstance(schema, dict):
        return
    if "$dynamicRef" in schema or "$recursiveRef" in schema:
        raise ValueError("a reference is a $ref")
    if "$ref" in schema:
        _count(_referred(root, schema["$ref"]), root, left)
    for part in _parts(schema):
        _count(part, root, left)


def _parts(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            yield from value.values()
        elif key not in _DATA and isinstance(value, dict | list):
            yield from value if isinstance(value, list) else (value,)


def _referred(root: Any, reference: str) -> Any:
    path = unquote(reference)
    if path != "#" and not path.startswith("#/"):
        raise ValueError("a reference leads out of it")
    found = root
    for part in path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found

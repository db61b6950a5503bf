"""A server's tools as tools of ours: names that can be called, schemas that are safe to check against.

Schemas come from outside. Regular expressions and references in them could stall the process, so only plain
keywords are kept, references are written out, and size is limited. What is dropped here the server checks itself.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tutelage.errors import EnvironmentBroken
from tutelage.types import Tool

MAX_NODES = 2000
"""Schemas inside one tool's schema, with references written out."""
MAX_CHARACTERS = 20_000
"""Of one tool's schema as it is kept."""
NAME_LENGTH = 64
DESCRIPTION_LENGTH = 2000
_PLAIN = {"type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} | {
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("default", "description", "title"),
}
_ONE = frozenset({"items", "additionalProperties", "not"})
_MANY = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})


def offered(tools: Iterable[tuple[str, str, Mapping[str, Any]]]) -> dict[str, tuple[str, Tool]]:
    """From (name, description, schema) to the server's name and the tool, by the name it is offered under.

    Raises:
        EnvironmentBroken: a schema is none, or too large.
    """
    found: dict[str, tuple[str, Tool]] = {}
    for name, description, schema in tools:
        callable_name = _callable(name)
        while callable_name in found:
            callable_name += "_"
        tool = Tool(
            name=callable_name, description=description[:DESCRIPTION_LENGTH], parameters=safe_schema(name, schema)
        )
        found[callable_name] = (name, tool)
    return found


def safe_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments without what could stall us."""
    try:
        plain: dict[str, Any] = _Plain(schema).schema(schema, ())
        if len(json.dumps(plain)) > MAX_CHARACTERS:
            raise _TooLarge
        Draft202012Validator.check_schema(plain)
    except (SchemaError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise EnvironmentBroken(f"the schema of the server's tool {name[:60]!r} is none: {reason[:100]}") from error
    except _TooLarge as error:
        raise EnvironmentBroken(f"the schema of the server's tool {name[:60]!r} is too large") from error
    return plain


def _callable(name: str) -> str:
    """The name in the characters of the call grammar."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", name)[:NAME_LENGTH]
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"


class _TooLarge(Exception):
    """More than `MAX_NODES` schemas."""


class _Plain:
    """One walk over a schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def schema(self, schema: Any, open_references: tuple[str, ...]) -> Any:
        """A plain copy; a reference to something it is part of, or to elsewhere, allows anything."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooLarge
        if not isinstance(schema, Mapping):
            return schema
        plain: dict[str, Any] = {key: value for key, value in schema.items() if key in _PLAIN}
        for key, value in schema.items():
            if key in _ONE:
                plain[key] = self.schema(value, open_references)
            elif key in _MANY and isinstance(value, list):
                plain[key] = [self.schema(item, open_references) for item in value]
            elif key == "properties" and isinstance(value, Mapping):
                plain[key] = {name: self.schema(item, open_references) for name, item in value.items()}
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in open_references:
            # Beside a reference there may be a description; keywords that both have are the reference's.
            plain |= self.schema(self._find(reference), (*open_references, reference))
        return plain

    def _find(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        if not reference.startswith("#/"):
            return {}
        for part in reference[2:].split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

"""Structured answers: how a schema is asked for, and how an answer is read that only nearly keeps to it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tutelage.types import Message

Schema = TypeVar("Schema", bound=BaseModel)

CANDIDATES = 20
"""Places at which an object may begin that are tried; chatter is full of braces."""
PROBLEM_LENGTH = 300
"""Characters of what is told about an answer that does not fit."""


def with_schema(messages: Sequence[Message], schema: type[BaseModel]) -> list[Message]:
    """Ask for JSON in the system message, so that the request itself stays as it is."""
    order = "Answer with one JSON object that fits this JSON schema, and with nothing else:\n" + json.dumps(
        schema.model_json_schema(), ensure_ascii=False
    )
    first, *rest = messages
    if first.role == "system":
        return [Message(role="system", content=f"{first.content}\n\n{order}"), *rest]
    return [Message(role="system", content=order), first, *rest]


def response_format(schema: type[BaseModel]) -> dict[str, Any] | None:
    """The same as an option, for providers that hold a model to a schema; None for a schema with free mappings,
    which some of them would hold to be empty.

    Not the strict kind: that forbids optional fields, and the answer is validated anyway.
    """
    described = schema.model_json_schema()
    if _free(described):
        return None
    return {"type": "json_schema", "json_schema": {"name": schema.__name__, "schema": described, "strict": False}}


def read(text: str, schema: type[Schema]) -> Schema:
    """The first JSON object in `text` that fits; fences, chatter and what follows the object do not matter.

    Raises:
        ValidationError: of the first object in it, or of the text if it holds none.
    """
    problem: ValidationError | None = None
    for found in _objects(text):
        try:
            return schema.model_validate_json(found)
        except ValidationError as error:
            problem = problem or error
    if problem is None:
        return schema.model_validate_json(text.strip())
    raise problem


def describe(error: ValidationError) -> str:
    """What does not fit, short enough for a small model to be told."""
    parts = [f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors()[:5]]
    line = " ".join("; ".join(parts).split())
    return line if len(line) <= PROBLEM_LENGTH else line[: PROBLEM_LENGTH - 3] + "..."


def _objects(text: str) -> Iterator[str]:
    """The outermost JSON objects in `text`, in order."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    for _ in range(CANDIDATES):
        if at < 0:
            return
        end = at + 1
        try:
            _, end = decoder.raw_decode(text, at)
            yield text[at:end]
        except (ValueError, RecursionError):  # not JSON from here
            pass
        at = text.find("{", end)


def _free(schema: Any) -> bool:
    """Whether a JSON schema has, anywhere, an object whose keys it does not name."""
    if isinstance(schema, list):
        return any(map(_free, schema))
    if not isinstance(schema, dict):
        return False
    unnamed = schema.get("type") == "object" and "properties" not in schema
    return unnamed or bool(schema.get("additionalProperties")) or any(map(_free, schema.values()))

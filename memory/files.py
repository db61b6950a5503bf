"""Experiences as a JSONL file: one version per line, all versions of all of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from tutelage.errors import RecordError
from tutelage.exchange import write_whole
from tutelage.experience import Experience

History = tuple[Experience, ...]
"""All versions of one experience, oldest first."""


def write_jsonl(histories: Iterable[History], path: Path) -> int:
    """Write one version per line; the file appears complete or not at all. Returns how many experiences."""
    kept = list(histories)
    write_whole(path, "".join(version.model_dump_json() + "\n" for history in kept for version in history))
    return len(kept)


def read_jsonl(path: Path, origin: str) -> list[History]:
    """Read what `write_jsonl` wrote; empty lines are skipped.

    A line may say less than all: what it leaves out of id, sources and author is filled in, so that a file can be
    written by hand. Lines without an id are one experience each.

    Args:
        origin: where the words of a line come from that names no source, e.g. ``import:NAME``.

    Raises:
        RecordError: naming the first line that is no version of an experience and what is wrong with it.
    """
    histories: dict[str, list[Experience]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            version = _version(line, f"{path}, line {number}", origin)
            versions = histories.setdefault(version.id, [])
            if version.version != len(versions) + 1:
                raise RecordError(
                    f"{path}, line {number}: {version.id} version {version.version} follows version {len(versions)}"
                )
            versions.append(version)
    return [tuple(versions) for versions in histories.values()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text") from error


def _version(line: str, place: str, origin: str) -> Experience:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{place}: not JSON: {error}") from error
    return experience(data, place, origin)


def experience(data: Any, place: str, origin: str) -> Experience:
    """An experience from JSON data that may leave out its id, sources and author.

    Raises:
        RecordError: it is none; the message begins with `place`.
    """
    if not isinstance(data, dict):
        raise RecordError(f"{place}: an experience is an object, not a {type(data).__name__}")
    whole = {"author": origin, "sources": [{"trajectory": "", "task": "", "origin": origin}], **data}
    try:
        return writable(Experience.model_validate(whole), place)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{place}: {where + ': ' if where else ''}{first['msg']}") from error


def writable(item: Experience, place: str) -> Experience:
    """The same one. Raises RecordError, beginning with `place`: it holds half a character, which no file can."""
    try:
        item.model_dump_json()
    except PydanticSerializationError as error:
        raise RecordError(f"{place}: a text in it is not Unicode: it holds half a surrogate pair") from error
    return item

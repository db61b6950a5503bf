"""What two runs must have in common to count as the same: everything but times, random ids and the code's commit."""

import json
import re
from typing import Any

_ID = re.compile(r"\b([a-z]+)_[0-9a-f]{16}\b")
_TIME = re.compile(r"(?:^|[_/ ])(?:created|seconds?|runtime|time)$")
_UNLIKE = re.compile(rf"{_TIME.pattern}|^commit$")

_ORDER = {
    # Natural keys: which of several episodes that run at once ends first must not matter.
    "trajectories": ("key",),
    "students": ("number",),
    "verdicts": ("trajectory", "judge"),
    "uses": ("trajectory", "experience"),
    "metrics": ("run", "step", "name"),
    "documents": ("kind", "key", "version"),
}
_FIRST = ("trajectories", "students", "experiences")
"""Tables that give ids their numbers, before rows are sorted by those."""


def fingerprint(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Normalise the rows of all tables of a record (in order of insertion); JSON bodies are unpacked.

    Every id becomes its prefix and the order of its first appearance; names that say they are times
    (`created`, `seconds`, `…_time`) are dropped, and so are the values of metrics so named; and so is the commit of
    the code.
    """
    numbers: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"{match[1]}_{len(numbers)}")

    def normal(value: Any) -> Any:
        if isinstance(value, str):
            return _ID.sub(rename, value)
        if isinstance(value, dict):
            return {normal(name): normal(item) for name, item in value.items() if not _UNLIKE.search(name)}
        return [normal(item) for item in value] if isinstance(value, list) else value

    result = {}
    for name in [*_FIRST, *(name for name in tables if name not in _FIRST)]:
        rows = [_unpack(row) for row in tables[name]]
        order = _ORDER.get(name)
        if order and name in _FIRST:
            rows.sort(key=lambda row: [row[column] for column in order])
        rows = [normal(row) for row in rows]
        if order and name not in _FIRST:
            rows.sort(key=lambda row: [_natural(row[column]) for column in order])
        result[name] = rows
    return {name: result[name] for name in tables}


def _unpack(row: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in row.items() if name != "n"}
    for name in ("body", "evidence", "derived"):
        if name in row:
            row[name] = json.loads(row[name])
    if "name" in row and _TIME.search(row["name"]):
        row["value"] = None
    return row


def _natural(value: Any) -> list[Any]:
    """Sort key that puts `trj_9` before `trj_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(value))]

"""How the experts for tools look around: every place once, nothing is changed, then the end.

The order of equal looks depends on the goal, so that the first steps differ from one explorer to another.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.toolkit import call, calls
from tutelage.agents.seeds import stable_seed
from tutelage.calls import CallError, parse_call

BEFORE = "Look around as this person would:"
AFTER = "Find out what is there, change nothing, and end when you have seen enough."
"""What stands before and after the persona in the goal of an exploration."""
EXPLORING = f"{re.escape(BEFORE)} .+ {re.escape(AFTER)}"
"""The wording, for a table of goals."""
MOST_LOOKS = 16
"""Calls before the one that ends the exploration."""

_LISTING = re.compile(r'(?:Top folder|Folder "(?P<folder>[^"]*)"):')
_TABLE = re.compile(r"(\w+)\(\w+(?:, \w+)*\)")


def files(view: View) -> Advice:
    """List every folder, and read every file that shows."""
    folders, paths = listed(view.observations)
    lists, reads = (call("list", folder=folder) for folder in folders), (call("read", file=path) for path in paths)
    return _looking(view, lists, reads, ends=("done()",))


def sqlite(view: View) -> Advice:
    """Show the rows of every table."""
    tables = [match[1] for line in view.observations[0].split("\n") if (match := _TABLE.fullmatch(line))]
    return _looking(view, (call("query", sql=f"SELECT * FROM {table}") for table in tables), ends=("done()",))


def mcp(view: View) -> Advice:
    """List every folder with the tools of the example server, and read every file that shows."""
    folders: list[str] = ["."]
    paths: list[str] = []
    for made in calls(view):
        folder = str(made.arguments.get("path"))
        start = "" if folder == "." else f"{folder}/"
        for entry in _entries(made.result, folder) if made.name == "list_directory" else ():
            (folders if entry.get("type") == "directory" else paths).append(f"{start}{entry.get('name')}")
    lists = (call("list_directory", path=folder) for folder in folders)
    # Where an answer is called for, there is no `done`.
    return _looking(
        view, lists, (call("read_file", path=path) for path in paths), ends=("done({})", call("answer", text="seen"))
    )


def _looking(view: View, *looks: Iterable[str], ends: Sequence[str]) -> Advice:
    """The first group of looks of which some are left, then the end. No call is made twice: one that was refused
    will be refused again."""
    made = {known for action in view.actions if (known := _plain(action))}
    groups = [[look for look in group if _plain(look) not in made] for group in looks]
    due = next((group for group in groups if group), [])
    if not due or len(view.actions) >= MOST_LOOKS:
        return Advice((next((end for end in ends if _plain(end) not in made), ends[-1]),))
    return Advice(tuple(sorted(due, key=lambda look: stable_seed(view.goal, look))))


def listed(observations: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders and the files that listings show, in order."""
    folders: dict[str, None] = {}
    paths: dict[str, None] = {}
    for observation in observations:
        heading, _, rest = observation.partition("\n")
        match = _LISTING.fullmatch(heading)
        for name in rest.split("\n") if match and rest else ():
            path = f"{match['folder']}/{name}" if match and match["folder"] else name
            (folders if name.endswith("/") else paths)[path.rstrip("/")] = None
    return list(folders), list(paths)


def _entries(result: str, folder: str) -> list[dict[str, Any]]:
    """The entries of a listing of `folder`; none if the result is something else, such as that of an earlier call."""
    try:
        told = json.loads(result)
    except ValueError:
        return []
    entries = told.get("entries") if isinstance(told, dict) and told.get("path") == folder else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _plain(action: str) -> str:
    """A call in one form; empty if it is none."""
    try:
        return str(parse_call(action)).replace("({})", "()")
    except CallError:
        return ""

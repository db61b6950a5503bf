"""The expert for the shipped MCP example, the files of `examples/mcp_files`.

It knows what filesystem-mcp returns (JSON with a path) and remembers from the episode which file holds what.
"""

import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from tutelage.agents.experts import exploring
from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.registry import NoExpert
from tutelage.calls import CallError, parse_call
from tutelage.tools import write_call

COVERED = ("append", "copy", "find", "lookup", "replace")
"""Families it claims to solve."""


def advise(view: View) -> Advice:
    """What to do next.

    Raises:
        NoExpert: none of the example's goals.
    """
    goal = " ".join(view.goal.split())
    if re.fullmatch(exploring.EXPLORING, goal):
        return exploring.mcp(view)
    for pattern, answer in _RULES:
        if match := re.fullmatch(pattern, goal):
            return answer(Seen(view), **match.groupdict())
    raise NoExpert(f"the scripted expert does not know this goal: {goal[:200]!r}")


class Seen:
    """What the episode has shown of the files."""

    def __init__(self, view: View) -> None:
        self.now: dict[str, str] = {}
        """What a file holds, where that is known."""
        self.first: dict[str, str] = {}
        """What it held when it was first read, before it was changed."""
        self.listed: dict[str, list[str]] = {}
        for action, observation in zip(view.actions, view.observations[1:], strict=False):
            self._take(action, observation)

    def _take(self, action: str, observation: str) -> None:
        """One call and its result. A call that failed leaves the result of an earlier one, for another path or of
        another shape."""
        try:
            call, result = parse_call(action), json.loads(observation)
        except (CallError, ValueError):
            return
        arguments = call.args[0] if call.args else None
        if not isinstance(arguments, dict) or not isinstance(result, dict):
            return
        path = _plain(arguments.get("path"))
        if path != _plain(result.get("path")):
            return
        if call.name == "list_directory" and "entries" in result:
            self.listed[path] = [entry["name"] for entry in result["entries"]]
        elif call.name == "read_file" and "content" in result:
            self.now[path] = result["content"]
            self.first.setdefault(path, result["content"])
        elif call.name == "write_file" and "bytes_written" in result:
            content = str(arguments.get("content", ""))
            if not arguments.get("append"):
                self.now[path] = content
            elif path in self.now:
                self.now[path] += content


def _lookup(seen: Seen, name: str, file: str) -> Advice:
    if file not in seen.now:
        return _read(file)
    words = dict(line.split(maxsplit=1) for line in seen.now[file].splitlines() if " " in line)
    return _answer(words.get(name, ""))


def _copy(seen: Seen, source: str, target: str) -> Advice:
    if source not in seen.first:
        return _read(source)
    return _make(seen, {source: seen.first[source], target: seen.first[source]})


def _append(seen: Seen, line: str, file: str) -> Advice:
    if file not in seen.now:
        return _read(file)
    before = seen.first.get(file, seen.now[file])
    whole = before.rstrip("\n") + f"\n{line}\n"
    if seen.now[file] == before != whole:
        added = {"path": file, "content": f"{line}\n", "append": True}
        return Advice((write_call("write_file", added), _write(file, whole)))
    return _make(seen, {file: whole})


def _replace(seen: Seen, file: str, old: str, new: str) -> Advice:
    if file not in seen.first:
        return _read(file)
    return _make(seen, {file: re.sub(rf"(?m)(?<==){re.escape(old)}$", new, seen.first[file])})


def _find(seen: Seen, folder: str, word: str) -> Advice:
    if folder not in seen.listed:
        return Advice((write_call("list_directory", {"path": folder}),))
    paths = {f"{folder}/{name}": name for name in seen.listed[folder]}
    found = [name for path, name in paths.items() if word in seen.now.get(path, "").split()]
    unread = [path for path in paths if path not in seen.now]
    if found or not unread:
        return _answer(found[0] if found else "")
    return Advice(tuple(write_call("read_file", {"path": path}) for path in unread))


_RULES: tuple[tuple[str, Callable[..., Advice]], ...] = (
    (r"What is (?P<name>\w+)'s number in (?P<file>\S+)\? Answer with the number\.", _lookup),
    (r"Copy the text of (?P<source>\S+) into a new file (?P<target>\S+)\.", _copy),
    (r'Add the line "(?P<line>.+)" at the end of (?P<file>\S+)\.', _append),
    (r"In (?P<file>\S+) change (?P<old>.+) to (?P<new>.+) and leave the rest as it is\.", _replace),
    (r"Which file in the folder (?P<folder>\S+) holds the word (?P<word>\w+)\? Answer with its name\.", _find),
)


def _make(seen: Seen, wanted: dict[str, str]) -> Advice:
    """Write each file that does not hold what it should; done when all do."""
    missing = [_write(path, text) for path, text in wanted.items() if seen.now.get(path, "").strip() != text.strip()]
    return Advice(tuple(missing) or (write_call("done", {}),))


def _read(path: str) -> Advice:
    return Advice((write_call("read_file", {"path": path}),))


def _write(path: str, content: str) -> str:
    return write_call("write_file", {"path": path, "content": content})


def _answer(text: str) -> Advice:
    return Advice((write_call("answer", {"text": text}),))


def _plain(path: Any) -> str:
    return str(PurePosixPath(path)) if isinstance(path, str) and path else ""

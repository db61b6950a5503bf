"""Designed tasks for an MCP server: the wanted end, written as checks like those of a task file."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import Field

from tutelage.designs import Design
from tutelage.environments.design import parsed, refused
from tutelage.environments.mcp.checks import MAX_BYTES, Finished, holds
from tutelage.environments.mcp.taskfile import (
    NO_FOLDER,
    WITHOUT_FOLDER,
    Absent,
    Answer,
    Check,
    FileCheck,
    FileText,
    Goal,
    Server,
    Strict,
    ToolResult,
)

PATH_LENGTH = 200
"""Bytes of a path, so that every file system takes it."""
MOST_CHECKS = 20
_FIRST: Final = """\
"end" is an object with one key, "checks": a list of objects that must all hold when the task is done.
"""
_FILES: Final = """\
- {"kind": "text", "path": path, "equals": text}: what a file holds in the end, all of it; or with "contains" in place
  of "equals": a part of it. Blanks and line ends around the text do not count.
- {"kind": "exists", "path": path} and {"kind": "absent", "path": path}: a file or folder is there, or is not.
  Paths are relative to the work folder. Unless there is a check of kind "result", the files of the start that no check
  names must stay as they are.
"""
_TOOLS: Final = """\
- {"kind": "result", "tool": name, "arguments": {...}, "equals": text}: what a tool returns when it is called after the
  task is done, with the arguments that its schema wants; or with "contains". Take a tool that only reads.
- {"kind": "answer", "equals": text}: what the agent must answer, for a question; at most one. Letter case and a full
  stop do not count, so ask for one name or number.
The goal must say all that the checks ask for, with new names and texts word for word: whoever does the task sees the
goal and not the checks. At least one check must fail at the start. Only the tools that were shown can be used.
"""
_FILE_EXAMPLE: Final = """\
Example, for the goal: Copy the text of "draft.txt", which stays, into a new file "final.txt".
{"checks": [{"kind": "text", "path": "final.txt", "equals": "The boat leaves at nine."}]}"""
_TOOL_EXAMPLE: Final = """\
Example, for the goal: Add a note "tea" with the text "Buy milk.".
{"checks": [{"kind": "result", "tool": "read_note", "arguments": {"name": "tea"}, "equals": "Buy milk."}]}"""
GUIDE: Final = _FIRST + _FILES + _TOOLS + _FILE_EXAMPLE


def guide(server: Server) -> str:
    """What a designer is told; a server at a url does not see the work folder."""
    return GUIDE if server.url is None else _FIRST + _TOOLS + _TOOL_EXAMPLE


class End(Strict):
    """All of them must hold."""

    checks: tuple[Check, ...] = Field(min_length=1, max_length=MOST_CHECKS)


def designed(first: Goal, design: Design, server: Server) -> Goal:
    """The goal of a design that begins in the state of `first`.

    Raises:
        DesignRefused: its end is malformed, or cannot be checked with this server.
    """
    # All of the server's tools: those that a task of the file is confined to may not let anybody look around.
    mine = {"goal": design.goal, "tools": ()}
    if design.end is None:
        return first.model_copy(update={**mine, "checks": ()})
    checks = parsed(End, design.end).checks
    if sum(isinstance(check, Answer) for check in checks) > 1:
        raise refused("end.checks: a task has one answer; give one check of kind answer")
    for place, check in enumerate(checks):
        where = f"end.checks.{place}"
        if isinstance(check, FileCheck):
            _check_path(where, check.path, server)
        elif isinstance(check, Answer) and not any(character.isalnum() for character in check.equals):
            raise refused(f"{where}.equals: an answer needs a letter or a digit")
        elif isinstance(check, ToolResult) and not check.tool.strip():
            raise refused(f"{where}.tool: name the tool to call")
    _check_sense(checks)
    return first.model_copy(update={**mine, "checks": (*checks, *_unchanged(first, checks))})


def check_open(goal: Goal, server: Server) -> None:
    """Whether the checks are not all fulfilled at the start, as far as the files of the start tell it.

    Raises:
        DesignRefused: they are.
    """
    if server.reset or goal.prepare or not all(isinstance(check, FileCheck) for check in goal.checks):
        return
    with TemporaryDirectory(prefix="tutelage-mcp-") as folder:
        workdir = Path(folder).resolve()
        goal.lay_out(workdir)
        start = Finished(workdir, answer="", result=lambda _: None)
        if all(holds(check, start) for check in goal.checks):
            raise refused("end.checks: all of them hold at the start; a task has to change something")


def _check_path(where: str, path: str, server: Server) -> None:
    if server.url is not None:
        raise refused(f"{where}: {NO_FOLDER}; use checks of {WITHOUT_FOLDER}")
    if len(path.encode()) > PATH_LENGTH or not path.isprintable() or not PurePosixPath(path).parts:
        raise refused(f"{where}.path: a path has up to {PATH_LENGTH} plain characters")


def _check_sense(checks: tuple[Check, ...]) -> None:
    """A path that has to be there and away, or to hold two texts, makes a task that nobody can do."""
    files = [check for check in checks if isinstance(check, FileCheck)]
    away = [PurePosixPath(check.path) for check in files if isinstance(check, Absent)]
    texts: dict[PurePosixPath, str] = {}
    for check in files:
        path = PurePosixPath(check.path)
        if not isinstance(check, Absent) and any(path.is_relative_to(gone) for gone in away):
            raise refused(f'end.checks: "{path}" cannot be there and be absent')
        text = check.equals if isinstance(check, FileText) else None
        if text is not None and texts.setdefault(path, text.strip()) != text.strip():
            raise refused(f'end.checks: "{path}" cannot hold two texts')


def _unchanged(first: Goal, checks: tuple[Check, ...]) -> list[FileText]:
    """Checks that the files of the start which are not named stay as they are.

    None beside a check of kind result: the tool may tell of any of the files.
    """
    if any(isinstance(check, ToolResult) for check in checks):
        return []
    return [
        FileText(kind="text", path=name, equals=text)
        for name, text in first.setup.items()
        if not any(_names(check, PurePosixPath(name)) for check in checks) and len(text.encode()) <= MAX_BYTES
    ]


def _names(check: Check, path: PurePosixPath) -> bool:
    if isinstance(check, Absent):
        return path.is_relative_to(PurePosixPath(check.path))
    return isinstance(check, FileCheck) and path == PurePosixPath(check.path)

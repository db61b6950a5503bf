"""Task files: which MCP server to use, and goals with programmatic checks.

A TOML file has a ``[server]`` table and ``[[tasks]]``; a JSONL file has the server's object in its first line and
a task in each further one. A task is one goal, or with ``values`` a template of one goal for each table of values.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tutelage.errors import ConfigError
from tutelage.types import Split

MAX_BYTES = 10_000_000
"""Size of a task file."""
NO_FOLDER = "a server at a url does not see the work folder"
WITHOUT_FOLDER = "kind result or answer"
_SLOT = re.compile(r"\{(\w+)\}")

T = TypeVar("T")


class Strict(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path or path.endswith("/"):
        raise ValueError(f"{path!r} is not the path of a file inside the work folder")
    return path


Inside = Annotated[str, AfterValidator(_inside)]
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]


# -- checks -------------------------------------------------------------------------------------


class Exists(Strict):
    """There is a file or folder."""

    kind: Literal["exists"]
    path: Inside


class Absent(Strict):
    """There is no such file or folder."""

    kind: Literal["absent"]
    path: Inside


class Expected(Strict):
    """Either of two ways to compare a text; blanks and empty lines at its ends do not count."""

    equals: str | None = None
    contains: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.equals is None) == (self.contains is None):
            raise ValueError("give either `equals` or `contains`")
        if self.contains is not None and not self.contains.strip():
            raise ValueError("`contains` is empty, so every text would do")
        return self


class FileText(Expected):
    """What a file holds."""

    kind: Literal["text"]
    path: Inside


class ToolResult(Expected):
    """What a tool returns when it is called after the agent has finished."""

    kind: Literal["result"]
    tool: str
    arguments: dict[str, Any] = {}


class Answer(Strict):
    """What the agent answered; letter case, extra blanks and a full stop at the end do not count."""

    kind: Literal["answer"]
    equals: str = Field(min_length=1)


FileCheck = Exists | Absent | FileText
Check = Annotated[FileCheck | ToolResult | Answer, Field(discriminator="kind")]


# -- server and tasks ---------------------------------------------------------------------------


class ToolCall(Strict):
    """A call that is not the agent's."""

    tool: str
    arguments: dict[str, Any] = {}


class Server(Strict):
    """How to reach the server: a command that talks over its standard streams, or the address of a running one.

    In `command`, `args` and `env`, ``{workdir}`` stands for the work folder of the episode, ``{python}`` for this
    Python and ``{here}`` for the folder of the task file.
    """

    command: str | None = Field(default=None, min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Environment variables; apart from these the command sees PATH and HOME only."""
    url: str | None = None
    """Address of a server that speaks streamable HTTP. It is shared by all episodes: see `reset`."""
    headers: dict[str, str] = {}
    reset: tuple[ToolCall, ...] = ()
    """Calls at the start of each episode which bring back the first state. A command needs none: it is started
    anew. Without it, what an episode does to the server at a `url` stays for those after it."""
    descriptions: dict[str, str] = {}
    """Descriptions to show in place of the server's own, which are often long: tool name to text."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either `command` or `url`")
        if self.url is None:
            if self.headers:
                raise ValueError("`headers` goes with `url`")
        elif self.args or self.env:
            raise ValueError("`args` and `env` go with `command`")
        elif urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError(f"{self.url!r} is not an http or https address")
        return self


class Goal(Strict):
    """One task as it is played."""

    goal: str
    setup: dict[str, str]
    prepare: tuple[ToolCall, ...]
    checks: tuple[Check, ...]
    tools: tuple[str, ...]

    @property
    def asks(self) -> bool:
        """Whether it ends with an answer."""
        return any(isinstance(check, Answer) for check in self.checks)

    def lay_out(self, workdir: Path) -> None:
        """Write the files of the start."""
        for name, text in self.setup.items():
            path = workdir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


class Template(Strict):
    """An entry of the file: one task of one split, or one task for each table in `values`."""

    family: Name
    goal: str = Field(min_length=1)
    setup: dict[Inside, str] = {}
    """Files in the work folder at the start: path to text."""
    prepare: tuple[ToolCall, ...] = ()
    """Calls before the agent's first one, for a server whose state is not in the work folder."""
    checks: tuple[Check, ...] = Field(min_length=1)
    """All of them must hold at the end."""
    tools: tuple[str, ...] = ()
    """Names of the server's tools to offer; empty for all of them."""
    split: Split | None = None
    values: dict[Split, tuple[dict[str, str], ...]] = {}
    """Per split, what to put in the place of each ``{slot}`` in goal, files, calls and checks."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.split is None) == (not self.values):
            raise ValueError("give either `split` or `values`")
        for values in (table for tables in self.values.values() for table in tables):
            missing = sorted(set(_SLOT.findall(self.goal)) - set(values))
            if missing:
                raise ValueError(f"no value for {{{missing[0]}}} of the goal in {values}")
        return self

    def goals(self) -> list[tuple[Split, Goal]]:
        """The tasks it stands for."""
        if self.split is not None:
            return [(self.split, self._filled({}))]
        return [(split, self._filled(values)) for split, tables in self.values.items() for values in tables]

    def _filled(self, values: Mapping[str, str]) -> Goal:
        kept = self.model_dump(include={"goal", "setup", "prepare", "checks", "tools"})
        filled = Goal.model_validate(fill(kept, values))
        for path in filled.setup:
            _inside(path)
        return filled


def fill(value: T, values: Mapping[str, str]) -> T:
    """`value` with each ``{slot}`` of its texts, keys included, replaced; unknown ones stay."""
    if isinstance(value, str):
        return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {fill(key, values): fill(item, values) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(fill(item, values) for item in value)
    return value


class TaskFile(Strict):
    """A whole file."""

    server: Server
    tasks: tuple[Template, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_server(self) -> Self:
        for task in self.tasks if self.server.url else ():
            if task.setup or any(isinstance(check, FileCheck) for check in task.checks):
                raise ValueError(f"family {task.family!r}: {NO_FOLDER}; use `prepare` and checks of {WITHOUT_FOLDER}")
        return self

    def families(self) -> dict[str, list[tuple[Split, Goal]]]:
        """Every family's tasks in the order of the file; a task's place is its seed."""
        found: dict[str, list[tuple[Split, Goal]]] = {}
        for template in self.tasks:
            found.setdefault(template.family, []).extend(template.goals())
        return dict(sorted(found.items()))


# -- reading ------------------------------------------------------------------------------------


def load(path: Path) -> TaskFile:
    """Read and check a task file.

    Raises:
        ConfigError: it cannot be read or makes no sense; one line that says where.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB")
        text = path.read_text("utf-8")
        data = _jsonl(text) if path.suffix == ".jsonl" else tomllib.loads(text)
        file = TaskFile.model_validate(data)
        file.families()
    except OSError as error:
        raise ConfigError(f"cannot read the task file {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {place or 'tasks'}: {' '.join(first['msg'].split())}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return file


def _jsonl(text: str) -> dict[str, Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from error
    return {"server": rows[0] if rows else None, "tasks": rows[1:]}

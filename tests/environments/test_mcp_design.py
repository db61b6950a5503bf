"""Ends of designed MCP tasks: the checks they stand for, and what is refused; `tests/contract` plays one."""

from pathlib import Path
from typing import Any

import pytest

from tutelage.designs import Design
from tutelage.environments.mcp import Mcp
from tutelage.environments.mcp.design import check_open, designed, guide
from tutelage.environments.mcp.taskfile import Goal, Server, ToolCall
from tutelage.errors import DesignRefused
from tutelage.types import Split, Task

COMMAND, URL = Server(command="x"), Server(url="http://localhost:1")
FIRST = Goal(goal="Copy.", setup={"a.txt": "one\n", "docs/b.txt": "two"}, prepare=(), checks=(), tools=("read_file",))
TASK = Task(environment="mcp", family="copy", seed=0, split=Split.TRAIN)


def text(path: str, equals: str) -> dict[str, Any]:
    return {"kind": "text", "path": path, "equals": equals}


RESULT = {"kind": "result", "tool": "read", "arguments": {"path": ["x"]}, "contains": "y"}
ANSWER = {"kind": "answer", "equals": "Ann"}


def ended(*checks: Any, server: Server = COMMAND, first: Goal = FIRST) -> Goal:
    goal = designed(first, Design(task=TASK, base=TASK, goal="Go.", end={"checks": list(checks)}), server)
    check_open(goal, server)
    return goal


@pytest.mark.parametrize(
    ("checks", "unchanged"),
    [
        ([text("z.txt", "new")], ["a.txt", "docs/b.txt"]),
        ([text("./a.txt", "new")], ["docs/b.txt"]),
        ([{"kind": "absent", "path": "docs"}], ["a.txt"]),
        ([{"kind": "exists", "path": "docs"}, ANSWER], ["a.txt", "docs/b.txt"]),
        ([text("z.txt", "new"), RESULT], []),
    ],
)
def test_files_that_no_check_names_must_stay(checks: list[dict[str, Any]], unchanged: list[str]) -> None:
    goal = ended(*checks)
    assert (goal.goal, goal.setup, goal.asks) == ("Go.", FIRST.setup, ANSWER in checks)
    assert goal.tools == (), "all of the server's, whatever the first goal is confined to"
    assert [check.model_dump(exclude_unset=True) for check in goal.checks[: len(checks)]] == checks
    assert [check.model_dump()["path"] for check in goal.checks[len(checks) :]] == unchanged


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ([], r"end\.checks: "),
        ([{"kind": "gone", "path": "a"}], r"end\.checks\.0: "),
        ([text("../a", "x")], r"end\.checks\.0\.text\.path: .*inside the work folder"),
        ([text("a", "x") | {"contains": "y"}], "either `equals` or `contains`"),
        ([text(".", "x")], r"end\.checks\.0\.path: a path"),
        ([text("bell\x07", "x")], r"end\.checks\.0\.path: a path"),
        ([text("é" * 101, "x")], r"end\.checks\.0\.path: a path has up to 200"),
        ([ANSWER, ANSWER], "one answer"),
        ([{"kind": "answer", "equals": ". "}], r"end\.checks\.0\.equals: .*letter or a digit"),
        ([RESULT | {"tool": ""}], r"end\.checks\.0\.tool"),
        ([text("d/z", "x"), {"kind": "absent", "path": "d"}], '"d/z" cannot be there and be absent'),
        ([text("z", "x"), text("./z", "y")], '"z" cannot hold two texts'),
        ([{"kind": "exists", "path": str(n)} for n in range(21)], r"end\.checks: .*at most 20"),
        ([text("a.txt", "one"), {"kind": "exists", "path": "docs"}, {"kind": "absent", "path": "z"}], "at the start"),
    ],
)
def test_an_end_that_cannot_be_is_refused(checks: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(DesignRefused, match=says):
        ended(*checks)


def test_a_server_at_a_url_sees_no_files() -> None:
    first = FIRST.model_copy(update={"setup": {}})
    assert len(ended(RESULT, ANSWER, server=URL, first=first).checks) == 2
    with pytest.raises(DesignRefused, match=r"end\.checks\.1: a server at a url does not see the work folder"):
        ended(ANSWER, text("a.txt", "x"), server=URL, first=first)
    assert '"kind": "text"' in guide(COMMAND)
    assert '"kind": "text"' not in guide(URL)


def test_what_calls_before_the_task_may_have_changed_is_not_judged() -> None:
    first = FIRST.model_copy(update={"prepare": (ToolCall(tool="wipe"),)})
    assert ended(text("a.txt", "one"), first=first)


def test_a_configured_class_has_the_guide_of_its_server(tmp_path: Path) -> None:
    task = '{"family": "f", "goal": "g", "split": "train", "checks": [{"kind": "answer", "equals": "a"}]}'
    for server, shown in (('{"command": "x"}', COMMAND), ('{"url": "http://localhost:1"}', URL)):
        path = tmp_path / f"{len(server)}.jsonl"
        path.write_text(f"{server}\n{task}\n")
        cls = Mcp.configured(tasks=path)
        assert cls.design_guide == cls.with_designs([]).design_guide == guide(shown)

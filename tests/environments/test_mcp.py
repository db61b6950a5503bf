"""MCP task files, checks and schemas; with real servers in `tests/integration/test_mcp_servers.py`."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.calls import Call, CallError
from tutelage.environments.mcp import Mcp
from tutelage.environments.mcp.checks import Finished, holds
from tutelage.environments.mcp.schema import MAX_NODES, offered, safe_schema
from tutelage.environments.mcp.taskfile import Absent, Answer, Exists, FileText, ToolResult, load
from tutelage.errors import ConfigError, EnvironmentBroken
from tutelage.tools import check_call
from tutelage.types import Split

EXAMPLE = Path(__file__).parents[2] / "examples" / "mcp_files" / "tasks.toml"
SERVER = '[server]\ncommand = "x"\n'
TASK = '[[tasks]]\nfamily = "f"\ngoal = "g"\nsplit = "test"\nchecks = [{ kind = "absent", path = "a" }]\n'


# -- task files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server", r"Expected '\]'"),
        (SERVER, "tasks: Field required"),
        (TASK, "server: Field required"),
        ("[server]\n" + TASK, "server: .*either `command` or `url`"),
        ('[server]\nurl = "ftp://x"\n' + TASK, "not an http or https address"),
        ('[server]\nurl = "http://x"\nargs = ["y"]\n' + TASK, "go with `command`"),
        ('[server]\nurl = "http://x"\n' + TASK, "does not see the work folder"),
        (SERVER + "shell = true\n" + TASK, "server.shell: Extra inputs"),
        (SERVER + TASK + "speed = 3\n", "tasks.0.speed: Extra inputs"),
        (SERVER + TASK.replace('split = "test"', 'split = "exam"'), "tasks.0.split"),
        (SERVER + TASK.replace('split = "test"\n', ""), "either `split` or `values`"),
        (SERVER + TASK.replace('"a"', '"../a"'), "not the path of a file inside"),
        (SERVER + TASK.replace('"a"', '"/etc/passwd"'), "not the path of a file inside"),
        (SERVER + TASK.replace('kind = "absent"', 'kind = "gone"'), "tasks.0.checks.0: .*'gone'"),
        (SERVER + TASK.replace('[{ kind = "absent", path = "a" }]', "[]"), "tasks.0.checks"),
        (SERVER + TASK.replace('"absent", path = "a"', '"text", path = "a"'), "either `equals` or `contains`"),
        (SERVER + TASK.replace('"absent", path = "a"', '"text", path = "a", contains = " "'), "every text would do"),
        (
            SERVER + TASK.replace('"g"', '"read {file}"').replace('split = "test"', "values.test = [{ fiel = 'a' }]"),
            "no value for .*file",
        ),
        (
            SERVER + TASK.replace('split = "test"', "values.test = [{ file = '../a' }]").replace('"a"', '"{file}"'),
            "not the path of a file inside",
        ),
    ],
)
def test_nonsense_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tasks.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_missing_files_and_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the task file"):
        Mcp.configured(tasks=str(tmp_path / "none.toml"))
    for attempt in (Mcp.configured, Mcp.families, Mcp):
        with pytest.raises(ConfigError, match="needs a task file"):
            attempt()
    with pytest.raises(ConfigError, match=r"timeout .* not 'soon'"):
        Mcp(tasks=EXAMPLE, timeout="soon")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no setting 'speed'"):
        Mcp.configured(tasks=EXAMPLE, speed=3)
    with pytest.raises(ConfigError, match=r"start_timeout .* not -1"):
        Mcp.configured(tasks=EXAMPLE, start_timeout=-1)
    broken = tmp_path / "tasks.jsonl"
    broken.write_text('{"command": "x"}\n{oops\n')
    with pytest.raises(ConfigError, match="line 2 is not JSON"):
        load(broken)


def test_the_example_has_tasks_in_every_split() -> None:
    cls = Mcp.configured(tasks=str(EXAMPLE), timeout=5)
    assert cls.name == "mcp"
    assert len(cls.families()) >= 3
    goals = [task for tasks in load(EXAMPLE).families().values() for _, task in tasks]
    assert len({(task.goal, json.dumps(task.setup)) for task in goals}) == len(goals) >= 10
    assert not any(re.search(r"\{\w+\}", task.model_dump_json()) for task in goals), "a slot without a value"
    for family in cls.families():
        seeds = [cls.seeds(split, family) for split in Split]
        assert all(seeds)
        assert sorted(seed for part in seeds for seed in part) == list(range(sum(map(len, seeds))))
    assert cls().task_file == cls.configured().task_file == EXAMPLE
    assert cls.configured(start_timeout=9).seconds == {"timeout": 5.0, "start_timeout": 9.0}


_keys = st.sampled_from(["server", "tasks", "command", "family", "goal", "checks", "kind"])
_json = st.recursive(
    st.none() | st.text(max_size=5), lambda inner: st.dictionaries(_keys, inner) | st.lists(inner, max_size=3)
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_json)
def test_any_json_is_a_file_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(f"{json.dumps(data)}\n{json.dumps(data)}")
    with pytest.raises(ConfigError):
        load(path)


# -- checks -------------------------------------------------------------------------------------


def test_checks(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.txt").write_text("one\ntwo\n")
    (work / "b.bin").write_bytes(b"\xff\xfe")
    (tmp_path / "secret").write_text("one")
    (work / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(work / "pipe")
    finished = Finished(work, " Forty  Two.", lambda call: "it is 42" if call.tool == "ask" else None)

    for check, expected in [
        (Exists(kind="exists", path="a.txt"), True),
        (Exists(kind="exists", path="out"), False),
        (Absent(kind="absent", path="out"), False),
        (Absent(kind="absent", path="c.txt"), True),
        (FileText(kind="text", path="a.txt", equals="one\ntwo"), True),
        (FileText(kind="text", path="a.txt", equals="one two"), False),
        (FileText(kind="text", path="a.txt", contains="e\nt"), True),
        (FileText(kind="text", path="out", equals="one"), False),
        (FileText(kind="text", path="pipe", contains="x"), False),
        (FileText(kind="text", path="b.bin", contains="x"), False),
        (FileText(kind="text", path="c.txt", equals=""), False),
        (ToolResult(kind="result", tool="ask", contains="42"), True),
        (ToolResult(kind="result", tool="ask", equals="42"), False),
        (ToolResult(kind="result", tool="fails", contains="42"), False),
        (Answer(kind="answer", equals="forty two"), True),
        (Answer(kind="answer", equals="42"), False),
    ]:
        assert holds(check, finished) is expected, check


# -- schemas ------------------------------------------------------------------------------------


def test_schemas_keep_what_a_call_is_checked_against() -> None:
    schema = {
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/Point", "description": "Where."}, "how": {"enum": ["a", "b"]}},
        "required": ["to"],
    }
    served = offered([("go-to", "Go.", schema), ("go_to", "Go too.", {}), ("1st", "", {})])
    assert [(name, original) for name, (original, _) in served.items()] == [
        ("go_to", "go-to"),
        ("go_to_", "go_to"),
        ("_1st", "1st"),
    ]
    tools = [tool for _, tool in served.values()]
    assert check_call(Call("go_to", ({"to": {"x": 1}, "how": "a"},)), tools)
    for wrong in ({}, {"to": {}}, {"to": {"x": "1"}}, {"to": {"x": 1}, "how": "c"}, {"to": {"x": 1}, "more": 1}):
        with pytest.raises(CallError):
            check_call(Call("go_to", (wrong,)), tools)


def test_schemas_that_could_stall_us_do_not() -> None:
    """A pattern of exponential time, references in a circle, and references that double at every step."""
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    for schema in (
        {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}, "patternProperties": {"^(a+)+$": {}}},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "https://127.0.0.1:9/schema.json"}}},
    ):
        tools = [tool for _, tool in offered([("t", "", schema)]).values()]
        assert check_call(Call("t", ({"a": "a" * 40 + "!"},)), tools)
    for schema in (
        {"$defs": doubling, "properties": {"a": {"$ref": "#/$defs/d0"}}},
        {"properties": {f"p{n}": {} for n in range(MAX_NODES + 1)}},
        {"properties": {"a": {"enum": ["x" * 100_000]}}},
        {"properties": {"a": {"type": "text"}}},
    ):
        with pytest.raises(EnvironmentBroken, match=r"schema of the server's tool 't' is (too large|none)"):
            safe_schema("t", schema)

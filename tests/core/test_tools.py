"""Tool calls: no text gets past the schemas, raises anything else or runs anything; formats round-trip."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tutelage import tools as tooling
from tutelage.calls import CallError, parse_call
from tutelage.conversation import split_reply
from tutelage.errors import EnvironmentBroken
from tutelage.types import Tool

MOVE = Tool(
    name="move",
    description="Move a file.\nIt must exist.",
    parameters={
        "type": "object",
        "properties": {"source": {"type": "string", "minLength": 1}, "target": {"enum": ["a", "b"]}},
        "required": ["source"],
    },
)
COUNT = Tool(
    name="count",
    parameters={
        "properties": {
            "n": {"type": "number", "maximum": 9, "multipleOf": 0.5},
            "any": {},
            "rows": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        }
    },
)
LOOK = Tool(name="look", description="Look around.")
TOOLS = (MOVE, COUNT, LOOK)

_ran: list[str] = []
_watching = False


def _hook(event: str, _: tuple[Any, ...]) -> None:
    if _watching and event in ("exec", "compile", "os.system", "subprocess.Popen", "socket.connect", "open", "import"):
        _ran.append(event)


sys.addaudithook(_hook)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fails if anything is compiled, executed, opened or connected to meanwhile."""
    global _watching
    _ran.clear()
    _watching = True
    try:
        yield
    finally:
        _watching = False
    assert not _ran


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["source", "target", "n", "any", "rows", "x"]), JSON, max_size=4)
NAMES = st.sampled_from(["move", "count", "look", "__import__", "os.system", "eval"])
INSIDE = (
    st.text()
    | JSON.map(json.dumps)
    | ARGUMENTS.map(json.dumps)
    | st.tuples(ARGUMENTS, JSON).map(lambda pair: f"{json.dumps(pair[0])}, {json.dumps(pair[1])}")
    | st.sampled_from(["__import__('os').system('true')", '{"n": 1e999}', '{"n": -Infinity}', '{"any": "\\ud800"}'])
    | st.builds(lambda kind, depth: f'{{"any": {kind[0] * depth}{kind[1] * depth}}}',
                st.sampled_from(["[]", ('{"a":', "1}")]), st.integers(1, 1200))
)  # fmt: skip
TEXTS = st.text() | st.builds(lambda name, inside: f"{name}({inside})", NAMES, INSIDE)


def test_no_text_gets_past_the_schema(full_counts: bool) -> None:
    """Whatever the text, the result is arguments that fit the schema of a tool, or a `CallError`."""
    by_name = {tool.name: tool for tool in TOOLS}
    outcomes: set[str] = set()
    told: list[str] = []

    @settings(max_examples=10_000 if full_counts else 500, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        with nothing_runs():
            try:
                call = parse_call(text)
                arguments = tooling.check_call(call, TOOLS)
            except CallError as error:
                outcomes.add("refused")
                told.append(str(error))
                return
        outcomes.add("accepted")
        parameters = by_name[call.name].parameters
        assert set(arguments) <= set(parameters.get("properties", {}))
        assert Draft202012Validator({"type": "object", **parameters}).is_valid(arguments)
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()

    for tool in TOOLS:  # the validators are made, and modules loaded, on first use
        tooling._problem(tool, {})
    check()
    assert outcomes == {"refused", "accepted"}
    assert all(0 < len(text) < 600 and "\n" not in text for text in told), "fit to be shown to the agent"


@settings(deadline=None)
@given(TEXTS)
def test_no_text_breaks_a_conversion(text: str) -> None:
    tooling.meaning(text)
    entry = tooling.call_to_openai(text, "call00001")
    if entry is not None:
        function = entry["function"]
        again = tooling.call_from_openai(function["name"], function["arguments"])
        assert tooling.call_to_openai(again, "call00001") == entry


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("mvoe({})", "the tools are move, count, look"),
        ("move({})", "'source' is a required property"),
        ('move("a", "b")', 'one JSON object: move({"source": string'),
        ('move(["a"])', "takes one JSON object"),
        ('move({"source": "x", "sauce": 1})', "no argument 'sauce'"),
        ('move({"source": "x", "target": "c"})', "of target"),
        ('look({"at": "x"})', "look({})"),
        ('count({"n": 1e999})', "not JSON"),
        ('count({"n": 1' + "0" * 400 + "})", "Wrong arguments"),
        ('count({"any": ' + "[" * 100 + "]" * 100 + "})", "nested"),
        ('count({"any": "\\ud800"})', "surrogate"),
    ],
)
def test_what_is_refused_says_how_to_write_it(text: str, part: str) -> None:
    with pytest.raises(CallError) as refused:
        tooling.check_call(parse_call(text), TOOLS)
    assert part in str(refused.value)


def test_calls_without_arguments() -> None:
    assert tooling.check_call(parse_call("look()"), TOOLS) == {}
    assert tooling.check_call(parse_call("look({})"), TOOLS) == {}


@pytest.mark.parametrize(
    "schema",
    [{"type": "nonsense"}, {"pattern": "("}, {"$ref": "#/nowhere"}, {"$ref": "http://127.0.0.1:9/s"}, {"$ref": "#/x"}],
)
def test_a_broken_schema_is_the_environments_fault(schema: dict[str, Any]) -> None:
    tool = Tool(name="f", parameters={"properties": {"a": schema}, "x": {"$ref": "#/x"}})
    with nothing_runs() if "$ref" in schema else pytest.MonkeyPatch.context(), pytest.raises(EnvironmentBroken):
        tooling.check_call(parse_call('f({"a": "b"})'), [tool])


def test_listing_is_one_line_per_tool_and_comes_off_again() -> None:
    system = tooling.with_listing("You have files.", TOOLS)
    assert system.splitlines() == [
        "You have files.",
        "Tools:",
        'move(source: string, target?: "a"|"b") - Move a file. It must exist.',
        "count(n?: number, any?: any, rows?: [integer])",
        "look() - Look around.",
    ]
    assert tooling.without_listing(system, TOOLS) == "You have files."
    assert tooling.with_listing("You act.", ()) == tooling.without_listing("You act.", ()) == "You act."


# What separates lines, quotes or halves of characters in other formats than JSON.
AWKWARD = st.text(st.sampled_from('ab \n\r\t\x0b\x1c\x85\u2028\u2029"\\{}()[],é日😀\ud800<|>'), max_size=12)
VALUES = st.recursive(AWKWARD | st.integers() | st.booleans() | st.none(), lambda v: st.lists(v, max_size=3))


@given(st.dictionaries(AWKWARD, VALUES, max_size=3))
def test_round_trip_through_the_grammar_and_openai(arguments: dict[str, Any]) -> None:
    text = tooling.write_call("move", arguments)
    assert split_reply(f"a thought\n{text}") == ("a thought", text), "one line, whatever the arguments hold"
    text.encode()
    assert parse_call(text).args == (arguments,)
    entry = tooling.call_to_openai(text, "call00001")
    assert entry is not None
    entry["function"]["arguments"].encode()
    assert json.loads(entry["function"]["arguments"]) == arguments
    assert tooling.call_from_openai("move", entry["function"]["arguments"]) == text


@given(st.text() | JSON.map(json.dumps))
def test_a_providers_arguments_stay_on_one_line(arguments: str) -> None:
    text = tooling.call_from_openai("move", arguments)
    assert split_reply(text) == ("", text.strip())


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '"x"', "[" * 99999, 'x)\nmove({"source": "a"}'])
def test_a_providers_nonsense_is_refused_by_the_grammar(arguments: str) -> None:
    with pytest.raises(CallError):
        tooling.check_call(parse_call(tooling.call_from_openai("move", arguments)), TOOLS)


def test_meaning_names_the_arguments() -> None:
    assert tooling.meaning('move({"source": "a b", "target": "b"})') == 'move(source="a b", target="b")'
    assert tooling.meaning("look()") == tooling.meaning("look({})") == "look()"
    assert tooling.meaning("look(1)") == tooling.meaning("I look around") == ""


def test_openai_tools_without_parameters_have_an_object_schema() -> None:
    (tool,) = tooling.to_openai([LOOK])
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}

"""Tools of strangers: any name can be called, no schema keeps the server busy."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.calls import parse_call
from tutelage.errors import RequestRefused
from tutelage.serving.offered import Names, checkable, read
from tutelage.types import Tool


@given(st.sets(st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True), max_size=20))
def test_every_name_can_be_written_and_is_given_back(given: set[str]) -> None:
    names = Names(given)
    inside = [names.inside(name) for name in given]
    assert len(set(inside)) == len(given)
    assert all(parse_call(f"{alias}()").name == alias for alias in inside)
    assert {names.outside(alias) for alias in inside} == given
    assert all(names.inside(name) == name for name in given if re.fullmatch(r"[A-Za-z_]\w*", name))


def doubling(levels: int) -> dict[str, Any]:
    """A schema whose check takes twice as long with every level."""
    defs: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)
    }
    defs[f"d{levels}"] = {"type": "string"}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}


@pytest.mark.parametrize(
    "schema",
    [
        doubling(40),
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"$ref": "#/$defs/b"}}},
        {"properties": {"a": {"$ref": "https://example.com/schema.json"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"$ref": "#/properties/a/x"}}},
        {"properties": {"a": {"$dynamicRef": "#a"}}},
        {"type": "array"},
        {"type": ["object"]},
        {"properties": []},
        {"properties": {"a": {"enum": [float("nan")]}}},
        {"properties": {"a": {"const": "\ud800"}}},
        {"description": "x" * 40_000},
    ],
)
def test_a_schema_that_is_none_or_could_take_forever_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="parameters of tool 'f'"):
        checkable(Tool(name="f", parameters=schema))


def test_the_check_keeps_types_and_leaves_out_patterns() -> None:
    slow = {"type": "string", "pattern": "^(a+)+$", "minLength": 1}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"pattern": slow, "kind": {"$ref": "#/definitions/kind"}},
        "definitions": {"kind": {"enum": ["pattern", "$id"]}},
        "required": ["pattern"],
    }
    tool = Tool(name="f", parameters=schema)
    kept = checkable(tool).parameters
    assert kept["properties"] == {"pattern": {"type": "string", "minLength": 1}, "kind": {"$ref": "#/definitions/kind"}}
    (call,) = read(f'f({{"pattern": "{"a" * 60}!", "kind": "$id"}})', (), [tool]).calls
    assert call.name == "f"
    for wrong in ('f({"pattern": ""})', 'f({"pattern": "a", "kind": "b"})', "f({})"):
        found = read(wrong, (), [tool])
        assert (found.calls, found.text) == ((), wrong)
        assert found.problem


A, B = {"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"properties": {"x": {"oneOf": [A, B]}}}, 'f({"x": 1})'),
        ({"properties": {"x": {"oneOf": [A, {"$ref": "#/$defs/b"}]}}, "$defs": {"b": B}}, 'f({"x": 1})'),
        ({"properties": {"x": {"oneOf": [A, B], "allOf": [{"minLength": 2}]}}}, 'f({"x": "a"})'),
        ({"properties": {"x": {"not": B, "type": "string"}}}, 'f({"x": 1})'),
        ({"properties": {"x": {"not": {"$ref": "#/$defs/b"}, "type": "string"}}, "$defs": {"b": B}}, 'f({"x": 1})'),
        ({"properties": {"x": {"if": B, "then": {"minLength": 9}, "type": "string"}}}, 'f({"x": 1})'),
        ({"properties": {"x": {"type": "string"}}, "not": {"required": ["y"], "propertyNames": A}}, 'f({"x": 1})'),
    ],
)
def test_what_is_not_checked_makes_no_valid_call_a_wrong_one(schema: dict[str, Any], wrong: str) -> None:
    tool = Tool(name="f", parameters=schema)
    assert read('f({"x": "ab"})', (), [tool]).calls
    assert not read(wrong, (), [tool]).calls, "the rest is checked as ever"


def test_where_all_is_checked_one_of_several_is_one_and_not_is_not() -> None:
    kinds = {"x": {"oneOf": [{"type": "string"}, {"minLength": 2}], "not": {"const": "c"}}, "y": {"contains": {}}}
    tool = Tool(name="f", parameters={"properties": kinds})
    assert checkable(tool).parameters == {"properties": kinds}


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"contains": A, "maxContains": 1}, '["a", "b"]', "[1]"),
        ({"patternProperties": {"^y": {}}, "additionalProperties": False, "required": ["y"]}, '{"y": 1}', "{}"),
    ],
)
def test_what_is_counted_or_named_by_pattern_is_not_held_against_a_call(schema: Any, right: str, wrong: str) -> None:
    tool = Tool(name="f", parameters={"properties": {"x": schema}})
    assert read(f'f({{"x": {right}}})', (), [tool]).calls
    assert not read(f'f({{"x": {wrong}}})', (), [tool]).calls


def test_a_call_is_the_last_line_and_the_tool_that_was_named() -> None:
    tools = [Tool(name="f"), Tool(name="g")]
    found = read("First f().\ng()", (), tools)
    assert (found.text, [call.name for call in found.calls]) == ("First f().", ["g"])
    assert read("g()\nThat was it.", (), tools).calls == ()
    assert read("g()", (), tools, only="f").problem == "The tool to call is f."

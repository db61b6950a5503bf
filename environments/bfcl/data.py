"""The scenarios of BFCL v4 multi-turn as they lie in the `bfcl-eval` wheel, with their gold calls parsed.

The wheel is installed without its dependencies (they include torch and a pinned numpy), so it cannot be an
extra of this package; it is looked for when the first task begins. Its gold calls are Python call strings: they are
taken apart with `ast` and never evaluated.
"""

import ast
import importlib
import inspect
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tutelage.errors import MissingPart, UnknownName
from tutelage.types import Tool

INSTALL = "pip install --no-deps bfcl-eval==2026.3.23 && pip install mpmath"
FAMILIES = ("base", "long_context", "miss_func", "miss_param")
COUNT = 200
"""Scenarios of each family; one number is the same scenario in all four."""
DESCRIPTION_MARK = "Tool description: "
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
WIDENED = {173: ("close_ticket", "ticket_id", ["integer", "string"])}
"""Scenario → tool, argument and types: the one place where BFCL's own solution does not fit its documentation."""


@dataclass(frozen=True)
class GoldCall:
    """One call of the reference solution, its arguments by name."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One task: what the user says turn by turn, the world it starts from, and the reference solution."""

    id: str
    number: int
    classes: tuple[str, ...]
    config: dict[str, Any]
    """Initial state of each class; whoever loads it copies it first."""
    turns: tuple[str, ...]
    """What the user says; empty where BFCL hands out held-out tools instead."""
    gold: tuple[tuple[GoldCall, ...], ...]
    path: tuple[str, ...]
    """Names of the tools that BFCL lists as those the scenario was written around."""
    held_out: dict[int, tuple[str, ...]]
    """Turn → names of the tools that become available with it; not those that the solution needs earlier (`tail` in
    scenario 49)."""

    @property
    def tools(self) -> dict[str, Tool]:
        """All documented functions of its classes by name, those held out included."""
        every = {tool.name: tool for name in self.classes for tool in tools_of(name)}
        if self.number in WIDENED:
            name, argument, types = WIDENED[self.number]
            every[name] = _widened(every[name], argument, types)
        return every

    @property
    def long_context(self) -> bool:
        return "long_context" in self.id


def scenario(family: str, number: int) -> Scenario:
    """One scenario.

    Raises:
        MissingPart: the wheel is not installed.
        UnknownName: there is none.
    """
    if family not in FAMILIES:
        raise UnknownName(f"unknown BFCL family {family!r}; known: {', '.join(FAMILIES)}")
    if not 0 <= number < COUNT:
        raise UnknownName(f"BFCL {family} has the scenarios 0 to {COUNT - 1}, not {number}")
    return _scenarios(family)[number]


@cache
def tools_of(class_name: str) -> tuple[Tool, ...]:
    """The documented functions of one API class, with JSON schemas; the text all of a class share is left out.

    Raises:
        MissingPart: the wheel is not installed.
    """
    file = _backends().MULTI_TURN_FUNC_DOC_FILE_MAPPING[class_name]
    return tuple(
        Tool(
            name=doc["name"],
            description=doc["description"].partition(DESCRIPTION_MARK)[2] or doc["description"],
            parameters=_json_schema(doc["parameters"]),
        )
        for doc in _read(folder() / "data" / "multi_turn_func_doc" / file)
    )


@cache
def api_class(class_name: str) -> Any:
    """The class that holds the state of one API.

    Raises:
        MissingPart: the wheel, or mpmath, which one of its classes needs, is not installed.
    """
    return getattr(_import(_backends().CLASS_FILE_PATH_MAPPING[class_name]), class_name)


def stateless(class_name: str) -> bool:
    """Whether a class takes no scenario."""
    return class_name in _backends().STATELESS_CLASSES


@cache
def folder() -> Path:
    """Where the wheel lies.

    Raises:
        MissingPart: it is not installed.
    """
    spec = find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPart(f"BFCL is not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


@cache
def checkers() -> Any:
    """The module of the official checkers, `state_checker` and `response_checker` among them."""
    return _import("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")


@cache
def more_tools_message() -> str:
    """What the user says, word for word, when held-out tools become available."""
    prompts = _import("bfcl_eval.constants.default_prompts")
    return str(prompts.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC)


def read_call(source: str, classes: tuple[str, ...]) -> GoldCall:
    """A Python call with literal arguments, e.g. ``sort('a.txt')``; positional ones get the names that the
    function gives them."""
    call = ast.parse(source, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"not a call: {source}")
    name = call.func.id
    arguments = {key.arg: ast.literal_eval(key.value) for key in call.keywords if key.arg is not None}
    if call.args:
        owner = next(api_class(each) for each in classes if hasattr(api_class(each), name))
        names = list(inspect.signature(getattr(owner, name)).parameters)[1:]
        arguments = dict(zip(names, map(ast.literal_eval, call.args), strict=False)) | arguments
    return GoldCall(name, arguments)


@cache
def _scenarios(family: str) -> tuple[Scenario, ...]:
    data, name = folder() / "data", f"BFCL_v4_multi_turn_{family}.json"
    golds = {entry["id"]: entry["ground_truth"] for entry in _read(data / "possible_answer" / name)}
    return tuple(_made(entry, golds[entry["id"]]) for entry in _read(data / name))


def _made(entry: dict[str, Any], gold: list[list[str]]) -> Scenario:
    classes = tuple(entry["involved_classes"])
    calls = tuple(tuple(read_call(source, classes) for source in turn) for turn in gold)
    return Scenario(
        id=entry["id"],
        number=int(entry["id"].rpartition("_")[2]),
        classes=classes,
        config=entry["initial_config"],
        turns=tuple("\n".join(message["content"] for message in turn) for turn in entry["question"]),
        gold=calls,
        path=tuple(name.rpartition(".")[2] for name in entry["path"]),
        held_out={
            int(turn): tuple(name for name in names if not _used(name, calls[: int(turn)]))
            for turn, names in entry.get("missed_function", {}).items()
        },
    )


def _used(name: str, turns: tuple[tuple[GoldCall, ...], ...]) -> bool:
    return any(call.name == name for turn in turns for call in turn)


def _widened(tool: Tool, argument: str, types: list[str]) -> Tool:
    properties = tool.parameters["properties"]
    wider = properties | {argument: properties[argument] | {"type": types}}
    return tool.model_copy(update={"parameters": tool.parameters | {"properties": wider}})


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A function's documentation as JSON schema: BFCL writes Python's names of types."""
    made = dict(schema)
    kind = made.pop("type", "any")
    if kind != "any":
        made["type"] = JSON_TYPES.get(kind, kind)
    if "properties" in made:
        made["properties"] = {name: _json_schema(inner) for name, inner in made["properties"].items()}
        made["additionalProperties"] = False
    if isinstance(made.get("items"), dict):
        made["items"] = _json_schema(made["items"])
    return made


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _backends() -> Any:
    return _import("bfcl_eval.constants.executable_backend_config")


def _import(module: str) -> Any:
    folder()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPart(f"BFCL needs {error.name}: {INSTALL}") from error

"""BFCL as an environment: tasks, prompts, turns, and what it refuses. The wheel is part of the test set-up."""

import copy
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.calls import parse_call
from tutelage.conversation import turn_message
from tutelage.environments.bfcl import Bfcl, BfclSingle, data, split
from tutelage.environments.bfcl.offer import PROMPT_TOKENS
from tutelage.environments.bfcl.world import World
from tutelage.environments.tools import OBSERVATION_LENGTH
from tutelage.errors import EnvironmentBroken, MissingPart, UnknownName
from tutelage.tools import signature, write_call
from tutelage.training.weights import load_tokenizer
from tutelage.types import Cause, Diagnosis, Split, Task

BOTH = (Bfcl, BfclSingle)
MAIN = ("GorillaFileSystem", "VehicleControlAPI", "TradingBot", "TravelAPI")
"""The API that the scenarios of each group are about."""


def _task(family: str, number: int, cls: type[Bfcl] = Bfcl) -> Task:
    part = next(part for part in Split if number in cls.seeds(part, family))
    return Task(environment=cls.name, family=family, seed=number, split=part)


def _begun(family: str, number: int, cls: type[Bfcl] = Bfcl) -> Bfcl:
    environment = cls()
    environment.reset(options={"task": _task(family, number, cls)})
    return environment


def _play(task: Task, actions: tuple[str, ...] | None = None) -> list[tuple[str, float, bool, Diagnosis, float]]:
    environment = Bfcl() if task.environment == "bfcl" else BfclSingle()
    environment.reset(options={"task": task})
    steps = []
    for action in actions if actions is not None else environment.gold(task):
        observation, reward, terminated, _, info = environment.step(action)
        steps.append((observation, reward, terminated, info["diagnosis"], info["credit"]))
    return steps


def _sample(full: bool) -> Iterator[tuple[type[Bfcl], Task]]:
    for cls in BOTH:
        for offset, family in enumerate(cls.families()):
            for number in range(0 if full else 3 * offset, data.COUNT, 1 if full else 13):
                yield cls, _task(family, number, cls)


# -- tasks --------------------------------------------------------------------------------------


def test_splits_are_by_scenario_and_balanced() -> None:
    parts = {part: Bfcl.seeds(part, "base") for part in Split}
    assert sorted(number for numbers in parts.values() for number in numbers) == list(range(200))
    for group in split.GROUPS.values():
        assert [len(set(numbers) & set(group)) for numbers in parts.values()] == [30, 10, 10]
    for part in Split:
        assert {tuple(Bfcl.seeds(part, family)) for family in Bfcl.families()} == {
            tuple(BfclSingle.seeds(part, "base"))
        }


def test_scenarios_that_are_alike_are_all_for_training() -> None:
    """What the rule lists is what the data says: an equal state of the main API, first message or solution."""
    found = set()
    for left, right in combinations([data.scenario("base", number) for number in range(data.COUNT)], 2):
        name = MAIN[left.number // 50]
        alike = left.turns[0] == right.turns[0] or left.gold == right.gold or left.config == right.config
        if alike or (right.number // 50 == left.number // 50 and left.config[name] == right.config[name]):
            found |= {left.number, right.number}
    assert found == {number for group in split.ALIKE for number in group}
    assert found <= set(Bfcl.seeds(Split.TRAIN, "base"))


def test_every_group_has_its_main_api() -> None:
    for group, api in zip(split.GROUPS.values(), MAIN, strict=True):
        assert all(api in data.scenario("base", number).classes for number in group)


@pytest.mark.parametrize(("family", "number"), [("base", 200), ("base", -1), ("other", 0)])
def test_no_such_task(family: str, number: int) -> None:
    with pytest.raises(UnknownName):
        Bfcl().reset(options={"task": Task(environment="bfcl", family=family, seed=number, split=Split.TRAIN)})


def test_single_has_one_family() -> None:
    with pytest.raises(UnknownName, match="bfcl-single"):
        BfclSingle.gold(Task(environment="bfcl-single", family="miss_func", seed=0, split=Split.TRAIN))


def test_missing_wheel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = _task("base", 0)
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    data.folder.cache_clear()
    data._scenarios.cache_clear()
    try:
        with pytest.raises(MissingPart, match=r"pip install --no-deps bfcl-eval==2026\.3\.23"):
            Bfcl().reset(options={"task": task})
    finally:
        data.folder.cache_clear()


def test_import_does_not_load_the_wheel() -> None:
    code = "import sys, tutelage.environments.bfcl; sys.exit('bfcl_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- prompts and reference solutions ------------------------------------------------------------


def test_first_prompt_stays_within_the_budget(full_counts: bool) -> None:
    tokenizer = load_tokenizer("smollm2")
    longest = 0
    for cls, task in _sample(full_counts):
        environment = cls()
        observation, info = environment.reset(options={"task": task})
        first = turn_message(observation, goal=info["goal"])
        messages = [{"role": "system", "content": environment.system}, first.model_dump()]
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        longest = max(longest, len(tokens))
    assert 300 < longest <= PROMPT_TOKENS


def test_reference_solutions_fit_the_offered_tools_and_win(full_counts: bool) -> None:
    for _, task in _sample(full_counts):
        steps = _play(task)
        assert all(diagnosis.fine for *_, diagnosis, _ in steps), task.id
        assert [terminated for _, _, terminated, _, _ in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[-1][1] == 1.0, task.id
        credits = [credit for *_, credit in steps]
        assert credits == sorted(credits)
        assert credits[-1] == 1.0
        assert all(len(observation) < OBSERVATION_LENGTH + 1000 for observation, *_ in steps)


def test_without_the_last_call_of_every_turn_none_wins(full_counts: bool) -> None:
    for cls, task in _sample(full_counts):
        gold = cls.gold(task)
        kept = tuple(a for a, after in zip(gold, (*gold[1:], ""), strict=True) if after != "end_turn()" or a == after)
        _, reward, terminated, diagnosis, credit = _play(task, kept)[-1]
        assert (reward, terminated, diagnosis.cause) == (0.0, True, Cause.WRONG_END)
        assert credit < 1.0


def test_an_offer_holds_more_than_what_is_needed_and_is_the_same_each_time() -> None:
    first, again = _begun("base", 10), _begun("base", 10)
    assert first.system == again.system
    needed = {parse_call(action).name for action in Bfcl.gold(_task("base", 10))}
    offered = {tool.name for tool in first.tools}
    assert needed < offered
    assert len(offered - needed) >= 3


# -- turns --------------------------------------------------------------------------------------


def test_held_out_tools_come_with_the_turn_that_brings_them() -> None:
    """Scenario 0 asks for sorting in its third turn, without a tool for it, and brings it with the fourth."""
    environment = _begun("miss_func", 0)
    gold = Bfcl.gold(_task("miss_func", 0))
    sort = next(action for action in gold if action.startswith("sort("))
    assert "sort(" not in environment.system
    for action in gold[: gold.index(sort) - 1]:
        environment.step(action)
    *_, info = environment.step(sort)
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    assert "no tool 'sort'" in info["diagnosis"].evidence
    observation, *_ = environment.step("end_turn()")
    tool = next(tool for tool in environment.tools if tool.name == "sort")
    assert observation == f"User: {data.more_tools_message()}\nNew tools:\n{signature(tool)}"
    *_, info = environment.step(sort)
    assert info["diagnosis"].cause is Cause.PROGRESS


def test_the_user_speaks_after_end_turn() -> None:
    environment = _begun("base", 0)
    observation, reward, terminated, _, info = environment.step("end_turn()")
    assert observation == f"User: {data.scenario('base', 0).turns[1]}"
    assert (reward, terminated, info["credit"]) == (0.0, False, 0.0)


def test_single_ends_with_its_first_turn() -> None:
    task = _task("base", 0, BfclSingle)
    steps = _play(task)
    assert BfclSingle.gold(task) == Bfcl.gold(_task("base", 0))[: len(steps)]
    assert steps[-1][1:3] == (1.0, True)


def test_an_episode_that_is_over_takes_no_more() -> None:
    environment = _begun("base", 0, BfclSingle)
    environment.step("end_turn()")
    with pytest.raises(EnvironmentBroken, match="reset"):
        environment.step("end_turn()")


def test_an_error_of_a_tool_is_shown_and_is_a_failed_action() -> None:
    environment = _begun("base", 0)
    observation, _, terminated, _, info = environment.step('cd({"folder": "nowhere"})')
    assert json.loads(observation) == {"error": "cd: 'nowhere': No such file or directory"}
    assert info["diagnosis"].cause is Cause.ACTION_FAILED
    assert info["diagnosis"].evidence == "cd: 'nowhere': No such file or directory"
    assert not terminated


# -- refusing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ('cd({"folder": "document", "force": true})', "no argument 'force'"),
        ('cd({"folder": 3})', "Wrong arguments of folder"),
        ("cd({})", "'folder' is a required property"),
        ('cd("document")', "takes one JSON object"),
        ("cd(folder='document')", "not JSON"),
        ('end_turn({"now": true})', "no argument 'now'"),
        ('_load_scenario({"scenario": {}})', "no tool '_load_scenario'"),
        ('cd.__init__({"folder": "x"})', "no tool 'cd.__init__'"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(action: str, says: str) -> None:
    environment = _begun("base", 0)
    before = environment.observation
    observation, *_, info = environment.step(action)
    assert observation == before
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    assert says in info["diagnosis"].evidence


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power", {"base": 9, "exponent": 999999999}),
        ("logarithm", {"value": 2, "base": 10, "precision": 10**9}),
        ("square_root", {"number": 2, "precision": 10**9}),
        ("round_number", {"number": 2, "decimal_places": -(10**9)}),
        ("sum_values", {"numbers": [10**40]}),
        ("absolute_value", {"number": 10**3000}),
    ],
)
def test_endless_computations_are_refused(name: str, arguments: dict[str, Any]) -> None:
    number = next(n for n in range(50) if "MathAPI" in data.scenario("base", n).classes)
    environment = _begun("base", number)
    environment.offer(list(data.scenario("base", number).tools.values()))
    *_, info = environment.step(write_call(name, arguments))
    assert info["diagnosis"].cause is Cause.ACTION_FAILED


def test_folders_copied_into_themselves_end_the_episode() -> None:
    environment = _begun("base", 0)
    environment.offer(list(data.scenario("base", 0).tools.values()))
    observation, reward, terminated, _, info = environment.step('cp({"source": "document", "destination": "document"})')
    assert "file system" in observation
    assert (reward, terminated) == (0.0, True)
    assert info["diagnosis"].cause is Cause.WRONG_END


def test_no_text_raises_or_runs_anything(tmp_path: Path, full_counts: bool) -> None:
    """Calls, half calls and code: the step answers with a diagnosis, and nothing is ever evaluated."""
    flag = tmp_path / "flag"
    code = f"__import__('pathlib').Path({str(flag)!r}).touch()"
    environment = _begun("base", 0)
    tools = [tool for tool in environment.tools if tool.name != "end_turn"]
    names = st.sampled_from([*(tool.name for tool in tools), "end_turn", "eval", "_load_scenario", "__class__"])
    keys = st.sampled_from(["folder", "file_name", "source", "destination", "pattern", "content", "self", "x"])
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=8)
        | st.sampled_from([code, "..", ".", "/", "document", "\ud800", "9" * 400]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
        max_leaves=4,
    )  # fmt: skip
    calls = st.builds(
        lambda name, args: f"{name}({json.dumps(args)})", names, st.dictionaries(keys, values, max_size=3)
    )
    loose = st.builds(lambda name, rest: f"{name}({rest})", names, st.text(max_size=20) | st.just(code))

    @settings(max_examples=1000 if full_counts else 200, deadline=None, derandomize=True)
    @given(action=calls | loose | st.text(max_size=40) | st.just(code))
    def check(action: str) -> None:
        if environment._world is None:
            environment.reset(options={"task": environment.task})
        observation, reward, *_, info = environment.step(action)
        assert isinstance(info["diagnosis"].cause, Cause)
        assert isinstance(observation, str)
        assert reward == 0.0

    check()
    assert not flag.exists()


# -- isolation ----------------------------------------------------------------------------------


def test_worlds_share_nothing_not_even_the_constants_of_a_long_context() -> None:
    constants = importlib.import_module(f"{data.api_class('TravelAPI').__module__.rpartition('.')[0]}.long_context")
    before = copy.deepcopy({name: value for name, value in vars(constants).items() if name.isupper()})
    number = next(n for n in range(150, 200) if data.scenario("long_context", n).classes == ("TravelAPI",))
    one, other = World(data.scenario("long_context", number)), World(data.scenario("long_context", number))
    for card in one.instances["TravelAPI"].credit_card_list.values():
        card["balance"] = -1.0
    assert all(card["balance"] != -1.0 for card in other.instances["TravelAPI"].credit_card_list.values())
    assert {name: getattr(constants, name) for name in before} == before


def test_episodes_in_threads_are_the_same_as_alone() -> None:
    tasks = [_task("long_context", number) for number in (55, 58, 62, 95, 160, 175, 190)] * 3
    alone = {task.id: _play(task) for task in tasks}
    with ThreadPoolExecutor(6) as pool:
        assert [alone[task.id] for task in tasks] == list(pool.map(_play, tasks))

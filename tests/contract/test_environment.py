"""What every environment owes its callers. Chromium is part of the test set-up, so nothing is skipped."""

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.calls import CallError, parse_call
from tutelage.environments import Environment
from tutelage.environments.page import SIGNATURES, elements
from tutelage.environments.suite import Suite
from tutelage.tools import check_call, listing
from tutelage.types import Cause, Split

MALFORMED = {"miniwob": (60, 1000)}
"""Malformed actions per environment, as a sample and in full, where it is not 1,000 always."""
PAGES = {"toy": ("copy", "tick"), "miniwob": ("enter-text", "click-checkboxes")}
TOOLS = {
    "bfcl": ("base", "miss_param"),
    "files": ("move", "rename"),
    "mcp": ("lookup", "copy"),
    "research": ("bridges", "founding-gap"),
    "sqlite": ("lookup", "update"),
}
FAMILIES = PAGES | TOOLS
"""Two families each that stay as they are while nothing is done."""
SETTINGS = {"mcp": {"tasks": str(Path(__file__).resolve().parents[2] / "examples" / "mcp_files" / "tasks.toml")}}
REFUSED = {Cause.INVALID_ACTION, Cause.UNKNOWN_TARGET, Cause.ACTION_FAILED}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    yield from _made(request.param)


@pytest.fixture(scope="module", params=sorted(PAGES))
def page(request: pytest.FixtureRequest) -> Iterator[Environment]:
    yield from _made(request.param)


@pytest.fixture(scope="module", params=sorted(TOOLS))
def toolbox(request: pytest.FixtureRequest) -> Iterator[Environment]:
    yield from _made(request.param)


def _made(name: str) -> Iterator[Environment]:
    made = Suite.open([(name, (), SETTINGS.get(name, {}))]).make(name)
    yield made
    made.close()


def _begin(environment: Environment, family: int = 0, seed: int = 0) -> tuple[str, str]:
    observation, info = environment.reset(seed=seed, options={"family": FAMILIES[environment.name][family]})
    return info["goal"], observation


def test_same_task_is_the_same_episode_and_seeds_differ(environment: Environment) -> None:
    seen = [_begin(environment, family, seed) for family in (0, 1) for seed in range(3)]
    again = [_begin(environment, family, seed) for family in (0, 1) for seed in range(3)]
    assert seen == again
    assert len(set(seen)) >= 4


def test_splits_share_no_seed(environment: Environment) -> None:
    seeds = [{task.id for task in environment.tasks(split, count=50)} for split in Split]
    assert sum(map(len, seeds)) == len(set.union(*seeds))
    assert all(seeds)


def test_gymnasium_api(environment: Environment) -> None:
    assert isinstance(environment, gymnasium.Env)
    assert list(environment.families()) == sorted(set(environment.families()))
    task = environment.tasks(Split.VALIDATION, FAMILIES[environment.name])[0]
    observation, info = environment.reset(options={"task": task})
    assert environment.task == task
    assert isinstance(observation, str)
    assert info["goal"]
    after, reward, terminated, truncated, info = environment.step("nothing")
    assert (after, reward, terminated, truncated) == (observation, 0.0, False, False)
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    assert environment.system


def test_doing_nothing_and_going_round_in_circles(page: Environment) -> None:
    _begin(page)
    *_, info = page.step("noop()")
    assert info["diagnosis"].cause is Cause.NO_EFFECT
    *_, info = page.step("noop()")
    assert info["diagnosis"].cause is Cause.REPEATED


def test_tools_are_offered_and_listed(toolbox: Environment) -> None:
    _begin(toolbox)
    assert toolbox.tools
    assert toolbox.system.endswith(listing(toolbox.tools))
    *_, info = toolbox.step("format_disk({})")
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    assert toolbox.tools[0].name in info["diagnosis"].evidence


def test_meaning_comes_from_the_text_alone(page: Environment) -> None:
    _, observation = _begin(page)
    target = next(e for e in elements(observation) if e.role == "button")
    cls = type(page)
    assert cls.meaning(f'click("{target.ref}")', observation) == f'click(button "{target.name}")'
    assert cls.meaning('click("r99")', observation) == ""
    assert cls.meaning("click it", observation) == ""


def test_difference_is_told(page: Environment) -> None:
    _, observation = _begin(page)
    box = next(e for e in elements(observation) if e.role == "textbox")
    _, _, _, _, info = page.step(f'fill("{box.ref}", "Grüße \\"x\\"")')
    assert info["diagnosis"].cause is Cause.PROGRESS
    changed = [e for line in info["diagnosis"].added for e in elements(line)]
    assert [e.states["value"] for e in changed if e.role == "textbox"] == ['Grüße "x"']


_words = st.sampled_from([*SIGNATURES, "submit", "eval", "__import__", "Click"])
_arguments = st.lists(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=20),
        st.sampled_from(["r0", "r99", "r1 ", "R1", "#r1", '"]']),
        st.lists(st.text(max_size=3), max_size=2),
    ),
    max_size=4,
)
_junk = st.one_of(
    st.text(max_size=60),
    st.builds(lambda name, rest: f"{name}({rest})", _words, st.text(max_size=30)),
    st.builds(lambda name, args: f"{name}({', '.join(json.dumps(arg) for arg in args)})", _words, _arguments),
    st.builds(lambda n: "click(" + "[" * n + "]" * n + ")", st.integers(1, 1900)),
    st.sampled_from(
        ['click("r1") click("r1")', 'click("r1");', 'I think\nclick("r99")', 'fill("r1", NaN)', "x" * 5000]
    ),
)


def _well_formed(environment: Environment, action: str) -> bool:
    try:
        if environment.tools:
            return bool(check_call(parse_call(action), environment.tools) or True)
        return bool(type(environment).meaning(action, environment.observation)) and bool(parse_call(action))
    except CallError:
        return False


def test_malformed_actions_are_diagnosed(environment: Environment, full_counts: bool) -> None:
    """Whatever a policy writes, the step says what is wrong, and neither raises nor changes the page."""
    count = MALFORMED.get(environment.name, (1000, 1000))[full_counts]
    _, observation = _begin(environment)

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(action=_junk.filter(lambda text: not _well_formed(environment, text)))
    def check(action: str) -> None:
        after, reward, terminated, truncated, info = environment.step(action)
        diagnosis = info["diagnosis"]
        assert diagnosis.cause in REFUSED
        assert 10 < len(diagnosis.evidence) < 400
        assert "\n" not in diagnosis.evidence
        assert "Traceback" not in diagnosis.evidence
        assert (after, reward, terminated, truncated) == (observation, 0.0, False, False)

    check()


def test_any_text_can_be_written(page: Environment, full_counts: bool) -> None:
    """Quotes, line ends, control characters and half characters neither raise nor break the page's lines."""
    _, observation = _begin(page)
    box = next(e for e in elements(observation) if e.role == "textbox")

    @settings(max_examples=300 if full_counts or page.name == "toy" else 20, deadline=None, derandomize=True)
    @given(text=st.text(st.characters(), max_size=30) | st.sampled_from(["\ud800", "\u2028", "\x85", '"]\n[r9] x "']))
    def check(text: str) -> None:
        after, *_, info = page.step(f'fill("{box.ref}", {json.dumps(text)})')
        assert isinstance(info["diagnosis"].cause, Cause)
        assert len(elements(after)) == len(after.splitlines()) == len(observation.splitlines())

    check()


@pytest.mark.parametrize(
    ("action", "cause", "says"),
    [
        ("", Cause.INVALID_ACTION, "empty"),
        ("click r1", Cause.INVALID_ACTION, "not an action"),
        ("click(r1)", Cause.INVALID_ACTION, "double quotes"),
        ('click("r1", "r2")', Cause.INVALID_ACTION, 'click("r1")'),
        ('fill("r1")', Cause.INVALID_ACTION, 'fill("r1", "text")'),
        ('fill("r1", 3)', Cause.INVALID_ACTION, "double quotes"),
        ('hover("r1")', Cause.INVALID_ACTION, "the actions are click"),
        ('click("r77")', Cause.UNKNOWN_TARGET, "'r77'"),
    ],
)
def test_diagnosis_says_what_is_wrong(page: Environment, action: str, cause: Cause, says: str) -> None:
    _begin(page)
    *_, info = page.step(action)
    assert info["diagnosis"].cause is cause
    assert says in info["diagnosis"].evidence


def test_writing_into_a_button_is_refused(page: Environment) -> None:
    _, observation = _begin(page)
    button = next(e for e in elements(observation) if e.role == "button")
    *_, info = page.step(f'fill("{button.ref}", "x")')
    assert info["diagnosis"].cause is Cause.ACTION_FAILED
    assert button.ref in info["diagnosis"].evidence

"""What every environment owes those who design tasks for it; the designs here are written by hand."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.designs import DESIGNED, EXPLORED, Design
from tutelage.environments.base import BUILTIN, Environment, environment_class
from tutelage.environments.suite import Suite
from tutelage.errors import DesignRefused
from tutelage.types import Cause, Split, Task

SETTINGS = {"mcp": {"tasks": str(Path(__file__).resolve().parents[2] / "examples" / "mcp_files" / "tasks.toml")}}


@dataclass(frozen=True)
class Case:
    """A design with the calls that solve it."""

    base: tuple[str, int]
    end: dict[str, Any]
    calls: tuple[str, ...]
    extra: str
    """A call whose effect the end does not name."""
    as_the_start: dict[str, Any]
    keys: tuple[str, ...]
    """Words of the end's form."""


CASES = {
    "files": Case(
        ("move", 17),
        {
            "gone": ["stats.md"],
            "texts": {"poem.dat": "fetch the small needle\nsell it", "new/count.txt": "7"},
            "moved": {"office/guests.json": "guests.json"},
            "copied": {"guide.bak": "office/guide.json"},
        },
        (
            'remove({"file": "stats.md"})',
            'read({"file": "poem.dat"})',
            'write({"file": "poem.dat", "text": "fetch the small needle\\nsell it"})',
            'write({"file": "new/count.txt", "text": "7"})',
            'move({"source": "guests.json", "target": "office/guests.json"})',
            'copy({"source": "office/guide.json", "target": "guide.bak"})',
            "done({})",
        ),
        'remove({"file": "bank/tour.tmp"})',
        {"texts": {"poem.dat": "fetch the small needle"}, "moved": {"stats.md": "stats.md"}},
        ("gone", "texts", "moved", "copied", "stats.md", "poem.dat", "office", "bank/tour.tmp", "a.txt", "../a"),
    ),
    "sqlite": Case(
        ("count", 3),
        {
            "tables": {
                "teachers": {"removed": [["Jack", "sport", 10]], "added": [["Jack", "art", 10], ["Zoe", "art", 11]]},
                "courses": {"removed": [["film", "Ada", 37]]},
            }
        },
        (
            """query({"sql": "UPDATE teachers SET subject = 'art' WHERE teacher = 'Jack'"})""",
            """query({"sql": "INSERT INTO teachers VALUES ('Zoe', 'art', 11)"})""",
            """query({"sql": "DELETE FROM courses WHERE course = 'film'"})""",
            "done({})",
        ),
        """query({"sql": "DELETE FROM courses WHERE course = 'yoga'"})""",
        {"tables": {"teachers": {"removed": [["Ada", "maths", 45]], "added": [["Ada", "maths", 45]]}}},
        ("answer", "tables", "teachers", "courses", "removed", "added", "film", "Ada", "pupils"),
    ),
    "mcp": Case(
        ("copy", 0),
        {"checks": [{"kind": "text", "path": "final.txt", "equals": "Done."}]},
        ('write_file({"path": "final.txt", "content": "Done."})', "done({})"),
        'write_file({"path": "draft.txt", "content": "Gone."})',
        {"checks": [{"kind": "exists", "path": "draft.txt"}, {"kind": "absent", "path": "final.txt"}]},
        ("checks", "kind", "path", "equals", "exists", "absent", "text", "result", "answer", "tool", "draft.txt", ".."),
    ),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def plain(request: pytest.FixtureRequest) -> type[Environment]:
    """An environment's class, without designs."""
    return Suite.open([(request.param, (), SETTINGS.get(request.param, {}))]).parts[0].environment


@pytest.fixture
def case(plain: type[Environment]) -> Case:
    return CASES[plain.name]


@pytest.fixture
def playing(plain: type[Environment], case: Case) -> Iterator[Environment]:
    """An environment that plays two designs: number 4 has an end, number 5 is for looking around."""
    made = plain.with_designs([design(plain, case.end), design(plain, None, number=5)]).for_evaluation()
    yield made
    made.close()


def design(plain: type[Environment], end: dict[str, Any] | None, number: int = 4, **changes: Any) -> Design:
    family, seed = CASES[plain.name].base
    base = Task(environment=plain.name, family=family, seed=seed, split=Split.TRAIN)
    mine = base.model_copy(update={"family": EXPLORED if end is None else DESIGNED, "seed": number})
    return Design(**{"task": mine, "base": base, "goal": "Tidy up.", "end": end, **changes})


def refusal(plain: type[Environment], given: Design) -> str:
    """Why it is refused; the empty string if it is not."""
    try:
        plain.check_design(given)
    except DesignRefused as error:
        return str(error)
    return ""


def play(environment: Environment, number: int, calls: tuple[str, ...]) -> tuple[list[float], bool, Cause]:
    """Credit after each call, whether it is solved, and the last diagnosis."""
    found = next(found for found in environment.designs.values() if found.task.seed == number)
    _, info = environment.reset(options={"task": found.task})
    assert info["goal"] == found.goal
    credit, reward = [], 0.0
    for call in calls:
        _, reward, over, _, info = environment.step(call)
        assert info["diagnosis"].fine or over, (call, info["diagnosis"])
        credit.append(info["credit"])
    assert over
    return credit, reward > 0, info["diagnosis"].cause


def test_every_environment_with_a_guide_is_here() -> None:
    assert {name for name in BUILTIN if environment_class(name).design_guide} == set(CASES)


def test_a_design_is_solved_by_what_its_end_says(plain: type[Environment], playing: Environment, case: Case) -> None:
    plain.check_design(playing.designs[f"{plain.name}/designed@4"])
    credit, solved, cause = play(playing, 4, case.calls)
    assert (solved, cause, credit[-1]) == (True, Cause.SOLVED, 1.0)
    assert credit == sorted(credit)


def test_a_side_effect_or_a_step_too_few_is_a_wrong_end(playing: Environment, case: Case) -> None:
    *doing, ending = case.calls
    for calls in ((*doing, case.extra, ending), (*doing[:-1], ending), (ending,)):
        credit, solved, cause = play(playing, 4, calls)
        assert (solved, cause) == (False, Cause.WRONG_END)
        assert credit[-1] < 1.0


def test_looking_around_is_never_solved(plain: type[Environment], playing: Environment, case: Case) -> None:
    plain.check_design(playing.designs[f"{plain.name}/explored@5"])
    for calls in (("done({})",), case.calls):
        credit, solved, cause = play(playing, 5, calls)
        assert (solved, cause, credit[-1]) == (False, Cause.WRONG_END, 0.0)


def test_a_design_begins_where_its_base_begins(plain: type[Environment], playing: Environment) -> None:
    found = design(plain, CASES[plain.name].end)
    first = [playing.reset(options={"task": task})[0] for task in (found.base, found.task, found.task)]
    assert len(set(first)) == 1
    assert type(playing).families() == plain.families(), "designs are not drawn"


def test_what_holds_at_the_start_is_no_task(plain: type[Environment], case: Case) -> None:
    with pytest.raises(DesignRefused, match="start"):
        plain.check_design(design(plain, case.as_the_start))


def test_task_base_and_goal_have_to_be_in_form(plain: type[Environment], case: Case) -> None:
    good = design(plain, case.end)
    test = plain.tasks(Split.TEST, [good.base.family])[0]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"base": test}, "is not a train task"),
        ({"base": test.model_copy(update={"split": Split.TRAIN})}, "is not a train task"),
        ({"base": good.base.model_copy(update={"family": "nothing"})}, "is not a train task"),
        ({"base": good.base.model_copy(update={"environment": "toy"})}, "is not a train task"),
        ({"base": good.task}, "is not a train task"),
        ({"task": good.base}, "is not the id of a train task"),
        ({"end": None}, "is not the id of a train task"),
        ({"end": {}}, "the end is empty"),
        ({"end": {**case.end, "more": 1}}, r"end\.more: Extra inputs"),
        ({"goal": " \n"}, "the goal must be"),
        ({"goal": "Ring the bell\x07"}, "the goal must be"),
        ({"goal": "long " * 500}, "the goal must be"),
        ({"values": {"name": "half \ud800"}}, "cannot be written as JSON"),
        ({"values": {"name": "x" * 30_000}}, "at most 20000"),
    ]
    for change, says in changes:
        with pytest.raises(DesignRefused, match=says):
            plain.check_design(good.model_copy(update=change))


def test_the_guide_shows_ends_in_form(plain: type[Environment]) -> None:
    """Its examples are about other files and rows, so that nothing but these is wrong with them."""
    examples = [line for line in plain.design_guide.splitlines() if line.startswith("{")]
    assert examples
    assert len(plain.design_guide.splitlines()) <= 25
    for line in examples:
        said = refusal(plain, design(plain, json.loads(line)))
        assert not said or "at the start" in said or "there is no table" in said


def test_any_json_is_an_end_or_refused(plain: type[Environment], case: Case, full_counts: bool) -> None:
    """Refused in one line that can be kept and shown."""
    words = st.sampled_from(case.keys) | st.text(max_size=6)
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | words
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=9
    )
    count = 5000 if full_counts else 500

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(end=st.dictionaries(words, values, max_size=3))
    def check(end: dict[str, Any]) -> None:
        said = refusal(plain, design(plain, end))
        assert not said or 10 < len(said) <= 300
        assert "\n" not in said
        said.encode()

    check()
    nested: Any = 1
    for _ in range(5000):
        nested = [nested]
    assert "nested too deeply" in refusal(plain, design(plain, {case.keys[0]: nested}))

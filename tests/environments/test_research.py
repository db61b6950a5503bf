"""The research environment: its fixed questions, its three tools, and what it makes of mistakes."""

import hashlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.environments.research import Research
from tutelage.environments.research.questions import Question, questions
from tutelage.environments.research.world import index, world
from tutelage.environments.search_index import Passage, SearchIndex
from tutelage.environments.tools import NOTHING_YET
from tutelage.errors import MissingPart, UnknownName
from tutelage.tools import write_call
from tutelage.types import Cause, Diagnosis, Split, Task

REFUSED = {Cause.INVALID_ACTION, Cause.ACTION_FAILED}


@pytest.fixture(scope="module")
def environment() -> Iterator[Research]:
    made = Research()
    yield made
    made.close()


def _begin(environment: Research, family: str = "population-sum", seed: int = 0) -> Question:
    environment.reset(seed=seed, options={"family": family})
    return questions(family, Split.TRAIN)[seed]


def _step(environment: Research, tool: str, argument: str) -> tuple[str, float, bool, Diagnosis]:
    name = {"search": "query", "python": "code", "answer": "value"}[tool]
    observation, reward, over, _, info = environment.step(write_call(tool, {name: argument}))
    return observation, reward, over, info["diagnosis"]


# -- the world and its questions ----------------------------------------------------------------


def test_the_world_is_the_same_on_every_machine() -> None:
    """Records name tasks by number, so a change of the world needs a new seed, and new digests here."""
    text = json.dumps([(p.title, p.text) for p in world().passages])
    asked = json.dumps([(q.text, q.answer) for f in Research.families() for s in Split for q in questions(f, s)])
    assert [hashlib.sha256(part.encode()).hexdigest()[:12] for part in (text, asked)] == [
        "0c10fdec9fd5",
        "0b89a7eb6df5",
    ]


def test_passages_are_short_and_titles_are_unique() -> None:
    passages = world().passages
    assert 300 < len(passages) == len({p.title for p in passages}) < 700
    assert max(len(p.text.split()) for p in passages) <= 30


@pytest.mark.parametrize("family", Research.families())
def test_splits_ask_about_different_things(family: str) -> None:
    parts = [questions(family, split) for split in Split]
    everything = [question for part in parts for question in part]
    assert len({question.text for question in everything}) == len(everything) >= 300
    about = [frozenset.union(*(question.sources for question in part)) for part in parts]
    assert sum(map(len, about)) == len(frozenset.union(*about))
    seeds = [Research.seeds(split, family) for split in Split]
    assert [number for part in seeds for number in part] == list(range(len(everything)))


@pytest.mark.parametrize("family", Research.families())
def test_the_prompt_does_not_give_the_answer_and_a_search_by_name_finds_every_source(family: str) -> None:
    for split in Split:
        for question in questions(family, split):
            assert question.accepts(question.answer)
            assert question.answer not in question.text or family == "densest-town"
            assert all(index().search(title)[0].title == title for title in question.sources)


def test_same_task_is_the_same_episode(environment: Research) -> None:
    tasks = Research.tasks(Split.VALIDATION, count=5)
    goals = [environment.reset(options={"task": task})[1]["goal"] for task in tasks]
    again = [environment.reset(options={"task": task})[1]["goal"] for task in tasks]
    assert goals == again
    assert len(set(goals)) == len(tasks)


@pytest.mark.parametrize(("family", "seed"), [("population-sum", 10_000), ("population-sum", -1), ("nothing", 0)])
def test_unknown_tasks_are_refused(environment: Research, family: str, seed: int) -> None:
    task = Task(environment="research", family=family, seed=seed, split=Split.TRAIN)
    with pytest.raises(UnknownName, match="population-sum"):
        environment.reset(options={"task": task})


# -- tools --------------------------------------------------------------------------------------


def test_index_ranks_by_words_and_keeps_the_order_of_equals() -> None:
    small = SearchIndex([Passage("A", "red boat"), Passage("B", "red boat"), Passage("C", "red red house")])
    assert [passage.title for passage in small.search("boat")] == ["A", "B"]
    assert [passage.title for passage in small.search("a red house", count=1)] == ["C"]
    assert small.search("the") == small.search("") == small.search("green") == []


def test_search_shows_three_passages_and_credit_grows_with_what_is_found(environment: Research) -> None:
    question = _begin(environment)
    credits = []
    for title in sorted(question.sources):
        observation, *_, info = environment.step(write_call("search", {"query": title}))
        credits.append(info["credit"])
        assert observation.startswith(f"[1] {title}: ")
        assert len(observation.splitlines()) <= 3
    assert credits == [0.25, 0.5]
    assert _step(environment, "search", "xyzzy")[0] == "No passage has any of these words."


def test_python_prints_fails_and_forgets(environment: Research) -> None:
    _begin(environment)
    assert _step(environment, "python", "x = 6\nprint(x * 7)")[0] == "Printed: 42"
    huge = "raise ValueError('\\n' + 'x' * 9000)"
    for code, says in [("print(x)", "NameError"), (huge, "ValueError"), ("6 * 7", "printed nothing")]:
        observation, reward, over, diagnosis = _step(environment, "python", code)
        assert (observation, reward, over) == ("Printed: 42", 0.0, False)
        assert diagnosis.cause is Cause.ACTION_FAILED
        assert says in diagnosis.evidence
        assert "\n" not in diagnosis.evidence
        assert len(diagnosis.evidence) < 300
    long, *_ = _step(environment, "python", "print('ab' * 5000)")
    assert len(long) < 1500
    assert "left out" in long


def test_python_runs_where_neither_the_answers_nor_this_folder_can_be_read(environment: Research) -> None:
    """A policy that imports or reads the questions would be solving something else."""
    _begin(environment)
    for code in ("import tutelage", f"open({__file__!r})", "open('/proc/self/environ')"):
        *_, diagnosis = _step(environment, "python", f"{code}\nprint('here')")
        assert diagnosis.cause is Cause.ACTION_FAILED, code


def test_right_and_wrong_answers_end_the_episode(environment: Research) -> None:
    for seed, (change, wanted) in enumerate([(0, 1.0), (1, 0.0), (-1, 0.0)]):
        right = int(_begin(environment, seed=seed).answer)
        _, reward, over, diagnosis = _step(environment, "answer", str(right + change))
        assert (reward, over) == (wanted, True)
        assert diagnosis.cause is (Cause.SOLVED if wanted else Cause.WRONG_END)


@pytest.mark.parametrize(
    ("answer", "value", "accepted"),
    [
        ("77799", " 77,799 ", True),
        ("77799", "77799.0", True),
        ("77799", "77,799 people", False),
        ("34.3", "34.333333", True),
        ("34.3", "34.2", False),
        ("3", "nan", False),
        ("3", "inf", False),
        ("3", "", False),
        ("Langdale", " langdale.", True),
        ("Langdale", "Langdale or Pemstead", False),
    ],
)
def test_answers_are_compared_as_numbers_or_as_words(answer: str, value: str, accepted: bool) -> None:
    assert Question("?", answer, frozenset()).accepts(value) is accepted


# -- refusing -----------------------------------------------------------------------------------


def test_no_isolation_no_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(**_: object) -> None:
        raise MissingPart("no isolation on this machine")

    monkeypatch.setattr("tutelage.environments.research.env.open_sandbox", nothing)
    with pytest.raises(MissingPart, match="no isolation"):
        Research().reset()


_texts = st.text(st.characters(), max_size=40)
_actions = st.one_of(
    _texts,
    st.builds("{}({})".format, st.sampled_from(["search", "python", "answer", "open"]), _texts),
    st.builds(
        lambda name, arguments: f"{name}({json.dumps(arguments)})",
        st.sampled_from(["search", "python", "answer", "open"]),
        st.dictionaries(
            st.sampled_from(["query", "code", "value", "x"]),
            st.one_of(_texts, st.integers(), st.none(), st.lists(_texts, max_size=2)),
            max_size=2,
        ),
    ),
    st.builds(lambda text: write_call("search", {"query": text}), _texts),
    st.builds(lambda text: write_call("python", {"code": text}), _texts),
    st.sampled_from(["search({})", "search()", "python(1)", "search([" * 800, "x" * 5000, 'search({"query": NaN})']),
)


def test_no_action_raises_and_only_answers_end(environment: Research, full_counts: bool) -> None:
    _begin(environment)

    @settings(
        max_examples=3000 if full_counts else 150,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(action=_actions)
    def check(action: str) -> None:
        before = environment.observation
        after, reward, over, _, info = environment.step(action)
        diagnosis = info["diagnosis"]
        assert reward == 0.0
        if over:
            assert action.strip().startswith("answer({")
            assert diagnosis.cause is Cause.WRONG_END
            _begin(environment)
        elif diagnosis.cause in REFUSED:
            assert after == before
            assert 10 < len(diagnosis.evidence) < 500
            assert "\n" not in diagnosis.evidence
        else:
            assert after.startswith(("[1] ", "No passage", "Printed: "))

    check()


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ('search("Orne")', 'search({"query": string})'),
        ('search({"q": "Orne"})', 'search({"query": string})'),
        ('python({"code": 3})', 'python({"code": string})'),
        ('open({"page": "Orne"})', "search, python, answer"),
    ],
)
def test_malformed_calls_say_how_to_write_them(environment: Research, action: str, says: str) -> None:
    _begin(environment)
    observation, *_, info = environment.step(action)
    assert observation == NOTHING_YET
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    assert says in info["diagnosis"].evidence

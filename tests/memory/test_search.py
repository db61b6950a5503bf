"""Fusion adds up, looks at each search's best only, and every filter of a query holds on a real memory."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.config import MemoryConfig
from tutelage.experience import IN_USE, Experience, Guardrail, Kind, Skill, Source, Status, Sticker
from tutelage.memory.query import Query
from tutelage.memory.search import FAMILY_BOOST, Mode, Normalise, asked, fused, normalised
from tutelage.memory.store import MemoryStore
from tutelage.record import Record
from tutelage.types import Split, Task

IDS = [f"exp_{number}" for number in range(12)]
scores = st.dictionaries(st.sampled_from(IDS), st.floats(-1, 1), max_size=12)
HOWS = st.sampled_from(["range", "top", "rank"])


@given(
    scores, st.dictionaries(st.sampled_from(IDS), st.floats(0.01, 40), max_size=12), st.floats(0, 1), HOWS,
    st.sampled_from(["fused", "vector", "keyword"]), st.sets(st.sampled_from(IDS)),
)  # fmt: skip
def test_parts_sum_to_the_score_and_the_best_comes_first(
    vectors: dict[str, float],
    keywords: dict[str, float],
    weight: float,
    how: Normalise,
    mode: Mode,
    own: set[str],
) -> None:
    keywords = {key: score for key, score in keywords.items() if key in vectors}
    boost = dict.fromkeys(own, FAMILY_BOOST)
    found = fused(vectors, keywords, weight=weight, normalise=how, mode=mode, boosts={"family": boost})
    assert {item.id for item in found} == set(keywords if mode == "keyword" else vectors)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    for item in found:
        assert item.score == pytest.approx(sum(item.parts.values()))
        assert -1e-9 <= item.score - item.parts["family"] <= 1 + 1e-9
        assert item.parts["family"] == (FAMILY_BOOST if item.id in own else 0)
        assert (item.vector, item.keyword) == (vectors[item.id], keywords.get(item.id, 0.0))
        if mode != "fused":
            assert item.parts["keyword" if mode == "vector" else "vector"] == 0


@given(scores.filter(lambda found: len(found) >= 3), st.floats(0, 1), HOWS)
def test_what_is_far_down_in_both_searches_changes_nothing(
    vectors: dict[str, float], weight: float, how: Normalise
) -> None:
    keywords = {key: 1 + score for key, score in vectors.items() if score > 0}
    near = len(vectors)
    before = fused(vectors, keywords, weight=weight, normalise=how, near=near)
    worst = min(vectors.values())
    more = {**vectors, **{f"far_{number}": worst - 0.1 for number in range(5)}}
    assert fused(more, keywords, weight=weight, normalise=how, near=near) == before
    boosts = {"family": {"far_0": FAMILY_BOOST}}
    assert "far_0" in {item.id for item in fused(more, keywords, weight=weight, boosts=boosts, near=near)}


def test_each_way_to_normalise_by_example() -> None:
    assert normalised([0.2, 0.6, 0.4], "range") == pytest.approx([0, 1, 0.5])
    assert normalised([2.0, 6.0, 4.0], "range", low=0.0) == pytest.approx([1 / 3, 1, 2 / 3])
    assert normalised([-0.5, 0.6, 0.3], "top") == pytest.approx([0, 1, 0.5])
    assert normalised([5.0, 0.0, 40.0, 5.0], "rank") == pytest.approx([10 / 11, 0, 1, 10 / 11])
    assert normalised([0.3, 0.3], "range") == [1, 1]  # nothing to tell them apart by, and both are near
    assert normalised([], "range") == normalised([], "top") == normalised([], "rank") == []


def test_a_word_is_asked_for_once_however_often_the_page_says_it() -> None:
    page = '[r1] button "Up"\n[r2] button "Down"\n[r3] button "Quit"'
    assert asked(page) == ["r1", "button", "up", "r2", "down", "r3", "quit"]


# -- on a real memory -----------------------------------------------------------------------------

CONTENT = {
    "skill": Skill(preconditions=(), procedure=('click(button "{goal}")',), verification=()),
    "sticker": Sticker(conditions=("The page has a button.",), question="Which button?"),
    "guardrail": Guardrail(trigger=(), root_cause="too early", forbidden="done()", remedy="Look first."),
}
KINDS: tuple[Kind, ...] = ("skill", "sticker", "guardrail")
ENVIRONMENTS, FAMILIES, TASKS = ("toy", "files"), ("press", "copy"), ("toy/press@1", "toy/press@2", "toy/press@3")
TIMES = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
WEIGHTS = (0.3, 0.7, 1.0)


def _experience(number: int) -> Experience:
    """All combinations of what is filtered by occur among the first few hundred."""
    kind = KINDS[number % 3]
    return Experience(
        id=f"exp_{number:03}",
        environment=ENVIRONMENTS[number // 3 % 2],
        family=FAMILIES[number // 6 % 2],
        goal=f"press button {number}",
        content=CONTENT[kind],
        sources=(Source(trajectory="", task=TASKS[number // 12 % 3], origin="user:ann"),),
        status=list(Status)[number // 36 % 5],
        author="ann",
        verbatim=f"button number {number}",
        created=TIMES[number // 5 % 3],
    )


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryStore]:
    folder = tmp_path_factory.mktemp("search")
    record = Record.open(folder)
    items = [_experience(number) for number in range(180)]
    for number, item in enumerate(items):
        record.save_experience(item.model_copy(update={"trust": WEIGHTS[number // 7 % 3]}))
    with MemoryStore(record, folder / "index", MemoryConfig()) as memory:
        yield memory
    record.close()


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.sets(st.sampled_from(KINDS)),
    environment=st.none() | st.sampled_from([*ENVIRONMENTS, "nowhere"]),
    family=st.none() | st.sampled_from(FAMILIES),
    statuses=st.sets(st.sampled_from(list(Status))),
    min_trust=st.sampled_from([0.0, 0.5, 0.7, 1.0]),
    since=st.none() | st.sampled_from(TIMES),
    until=st.none() | st.sampled_from(TIMES),
    task=st.none() | st.sampled_from(TASKS),
    prefer=st.none() | st.sampled_from(FAMILIES),
    mode=st.sampled_from(["fused", "vector", "keyword"]),
)
def test_every_filter_holds_and_nothing_that_passes_is_lost(
    memory: MemoryStore,
    kinds: set[Kind],
    environment: str | None,
    family: str | None,
    statuses: set[Status],
    min_trust: float,
    since: datetime | None,
    until: datetime | None,
    task: str | None,
    prefer: str | None,
    mode: Mode,
) -> None:
    query = Query("press button 7", kinds, environment, family, statuses, min_trust, since, until, task, prefer, mode)
    passing = {
        item.id
        for item in memory.experiences()
        if (not kinds or item.kind in kinds)
        and environment in (None, item.environment)
        and family in (None, item.family)
        and (not statuses or item.status in statuses)
        and item.trust >= min_trust
        and (since is None or item.created >= since)
        and (until is None or item.created < until)
        and all(source.task != task for source in item.sources)
    }
    hits = memory.search(Query(**{**vars(query), "k": 1000}))
    assert {hit.experience.id for hit in hits} == passing
    for hit in hits:
        assert hit.score == pytest.approx(sum(hit.parts.values()))
        assert hit.parts.get("family", 0) == (FAMILY_BOOST if prefer and hit.experience.family == prefer else 0)
    scores = {hit.experience.id: hit.score for hit in hits}
    fewer = memory.search(query)
    assert len(fewer) == min(query.k, len(passing))
    assert all(hit.score == pytest.approx(scores[hit.experience.id]) for hit in fewer)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_recall_leaves_out_what_was_drawn_from_the_task_and_nothing_else(memory: MemoryStore, seed: int) -> None:
    task = Task(environment="toy", family="press", seed=seed, split=Split.TRAIN)
    found = memory.recall(task, "press button 7", "a page")
    usable = [item for item in memory.experiences(statuses=IN_USE) if item.environment == "toy" and item.trust >= 0.5]
    rules = {item.id for item in usable if (item.kind, item.family) == ("guardrail", "press")}
    own = {item.id for item in usable if item.sources[0].task == task.id}
    assert bool(own & rules) == (seed != 4)
    assert {item.id for item in found.guardrails} == rules - own
    assert found.shown
    assert not own & {item.id for item in found.shown}

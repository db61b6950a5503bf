"""Filters over columns let through just what a plain look at each row does."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.experience import Status
from tutelage.memory.catalog import Catalog
from tutelage.memory.query import Query
from tutelage.record_experiences import ExperienceRow

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = st.sampled_from(["skill", "sticker", "guardrail"])
NAMES = st.sampled_from(["a", "b", "c"])
STATUSES = st.sampled_from(list(Status))
TIMES = st.integers(0, 5).map(lambda days: START + timedelta(days=days))
TASKS = st.frozensets(st.sampled_from(["t1", "t2", "t3"]), max_size=2)
ROWS = st.builds(
    ExperienceRow,
    n=st.integers(1, 1000),
    id=st.integers(0, 99).map(str),
    version=st.integers(1, 9),
    kind=KINDS,
    environment=NAMES,
    family=NAMES,
    status=STATUSES,
    tenant=st.just("default"),
    trust=st.sampled_from([0.0, 0.5, 1.0]),
    identity=st.just(""),
    created=TIMES,
    tasks=TASKS,
)
QUERIES = st.builds(
    Query,
    text=st.just(""),
    kinds=st.sets(KINDS),
    environment=NAMES | st.none(),
    family=NAMES | st.none(),
    statuses=st.sets(STATUSES),
    min_trust=st.sampled_from([0.0, 0.4, 1.0]),
    since=TIMES | st.none(),
    until=TIMES | st.none(),
    exclude_task=st.sampled_from(["t1", "t2", "nobody's"]) | st.none(),
)


def _passes(row: ExperienceRow, query: Query) -> bool:
    return (
        (not query.kinds or row.kind in query.kinds)
        and query.environment in (None, row.environment)
        and query.family in (None, row.family)
        and (not query.statuses or row.status in query.statuses)
        and row.trust >= query.min_trust
        and (query.since is None or row.created >= query.since)
        and (query.until is None or row.created < query.until)
        and query.exclude_task not in row.tasks
    )


@settings(deadline=None)
@given(st.lists(ROWS | st.integers(0, 99).map(str), max_size=80), QUERIES, st.sets(st.integers(0, 99).map(str)))
def test_a_mask_is_every_filter_at_once(changes: list[ExperienceRow | str], query: Query, without: set[str]) -> None:
    catalog, rows = Catalog(), dict[str, ExperienceRow]()
    for change in changes:
        if isinstance(change, str):
            assert (catalog.remove(change) is None) == (rows.pop(change, None) is None)
        else:
            catalog.put(change)
            rows[change.id] = change
    slots = np.flatnonzero(catalog.mask(query, without=without))
    passed = {catalog.rows[slot].id for slot in slots}
    assert passed == {key for key, row in rows.items() if _passes(row, query) and key not in without}
    assert sorted(catalog.listed()) == sorted(rows.values())
    assert all(catalog.of("family", "b", slots) == [catalog.rows[slot].family == "b" for slot in slots])

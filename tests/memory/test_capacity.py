"""Beyond the capacity goes what is of least use, merged first; what stops mistakes stays longest."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import MemoryConfig, TrustConfig
from tutelage.experience import Change, Experience, Guardrail, Source, Status, Sticker
from tutelage.memory.capacity import least_useful, utility
from tutelage.memory.consolidation import consolidate
from tutelage.memory.store import MemoryStore
from tutelage.record import Record
from tutelage.record_experiences import Uses

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RULE = Guardrail(trigger=("a dialog",), root_cause="c", forbidden="click(*)", remedy="close it")


def an_experience(name: str, age: int, content: Any = None, **changes: Any) -> Experience:
    values: dict[str, Any] = {
        "id": name,
        "environment": "shop",
        "family": name,
        "goal": "Order {text}.",
        "content": content or Sticker(conditions=(name,), question="What comes next?"),
        "sources": (Source(trajectory=f"t-{name}", task=f"shop/{name}@1"),),
        "author": "a hand",
        "created": BEGAN - timedelta(days=age),
    }
    return Experience.model_validate({**values, **changes})


def test_utility_counts_sound_episodes_that_it_was_shown_in() -> None:
    assert utility(Uses(shown=9, sound=0, solved=0)) == 0.5
    assert utility(Uses(shown=9, sound=8, solved=8)) == 0.9
    assert utility(Uses(shown=9, sound=8, solved=0)) == 0.1


def test_the_order_of_leaving() -> None:
    stopped = {"mistakes stopped": 3.0}
    rule = an_experience("rule", 9, RULE, status=Status.ACTIVE, change=Change(numbers=stopped))
    idle = an_experience("idle", 1, RULE, status=Status.ACTIVE, change=Change(numbers={"mistakes stopped": 0.0}))
    old, new = an_experience("old", 5), an_experience("new", 0)
    good, bad = an_experience("good", 7), an_experience("bad", 7)
    uses = {"good": Uses(10, 10, 9), "bad": Uses(10, 10, 1), "old": Uses(3, 0, 0)}
    items = sorted([rule, good, new, bad, old, idle], key=lambda item: item.created)
    names = ["old", "idle", "new", "bad", "good", "rule"]
    assert [item.id for item in least_useful(items, uses, 6)] == names
    assert [item.id for item in least_useful(items, uses, 2)] == names[:2]
    assert least_useful(items, uses, -3) == []


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    yield record
    record.close()


@pytest.mark.parametrize(("capacity", "merged", "retired"), [(3, 1, []), (2, 1, ["c"]), (1, 1, ["c", "b"])])
def test_what_says_the_same_is_merged_before_anything_is_retired(
    record: Record, tmp_path: Path, capacity: int, merged: int, retired: list[str]
) -> None:
    config = MemoryConfig(capacity=capacity, similar=0.7, trust=TrustConfig(environments={"shop": 1.0}))
    memory = MemoryStore(record, tmp_path / "memory", config)
    memory.add(an_experience("gone", 5, status=Status.RETIRED))
    memory.add(an_experience("c", 4))
    memory.add(an_experience("b", 3))
    twin = Sticker(conditions=("always a",), question="What comes next?")
    memory.add(an_experience("twin", 2, twin, family="a"))
    first = memory.add(an_experience("a", 1, status=Status.ACTIVE))
    found = consolidate(memory, record, config)
    assert len(found.merges) == merged
    assert found.merges[0].winner == first.id
    assert [item[0] for item in found.retired] == retired
    assert found.left == len([item for item in memory.experiences() if item.status is not Status.RETIRED]) == capacity
    for name in retired:
        change = memory.get(name).change
        assert (change.by, change.numbers["capacity"]) == ("capacity", float(capacity))
    assert consolidate(memory, record, config).retired == ()
    memory.close()

"""What people change stands where those words, at that place, have earned to stand."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.config import MemoryConfig
from tutelage.experience import Change, Experience, Skill, Source, Status
from tutelage.memory.by_hand import edit, restore
from tutelage.memory.store import MemoryStore
from tutelage.record import Record

NEW = {"content": {"procedure": ["press save twice"]}}
MOVED = {"family": "other"}
SAID = {"core": "In other words."}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryStore]:
    record = Record.open(tmp_path)
    with MemoryStore(record, tmp_path / "index", MemoryConfig()) as store:
        yield store
    record.close()


def learned(memory: MemoryStore, status: Status) -> Experience:
    """An active skill, or one that came from there to another status."""
    item = memory.add(
        Experience(
            environment="toy",
            family="forms",
            goal="keep the form",
            content=Skill(preconditions=(), procedure=("press save",), verification=()),
            sources=(Source(trajectory="trj_away", task="toy/forms@1"),),
            author="rules",
            status=Status.ACTIVE,
        )
    )
    student = "stu_1" if status is Status.ABSORBED else ""
    return memory.change(item.id, Change(by="evidence"), status=status, absorbed_by=student)


@pytest.mark.parametrize("status", [Status.ACTIVE, Status.ABSORBED])
def test_other_content_or_another_place_has_earned_nothing(memory: MemoryStore, status: Status) -> None:
    item = learned(memory, status)
    assert edit(memory, item.id, SAID, "ann").status is status, "that is no other content"
    for patch in (NEW, MOVED):
        changed = edit(memory, item.id, patch, "ann")
        assert (changed.status, changed.absorbed_by) == (Status.CANDIDATE, "")
        back = memory.undo(item.id, by="hand:ann")
        assert (back.status, back.absorbed_by) == (status, item.absorbed_by)


@pytest.mark.parametrize(
    ("patch", "expected"), [(SAID, Status.ACTIVE), (NEW, Status.CANDIDATE), (MOVED, Status.CANDIDATE)]
)
def test_what_was_changed_while_out_of_use_comes_back_on_trial(
    memory: MemoryStore, patch: dict[str, object], expected: Status
) -> None:
    item = learned(memory, Status.RETIRED)
    assert edit(memory, item.id, patch, "ann").status is Status.RETIRED
    assert restore(memory, item.id, "ann").status is expected


def test_an_edit_does_not_bring_back_what_was_retired_meanwhile(
    memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reviewer retires it just when the editor has read it."""
    item = learned(memory, Status.ACTIVE)
    change = Change(by="review:bob", reason="wrong")
    other = threading.Thread(target=memory.move, args=(item.id, Status.RETIRED, change))
    get = memory.get

    def read(experience_id: str) -> Experience:
        found = get(experience_id)
        if threading.current_thread() is not other and not other.ident:
            other.start()
            other.join(0.5)
        return found

    monkeypatch.setattr(memory, "get", read)
    edit(memory, item.id, NEW, "ann")
    other.join()
    assert memory.get(item.id).status is Status.RETIRED

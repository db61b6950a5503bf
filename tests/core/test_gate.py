"""Promotion and rollback: what is in use afterwards."""

import pytest
from made_students import made, promoted

from tutelage import gate, versions
from tutelage.errors import RecordError
from tutelage.gate import promote_by_hand, rollback
from tutelage.workspace import Workspace


def test_a_rollback_goes_back_to_what_was_in_use(workspace: Workspace) -> None:
    first = made(workspace)
    second = made(workspace, first.label)
    third = made(workspace, second.label)
    for student, incumbent in ((first, "student@0"), (second, first.label), (third, second.label)):
        promoted(workspace, student, incumbent)

    def back(label: str) -> None:
        present = workspace.record.promoted()
        assert present is not None
        assert gate.before(workspace.record, present).label == label
        assert rollback(workspace).startswith(f"rolled back from {present.label} to {label}")

    promote_by_hand(workspace, first.label, "better in use")
    back("student@3")
    promote_by_hand(workspace, third.label, "it is in use already")
    back("student@2")
    back("student@1")
    fourth = made(workspace, first.label)
    back("student@0")
    promoted(workspace, fourth, first.label)  # by a cycle that began before it was withdrawn
    back("student@0")
    with pytest.raises(RecordError, match="nothing to roll back"):
        rollback(workspace)


def test_a_rollback_is_known_by_its_evidence_not_by_its_words(workspace: Workspace) -> None:
    first, second = made(workspace), made(workspace, "student@1")
    promoted(workspace, first, "student@0")
    promoted(workspace, second, first.label)
    promote_by_hand(workspace, first.label, "rolled back from student@2")  # which says so, and is none
    assert gate.before(workspace.record, first).label == second.label
    assert rollback(workspace).startswith("rolled back from student@1 to student@2")
    assert gate.before(workspace.record, second).label == first.label


def test_rollbacks_of_older_records_are_known_by_their_words(workspace: Workspace) -> None:
    first, second = made(workspace), made(workspace, "student@1")
    promoted(workspace, first, "student@0")
    promoted(workspace, second, first.label)
    workspace.record.promote(first.id, reason="rolled back from student@2", evidence={"by": "hand"})
    assert gate.before(workspace.record, first).label == "student@0"


def test_a_rollback_passes_over_what_was_deleted(workspace: Workspace) -> None:
    students = [made(workspace) for _ in range(3)]
    for student in students:
        promoted(workspace, student, "student@0")
    versions.delete(workspace, students[0], reason="", by="test")
    rollback(workspace)
    assert versions.references(workspace, students[2]) == []
    assert rollback(workspace).startswith("rolled back from student@2 to student@0")


def test_a_promotion_without_what_memory_does_about_it_does_not_happen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(workspace)
    second = made(workspace, first.label)
    promoted(workspace, first, "student@0")
    promoted(workspace, second, first.label)

    def killed(_: Workspace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "reconcile", killed)
    for change in (lambda: rollback(workspace), lambda: promote_by_hand(workspace, first.label, "why")):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert workspace.record.promoted() == second

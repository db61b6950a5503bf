"""Promotion: only through the gate; rollback: one command. Memory follows: what the student in use does not hold is
shown to it again (`tutelage.absorption`)."""

from typing import TYPE_CHECKING, Any

from tutelage import lineage
from tutelage.absorption import reconcile
from tutelage.cycle import EXPERIENCE_ARMS, accepted_trajectories, cycle_students
from tutelage.errors import RecordError
from tutelage.evaluate import gate
from tutelage.experience import IN_USE, Status
from tutelage.measures import Student
from tutelage.progress import Reporter
from tutelage.record import DELETED_STUDENT
from tutelage.results import ComparisonDoc, CycleDoc, GateDoc, load, save
from tutelage.workspace import Workspace

if TYPE_CHECKING:
    from tutelage.record import Record

BY_HAND = {"by": "hand"}
"""Evidence of a promotion that no gate decided, as far as all of them have it."""
BACK_FROM = "back_from"
"""Beside it: id of the student that a rollback withdrew, None if it was none. Older records do not have it."""


def decide(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Promote the cycle's last student if its paired validation gain clears the gate; sum the cycle up."""
    record, config = workspace.record, workspace.config
    before, *made = cycle_students(workspace, cycle, len(config.stages))
    if made and record.get("gate", str(cycle)) is None:
        (comparison,) = (doc for doc in load(record, ComparisonDoc, cycle) if doc.decides)
        passed, reason = gate(comparison, config.gate)
        with record.transaction():  # with what memory does about it: neither is ever there without the other
            if passed:
                record.promote(made[-1].id, reason=reason, evidence=comparison.model_dump(mode="json"))
                reconcile(workspace)
            save(
                record,
                GateDoc(
                    cycle=cycle,
                    promoted=passed,
                    reason=reason,
                    candidate=made[-1].label,
                    incumbent=before.label,
                    comparison=comparison.name,
                    min_gain=config.gate.min_gain,
                ),
            )
    for doc in load(record, GateDoc, cycle):
        report.say(f"  {doc.candidate} {doc.reason}")
    reconcile(workspace)
    save(record, _summary(workspace, cycle))


def _summary(workspace: Workspace, cycle: int) -> CycleDoc:
    record = workspace.record
    collected = {arm: record.trajectories(arm=arm, cycle=cycle) for arm in EXPERIENCE_ARMS}
    kinds = [experience.kind for experience in workspace.memory.experiences(statuses=IN_USE)]
    return CycleDoc(
        cycle=cycle,
        environments=workspace.suite.names,
        families=workspace.suite.families,
        teacher=next((item.policy for item in collected[EXPERIENCE_ARMS[0]]), ""),
        episodes={arm: len(items) for arm, items in collected.items() if items},
        accepted=len(accepted_trajectories(workspace)),
        experiences={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        confidence=workspace.config.evaluate.confidence,
        seconds={
            key.split("/")[1]: body["seconds"]
            for key, body in record.items("timing").items()
            if key.startswith(f"{cycle}/")
        },
    )


def promote_by_hand(workspace: Workspace, student: str, reason: str) -> str:
    """Promote again a student that once passed the gate.

    Raises:
        RecordError: it never did.
    """
    record = workspace.record
    wanted = record.student(student)
    passed = {doc.candidate for doc in load(record, GateDoc) if doc.promoted}
    if wanted.label not in passed:
        listed = ", ".join(sorted(passed)) or "none so far"
        raise RecordError(f"{wanted.label} has not passed the gate and cannot be promoted; those that have: {listed}")
    with record.transaction():
        record.promote(wanted.id, reason=reason, evidence={**BY_HAND, BACK_FROM: None})
        return f"{wanted.label} is promoted{_memory_follows(workspace)}"


def rollback(workspace: Workspace) -> str:
    """Promote the student that was in use before the present one, or the base student.

    Raises:
        RecordError: nothing was ever promoted.
    """
    record = workspace.record
    present = record.promoted()
    if present is None or present.number == 0:
        raise RecordError("there is nothing to roll back: the base student is in use")
    with record.transaction():
        earlier = before(record, present)
        record.promote(earlier.id, reason=_back(present), evidence={**BY_HAND, BACK_FROM: present.id})
        return f"rolled back from {present.label} to {earlier.label}{_memory_follows(workspace)}"


def before(record: "Record", present: Student) -> Student:
    """What a rollback from the student in use goes back to: the one in use before it came.

    What was itself rolled back from does not come back this way, nor what was deleted.
    """
    known = {student.id: student for student in record.students()}
    base = lineage.line(record, present)[0]
    line = [base.id]
    for entry in record.promotions():
        student = entry["student"]
        if len(line) > 1 and _withdraws(entry, known[line[-1]]):
            line.pop()
            while student in line and line[-1] != student:  # one that was deleted, and was passed over
                line.pop()
        if line[-1] != student:
            line.append(student)
    there = (item for item in reversed(line) if item != present.id and record.get(DELETED_STUDENT, item) is None)
    return known[next(there, base.id)]


def _withdraws(entry: dict[str, Any], student: Student) -> bool:
    """Whether a promotion is a rollback from this student; older ones say so by their reason alone."""
    if entry["evidence"] == BY_HAND:
        return bool(entry["reason"] == _back(student))
    return bool(entry["evidence"].get(BACK_FROM) == student.id)


def _back(student: Student) -> str:
    return f"rolled back from {student.label}"


def _memory_follows(workspace: Workspace) -> str:
    """What of memory came back into the prompt with this student, and what left it again."""
    moves = reconcile(workspace)
    left, retired = (sum(move.after == status for move in moves) for status in (Status.ABSORBED, Status.RETIRED))
    back = len(moves) - left - retired
    parts = [(back, "restored"), (left, "absorbed again"), (retired, "retired again")]
    said = [f"{count} {what}" for count, what in parts if count]
    return f"; experiences: {', '.join(said)}" if said else ""

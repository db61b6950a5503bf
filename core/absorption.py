"""Absorption: what a student does as well without leaves the prompt, and comes back when the weights lose it.

An experience is absorbed by one student version, on evidence (`tutelage.evidence`). It stays so for the versions
trained from that one, unless a later measurement shows that success without it has dropped. When a student is
promoted whose line does not contain that version, as after a rollback, it is restored at once; and absorbed again,
on the evidence of then, when the version comes back.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tutelage.effects import numbers
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Change, Experience, Status
from tutelage.measures import Effect, Move, Student

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore
    from tutelage.record import Record
    from tutelage.workspace import Workspace

ABSORPTION = "absorption"
"""What a change made here names as its maker."""
MEASUREMENT = "measurement"
"""Kind of the documents that hold each measurement, from its plan on (`tutelage.evidence`)."""
RECONCILED = "reconciled"
"""Kind of the documents that hold what memory did when another student came into use."""
HELD_BY = "held by"
"""Among the numbers of a restoration: the id of the student that had absorbed it, if that may come back."""


def line_of(record: "Record", student: Student) -> frozenset[str]:
    """Ids of the student and of all that it was trained from."""
    parents = {item.id: item.parent for item in record.students()}
    found, at = set(), student.id if student.id in parents else None
    while at is not None and at not in found:
        found.add(at)
        at = parents.get(at)
    return frozenset({*found, student.id})


def before_absorption(history: Iterable[Experience]) -> tuple[Status, float]:
    """The status an absorbed experience had before, and the lower bound of success without it when it was absorbed."""
    status, able = Status.CANDIDATE, 0.0
    previous = None
    for version in history:
        if version.status is not Status.ABSORBED:
            status = version.status
        elif previous is None or previous.status is not Status.ABSORBED:
            able = float(version.change.numbers.get("without low", 0.0))
        previous = version
    return (status if status in IN_USE else Status.CANDIDATE), able


def absorb(memory: "MemoryStore", item: Experience, student: Student, reason: str, found: Effect) -> Move:
    """Mark it as held by this student's weights."""
    change = Change(by=ABSORPTION, reason=reason, numbers={**_of(student), **numbers(found)})
    memory.change(item.id, change, status=Status.ABSORBED, absorbed_by=student.id)
    return moved(item, Status.ABSORBED, reason)


def restore(memory: "MemoryStore", item: Experience, reason: str, values: dict[str, float | str]) -> Move:
    """Back to the status that it had before it was absorbed."""
    status, _ = before_absorption(memory.history(item.id))
    memory.change(item.id, Change(by=ABSORPTION, reason=reason, numbers=values), status=status, absorbed_by="")
    return moved(item, status, reason)


def reconcile(workspace: "Workspace") -> list[Move]:
    """Restore what the student in use does not hold, and absorb again what it does; to be called after every
    promotion and rollback. Idempotent; what it moved is kept under `RECONCILED`.
    """
    record, memory, student = workspace.record, workspace.memory, workspace.current_student()
    line, moves = line_of(record, student), []
    with record.transaction():
        for item in memory.experiences(statuses=(Status.ABSORBED, *IN_USE)):
            if item.status is Status.ABSORBED:
                if item.absorbed_by not in line:
                    reason = (
                        f"{_label(record, item.absorbed_by)}, which holds it, is not in the line of {student.label}"
                    )
                    values: dict[str, float | str] = {**_of(student), HELD_BY: item.absorbed_by}
                    moves.append(restore(memory, item, reason, values))
            elif item.change.by == ABSORPTION and (holder := item.change.numbers.get(HELD_BY)) in line:
                reason = f"{_label(record, str(holder))}, which holds it, is in the line of {student.label} again"
                _, able = before_absorption(memory.history(item.id))
                change = Change(by=ABSORPTION, reason=reason, numbers={**_of(student), "without low": able})
                memory.change(item.id, change, status=Status.ABSORBED, absorbed_by=str(holder))
                moves.append(moved(item, Status.ABSORBED, reason))
        if moves:
            place = str(len(record.items(RECONCILED)) + 1)
            body = {"student": student.id, "moves": [move.model_dump(mode="json") for move in moves]}
            record.put(RECONCILED, place, body)
    return moves


def restorations(record: "Record") -> list[Move]:
    """Everything that was absorbed and came back: by a measurement, then by a promotion or rollback; each the oldest
    first."""
    bodies = [*record.items(MEASUREMENT).values(), *record.items(RECONCILED).values()]
    moves = [Move.model_validate(move) for body in bodies for move in body["moves"]]
    return [move for move in moves if move.before == Status.ABSORBED and move.after in IN_USE]


def moved(item: Experience, status: Status, reason: str) -> Move:
    return Move(
        experience=item.id,
        kind=item.kind,
        family=f"{item.environment}/{item.family}",
        before=item.status.value,
        after=status.value,
        reason=reason,
    )


def _of(student: Student) -> dict[str, float | str]:
    return {"student": student.label, "student id": student.id}


def _label(record: "Record", student: str) -> str:
    try:
        return record.student(student).label
    except RecordError:
        return f"student {student}"

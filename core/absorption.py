"""Absorption: what a student does as well without leaves the prompt, and comes back when the weights lose it.

An experience is absorbed by one student version, on evidence (`tutelage.evidence`). It stays so for the versions
trained from that one, unless a later measurement shows that success without it has dropped. When a student is
promoted whose line does not contain that version, as after a rollback, it is restored at once; and absorbed again,
on the evidence of then, when the version comes back. What harms a student that is able without it is retired for that
version in the same way: for a student outside of its line nothing was measured, so it is on trial again there.
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
HARMED = "harmed"
"""Among the numbers of a retirement, and of what took it back: the id of the able student that it harms."""


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
    change = Change(by=ABSORPTION, reason=reason, numbers={**of_student(student), **numbers(found)})
    return _changed(memory, item, change, Status.ABSORBED, student.id)


def restore(memory: "MemoryStore", item: Experience, reason: str, values: dict[str, float | str]) -> Move:
    """Back to the status that it had before it was absorbed."""
    status, _ = before_absorption(memory.history(item.id))
    return _changed(memory, item, Change(by=ABSORPTION, reason=reason, numbers=values), status)


def harmful(items: Iterable[Experience]) -> list[Experience]:
    """Those that are retired because they harm a student that is able without them."""
    return [item for item in items if item.status is Status.RETIRED and HARMED in item.change.numbers]


def reconcile(workspace: "Workspace") -> list[Move]:
    """Restore what the student in use does not hold or was not harmed by, and absorb or retire again what it does or
    was; to be called after every promotion and rollback. Idempotent; what it moved is kept under `RECONCILED`.
    """
    record, memory, student = workspace.record, workspace.memory, workspace.current_student()
    line, moves = line_of(record, student), []
    with record.transaction():
        for item in memory.experiences(statuses=(Status.ABSORBED, Status.RETIRED, *IN_USE)):
            due = _harm_due(workspace, student, line, item) or _absorption_due(workspace, student, line, item)
            moves += [due] if due else []
        if moves:
            place = str(len(record.items(RECONCILED)) + 1)
            body = {"student": student.id, "moves": [move.model_dump(mode="json") for move in moves]}
            record.put(RECONCILED, place, body)
    return moves


def restorations(record: "Record") -> list[Move]:
    """Everything that was absorbed, or retired as harmful to one student, and came back: by a measurement, then by a
    promotion or rollback; each the oldest first."""
    bodies = [*record.items(MEASUREMENT).values(), *record.items(RECONCILED).values()]
    moves = [Move.model_validate(move) for body in bodies for move in body["moves"]]
    return [move for move in moves if move.before in (Status.ABSORBED, Status.RETIRED) and move.after in IN_USE]


def moved(item: Experience, status: Status, reason: str) -> Move:
    return Move(
        experience=item.id,
        kind=item.kind,
        family=f"{item.environment}/{item.family}",
        before=item.status.value,
        after=status.value,
        reason=reason,
    )


def _absorption_due(workspace: "Workspace", student: Student, line: frozenset[str], item: Experience) -> Move | None:
    """Restored where another line absorbed it; absorbed again where its holder is back."""
    record, memory = workspace.record, workspace.memory
    values = {**of_student(student), **{key: item.change.numbers[key] for key in {HARMED} & item.change.numbers.keys()}}
    if item.status is Status.ABSORBED:
        if item.absorbed_by in line:
            return None
        reason = f"{_label(record, item.absorbed_by)}, which holds it, is not in the line of {student.label}"
        return restore(memory, item, reason, {**values, HELD_BY: item.absorbed_by})
    holder = item.change.numbers.get(HELD_BY)
    if item.status not in IN_USE or item.change.by != ABSORPTION or holder not in line:
        return None
    reason = f"{_label(record, str(holder))}, which holds it, is in the line of {student.label} again"
    _, able = before_absorption(memory.history(item.id))
    change = Change(by=ABSORPTION, reason=reason, numbers={**values, "without low": able})
    return _changed(memory, item, change, Status.ABSORBED, str(holder))


def _harm_due(workspace: "Workspace", student: Student, line: frozenset[str], item: Experience) -> Move | None:
    """On trial again where nobody of the line was harmed, or absorbed if it was before and one of the line holds it;
    retired again where the harmed student is back."""
    memory, harmed = workspace.memory, item.change.numbers.get(HARMED)
    if harmed is None or (item.status is Status.RETIRED) == (harmed in line):
        return None
    values = {**of_student(student), HARMED: harmed}
    who = f"{_label(workspace.record, str(harmed))}, which it harms,"
    if item.status is not Status.RETIRED:
        reason = f"{who} is in the line of {student.label} again"
        return _changed(memory, item, Change(by=ABSORPTION, reason=reason, numbers=values), Status.RETIRED)
    reason, versions = f"{who} is not in the line of {student.label}", memory.history(item.id)
    unharmed = (
        old for old in reversed(versions) if old.status is not Status.RETIRED and HARMED not in old.change.numbers
    )
    before = next(unharmed, versions[0])
    if before.absorbed_by not in line:
        values |= {HELD_BY: before.absorbed_by} if before.absorbed_by else {}
        return _changed(memory, item, Change(by=ABSORPTION, reason=reason, numbers=values), Status.CANDIDATE)
    values["without low"] = before_absorption(versions)[1]
    change = Change(by=ABSORPTION, reason=reason, numbers=values)
    return _changed(memory, item, change, Status.ABSORBED, before.absorbed_by)


def _changed(memory: "MemoryStore", item: Experience, change: Change, status: Status, holder: str = "") -> Move:
    """To this status, or into quarantine if memory does not let it in."""
    made = memory.change(item.id, change, status=status, absorbed_by=holder)
    return moved(item, made.status, change.reason)


def of_student(student: Student) -> dict[str, float | str]:
    return {"student": student.label, "student id": student.id}


def _label(record: "Record", student: str) -> str:
    try:
        return record.student(student).label
    except RecordError:
        return f"student {student}"

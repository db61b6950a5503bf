"""Student versions as a whole: finding one, checking its files, and deleting what nothing needs any more.

The row of a student stays in the record for good. Deleting removes its weights and says in the record who did it, when
and why; that is written first, so a deletion that was killed half-way is finished by the next one.
"""

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage import lineage
from tutelage.errors import RecordError, TutelageError
from tutelage.experience import Status
from tutelage.gate import before
from tutelage.giving_up import unfinished
from tutelage.measures import Student, address
from tutelage.record import DELETED_STUDENT
from tutelage.training.base import STUDENTS
from tutelage.types import Frozen, now

if TYPE_CHECKING:
    from tutelage.record import Record
    from tutelage.workspace import Workspace

SHORTEST = 8
"""Hexadecimal digits of its content that a student may be named by, at least."""


class Deletion(Frozen):
    """That a student's weights were deleted."""

    student: str
    """Id."""
    reason: str
    by: str
    bytes: int = 0
    """How much that freed."""
    created: datetime = Field(default_factory=now)


class Checked(Frozen):
    """What became of a student's files."""

    student: str
    """Label."""
    state: Literal["sound", "changed", "missing", "deleted", "not noted"]
    detail: str = ""


def find(record: "Record", name: str, *, alone: bool = False) -> Student:
    """A student by label, number, id, or the beginning of its content's digest.

    Args:
        alone: whether several with the very same content are too many, as where one of them is to be changed.

    Raises:
        RecordError: there is none, or several.
    """
    students = record.students()
    exact = [item for item in students if name in (item.id, item.label, str(item.number))]
    prefix = name.removeprefix("sha256:")
    if not exact and len(prefix) >= SHORTEST:
        exact = [item for item in students if item.content.startswith(prefix)]
    if len(exact) == 1 or (exact and not alone and len({item.content for item in exact}) == 1):
        return exact[0]
    if exact:
        labels = ", ".join(item.label for item in exact)
        raise RecordError(f"{name} is the beginning of several students: {labels}; say which by its label")
    known = ", ".join(item.label for item in students) or "none so far"
    raise RecordError(f"there is no student {name!r}; known: {known}")


def deletion(record: "Record", student: Student) -> Deletion | None:
    """When and why its weights were deleted, if they were."""
    body = record.get(DELETED_STUDENT, student.id)
    return None if body is None else Deletion.model_validate(body)


def place(workspace: "Workspace", student: Student) -> Path | None:
    """The folder that its weights have, or had, in the workspace; None for weights that come from elsewhere."""
    folder = workspace.folder / student.weights
    mine = student.parent is not None and folder.parent == workspace.folder / STUDENTS
    return folder if mine else None


def size(folder: Path | None) -> int:
    """Bytes of all files below a folder that may not be there."""
    if folder is None or not folder.is_dir():
        return 0
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


# -- checking -------------------------------------------------------------------------------------


def verify(workspace: "Workspace", student: Student) -> Checked:
    """Read its files, all of them, and compare them with what was noted when it was made."""
    from tutelage.training import content

    record, folder = workspace.record, place(workspace, student)

    def found(state: Literal["sound", "changed", "missing", "deleted", "not noted"], detail: str = "") -> Checked:
        return Checked(student=student.label, state=state, detail=detail)

    if (stone := deletion(record, student)) is not None:
        left = ", but its folder is still there: delete it again" if folder is not None and folder.is_dir() else ""
        return found("deleted", f"by {stone.by}: {stone.reason}{left}")
    if student.parent is None:
        return _base_as_noted(workspace, student)
    if folder is None or not folder.is_dir():
        return found("missing", f"there is no {student.weights} in the workspace")
    if student.files:
        wrong = content.changes(student.files, folder)
        return found("changed", ", ".join(wrong)) if wrong else found("sound", f"sha256:{student.content}")
    if not student.digest:
        return found("not noted", "nothing was noted of its files when it was made")
    from tutelage.training import weights

    same = weights.digest(weights.load(str(folder))[0]) == student.digest
    return (
        found("sound", "its tensors are; its other files were not noted") if same else found("changed", "its tensors")
    )


def _base_as_noted(workspace: "Workspace", base: Student) -> Checked:
    """Whether the base weights are still those that the others were trained from."""
    from tutelage.training import content, weights
    from tutelage.training.base import weights_of

    try:
        here = address(content.digests(weights.ensure(weights_of(base, workspace.folder))))
    except TutelageError as missing:
        return Checked(student=base.label, state="missing", detail=str(missing))
    noted = {item.base_content for item in workspace.record.students() if item.base_content}
    if not noted:
        return Checked(student=base.label, state="not noted", detail=f"sha256:{here}; nothing was trained from it yet")
    if noted == {here}:
        return Checked(student=base.label, state="sound", detail=f"sha256:{here}")
    return Checked(student=base.label, state="changed", detail="others were trained from other weights of this name")


# -- deleting -------------------------------------------------------------------------------------


def delete(workspace: "Workspace", student: Student, *, reason: str, by: str) -> Deletion:
    """Remove a student's weights for good; its row, what it did and what was measured of it stay.

    Returns:
        What the record says about it; for one that was deleted before, what it said then.

    Raises:
        RecordError: something needs it, which the message names; nothing is changed then.
    """
    record = workspace.record
    record.claim()
    folder = place(workspace, student)
    with record.transaction():
        stone = deletion(record, student)
        if stone is None:
            if needed := references(workspace, student):
                raise RecordError(f"{student.label} stays: {'; '.join(needed)}")
            stone = Deletion(student=student.id, reason=reason, by=by, bytes=size(folder))
            record.put(DELETED_STUDENT, student.id, stone.model_dump(mode="json"))
    if folder is not None:
        _remove(folder)
    return stone


def _remove(folder: Path) -> None:
    """At one moment the weights are whole and there, at the next they are not; then their files go."""
    aside = folder.with_name(f".{folder.name}.deleted")
    if aside.is_dir():
        shutil.rmtree(aside)
    if folder.is_symlink():  # somebody moved them to another disk; what is there is not ours to delete
        folder.unlink()
    elif folder.is_dir():
        folder.rename(aside)
        shutil.rmtree(aside)
    for rest in ("checkpoints", "processes"):
        shutil.rmtree(folder.with_name(f"{folder.name}.{rest}"), ignore_errors=True)


def references(workspace: "Workspace", student: Student) -> list[str]:
    """Why a student must not be deleted, in words; empty if nothing needs it."""
    from tutelage.serving.in_use import served

    record, found = workspace.record, []
    if student.parent is None:
        return ["its weights are those that everything began with, and lie outside of the students' folder"]
    promoted = record.promoted()
    if promoted is not None and promoted.id == student.id:
        found.append("it is promoted")
    elif promoted is not None and promoted.number and before(record, promoted).id == student.id:
        found.append(f"a rollback from {promoted.label} goes back to it")
    trained = [item.label for item in lineage.children(record, student) if deletion(record, item) is None]
    if trained:
        found.append(f"{', '.join(trained)} was trained from it (delete that first)")
    for cycle, body in unfinished(record).items():
        if any(made["student"] == student.id for made in _made_in(record, cycle)):
            found.append(f"cycle {cycle}, which made it, is unfinished")
        if body.get("start") == student.id:
            found.append(f"cycle {cycle}, which began with it, is unfinished")
        if student.label in _teachers(body["config"]["stages"]):
            found.append(f"cycle {cycle}, which is unfinished, distills from it")
    if student.label in _teachers([stage.model_dump() for stage in workspace.config.stages]):
        found.append("a distill stage of the configuration names it as its teacher")
    found += _jobs_on(record, student)
    if (process := served(workspace.folder).get(student.id)) is not None:
        found.append(f"process {process} serves it")
    held = sum(item.absorbed_by == student.id for item in record.experiences(status=Status.ABSORBED))
    if held:
        found.append(
            f"{held} experience{'s are' if held > 1 else ' is'} out of the prompt because its weights hold them"
        )
    return found


def _made_in(record: "Record", cycle: int) -> list[dict[str, Any]]:
    return [body for key, body in record.items("stage").items() if key.split("/")[0] == str(cycle)]


def _teachers(stages: list[dict[str, Any]]) -> set[str]:
    return {str(stage.get("teacher", "")) for stage in stages if stage.get("type") == "distill"}


def _jobs_on(record: "Record", student: Student) -> list[str]:
    """What jobs to come or under way have to do with the student: their parameters name it, or they measure it."""
    from tutelage.jobs.model import OVER, State
    from tutelage.jobs.reading import JobReader
    from tutelage.jobs.work import MEASURED

    named = re.compile(rf"{re.escape(student.label)}(?!\d)")
    waiting = JobReader(record).jobs(states=tuple(state for state in State if state not in OVER))
    measured = {job for job, body in record.items(MEASURED).items() if body["policy"] == student.label}
    names = [f"job {job.id} names it" for job in waiting if named.search(json.dumps(job.params))]
    return names + [f"job {job.id} measures it" for job in waiting if job.id in measured]


def missing(workspace: "Workspace", student: Student) -> str:
    """Why a student cannot act, in a word or two; empty if it can."""
    if (stone := deletion(workspace.record, student)) is not None:
        return f"deleted {stone.created:%Y-%m-%d} by {stone.by}"
    folder = place(workspace, student)
    return "no weights here" if folder is not None and not folder.is_dir() else ""

"""What becomes of a cycle whose job was cancelled: what is finished stays, what is half made goes."""

import re
import shutil
from typing import TYPE_CHECKING, Any

from tutelage.absorption import reconcile
from tutelage.jobs.model import State
from tutelage.jobs.reading import JobReader

if TYPE_CHECKING:
    from tutelage.record import Record
    from tutelage.workspace import Workspace

RUNNING = "running"
"""Status of a cycle from its beginning until it is finished or given up."""
CANCELLED = "cancelled"
"""Status of a cycle that was given up; the next one may begin."""
_OF_STUDENT = re.compile(r"(\d+)(?:\.checkpoints|\.processes)?|\.(\d+)\.[a-z0-9_]{8}")
"""Folders that a stage makes for student N: its weights, what it goes on from, and weights half written."""


def unfinished(record: "Record") -> dict[int, dict[str, Any]]:
    """Cycles that were begun and neither finished nor given up, with what is kept of them."""
    return {int(number): body for number, body in record.items("loop").items() if body["status"] == RUNNING}


def to_give_up(record: "Record") -> dict[int, str]:
    """The unfinished cycles of cancelled jobs, each with its job."""
    jobs = JobReader(record)
    owned = {cycle: body["job"] for cycle, body in unfinished(record).items() if body.get("job")}
    return {cycle: job for cycle, job in owned.items() if jobs.get(job).state is State.CANCELLED}


def settle(workspace: "Workspace") -> None:
    """Give up the cycles that cancelled jobs left unfinished. The caller holds the workspace for a cycle."""
    for cycle in to_give_up(workspace.record):
        give_up(workspace, cycle)


def give_up(workspace: "Workspace", cycle: int) -> None:
    """Make the workspace whole without the rest of a cycle; if this is killed, doing it again does what is left.

    Weights and checkpoints of a student that the record does not have are deleted: the next one gets its number.
    """
    known = {student.number for student in workspace.record.students()}
    folder = workspace.folder / "students"
    for path in folder.iterdir() if folder.is_dir() else ():
        number = _OF_STUDENT.fullmatch(path.name)
        if number is not None and int(number[1] or number[2]) not in known and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    if workspace.record.get("gate", str(cycle)) is not None:
        reconcile(workspace)  # a promotion whose memory did not follow yet
    body = workspace.record.get("loop", str(cycle))
    assert body is not None, "a cycle is in the record before it runs"
    workspace.record.put("loop", str(cycle), {**body, "status": CANCELLED})

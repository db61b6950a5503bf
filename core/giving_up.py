"""What becomes of a cycle whose job was cancelled: what is finished stays, what is half made goes."""

import re
import shutil

from tutelage.absorption import reconcile
from tutelage.jobs.model import State
from tutelage.jobs.reading import JobReader
from tutelage.workspace import Workspace

CANCELLED = "cancelled"
"""Status of a cycle that was given up; the next one may begin."""
_OF_STUDENT = re.compile(r"(\d+)(?:\.checkpoints|\.processes)?|\.(\d+)\.[a-z0-9_]{8}")
"""Folders that a stage makes for student N: its weights, what it goes on from, and weights half written."""


def settle(workspace: Workspace) -> None:
    """Give up the cycles that cancelled jobs left unfinished. The caller holds the workspace for a cycle."""
    jobs = JobReader(workspace.record)
    for number, body in workspace.record.items("loop").items():
        job = body.get("job")
        if body["status"] == "running" and job and jobs.get(job).state is State.CANCELLED:
            give_up(workspace, int(number))


def give_up(workspace: Workspace, cycle: int) -> None:
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

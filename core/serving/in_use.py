"""Which students are being served, told to other processes by a file per server: WORKSPACE/serving/PID.json."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

FOLDER = "serving"


class InUse:
    """What this process serves; the file is there until `close`, and counts only while the process lives."""

    def __init__(self, workspace: Path) -> None:
        self._file = workspace / FOLDER / f"{os.getpid()}.json"

    def note(self, students: Iterable[str]) -> None:
        """These are in use, by id, and no others. Note one before its weights are read."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        body = {"started": psutil.Process().create_time(), "students": sorted(set(students))}
        made = self._file.with_suffix(".new")
        made.write_text(json.dumps(body))
        made.replace(self._file)

    def close(self) -> None:
        self._file.unlink(missing_ok=True)


def served(workspace: Path) -> dict[str, int]:
    """Ids of the students that some living process serves from this workspace, and its process id."""
    found = {}
    for file in sorted((workspace / FOLDER).glob("*.json")):
        try:
            body, process = json.loads(file.read_text()), psutil.Process(int(file.stem))
            # The number of a process that has died may be another's by now.
            alive = abs(process.create_time() - body["started"]) < 1.0
            found.update({str(student): process.pid for student in body["students"]} if alive else {})
        except (psutil.Error, OSError, ValueError, KeyError, TypeError):
            continue
    return found

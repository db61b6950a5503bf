"""What the folder of a student's weights holds, file by file: noted when it is made, and checked before it is used.

Only the files directly in it count: weights, tokenizer and configuration, which are what loading reads. An adapter
that is kept beside them in a folder of its own is no part of what the student is.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tutelage.errors import MissingPart, RecordError
from tutelage.measures import Student

Signature = tuple[tuple[str, int, int, int], ...]

_known: dict[Path, tuple[Signature, dict[str, str]]] = {}
"""By folder, what it held when it was last looked at; who changes a file changes its signature."""


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in `folder`, by name; read once per process, and again once a file has changed."""
    folder = folder.resolve()
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    signature = tuple(_signature(path) for path in files)
    known = _known.get(folder)
    if known is None or known[0] != signature:
        known = _known[folder] = (signature, {path.name: _digest(path) for path in files})
    return dict(known[1])


def seal(folder: Path) -> dict[str, str]:
    """Flush the files below `folder` to the disk, so that the record never names weights that a power failure took,
    and write-protect them; what `digests` says of it."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        if path.is_file():
            path.chmod(path.stat().st_mode & ~0o222)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return digests(folder)


def changes(files: Mapping[str, str], folder: Path) -> list[str]:
    """What is not as `files` says, one entry per file: ``config.json has changed``."""
    found = digests(folder)
    gone = [f"{name} is missing" for name in files if name not in found]
    other = [f"{name} has changed" for name in files if name in found and files[name] != found[name]]
    return gone + other + [f"{name} was added" for name in found if name not in files]


def checked(student: Student, folder: Path) -> Path:
    """`folder`, if it holds what the student was when it was made; for a student made before that was noted, anything.

    Raises:
        MissingPart: it is not there.
        RecordError: it holds something else.
    """
    if not folder.is_dir():
        raise MissingPart(
            f"the weights of {student.label} are not here ({folder}): they were deleted, or left out of a backup; "
            "`tutelage students list` says which students have theirs"
        )
    if student.files and (wrong := changes(student.files, folder)):
        raise RecordError(
            f"{folder} is not {student.label} any more ({', '.join(wrong)}), so it is not used; restore it from a "
            "backup, or go back to another version (`tutelage students rollback`)"
        )
    return folder


def _signature(path: Path) -> tuple[str, int, int, int]:
    state = path.stat()
    return path.name, state.st_size, state.st_mtime_ns, state.st_ino


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

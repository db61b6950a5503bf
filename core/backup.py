"""Backups of a workspace: one file with everything that cannot be made again, consistent while a run goes on writing.

The vector index and the report are not in it; both are made again from the record.
"""

import gzip
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pydantic import Field, ValidationError

from tutelage.database import FILE
from tutelage.errors import TutelageError
from tutelage.types import Frozen, now

MANIFEST = "manifest.json"
CONFIG = "config.json"
DATABASES = ("checkpoints.db", FILE)
"""In this order: a record that is ahead of the loop's checkpoint is gone on with, the reverse would lose work."""
MAX_MANIFEST = 10_000_000
CHUNK = 1 << 20
COMPRESSION = 3
"""Weights hardly compress, and text does at any level."""


class BackupError(TutelageError):
    """A backup cannot be made, or the file is none that can be restored; the workspace is as it was."""


class File(Frozen):
    """One file of a backup."""

    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Frozen):
    """What a backup holds; the first member of its archive."""

    format: Literal[1] = 1
    tutelage: str
    """Version that made it."""
    created: datetime = Field(default_factory=now)
    schema_version: int
    """Of the record."""
    files: dict[str, File]
    students: tuple[str, ...] = ()
    """Labels of the students whose weights are in it."""
    without: tuple[str, ...] = ()
    """Labels of those whose weights were there and are not in it."""


def backup(folder: Path, out: Path, *, students: bool = False) -> Manifest:
    """Write the workspace in `folder` to a new file `out` (.tar.gz), which appears complete or not at all.

    Args:
        students: with the weights of all students; without them, restored students cannot act or be trained on.

    Raises:
        BackupError: there is no record, a database is damaged, or `out` exists or cannot be written.
    """
    if not (folder / FILE).is_file():
        raise BackupError(f"there is no record in {folder}")
    if out.exists():
        raise BackupError(f"{out} exists; name another file")
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=out.parent) as scratch:
            paths = {
                name: copied(folder / name, Path(scratch) / name) for name in DATABASES if (folder / name).is_file()
            }
            if (folder / CONFIG).is_file():
                paths[CONFIG] = Path(
                    shutil.copyfile(folder / CONFIG, Path(scratch) / CONFIG)
                )  # a command may rewrite it
            schema, weights = _contents(paths[FILE], folder)
            if students:
                for place in weights.values():
                    paths |= {
                        str(path.relative_to(folder)): path for path in sorted(place.rglob("*")) if path.is_file()
                    }
            manifest = Manifest(
                tutelage=version("tutelage"),
                schema_version=schema,
                files={name: _file(path) for name, path in paths.items()},
                students=tuple(weights) if students else (),
                without=() if students else tuple(weights),
            )
            _write(part, manifest, paths)
        part.replace(out)
    except OSError as error:
        raise BackupError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return manifest


def restore(file: Path, folder: Path) -> Manifest:
    """Make the workspace `folder` from a backup; it appears complete and verified, or not at all.

    Nothing in the archive is trusted: only files that its manifest lists are written, under their checked names, no
    longer than it says, and every digest must be right.

    Raises:
        BackupError: `folder` has something in it, the file is no backup or damaged, or there is no room.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty; restore to another place with --set workspace=DIR")
    if folder.exists() and not folder.is_dir():
        raise BackupError(f"{folder} is not a folder")
    target = folder.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=target.parent) as scratch:
            made = Path(scratch) / "workspace"
            made.mkdir()
            with _unpacking(file), tarfile.open(file, "r|gz") as archive:
                manifest = _unpack(archive, made)
                _adapt(made, folder)
            made.replace(target)  # takes the place of an empty folder
    except OSError as error:
        raise BackupError(f"cannot restore {file} to {folder}: {error.strerror or error}") from error
    return manifest


# -- making -------------------------------------------------------------------------------------


def copied(source: Path, copy: Path) -> Path:
    """The database as it is at one moment (SQLite's online backup); writers go on meanwhile."""
    try:
        with (
            closing(sqlite3.connect(f"file:{source.resolve()}?mode=ro", uri=True, timeout=60)) as old,
            closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, no log beside it
            check = new.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"cannot read {source}: {error}") from error
    if check != "ok":
        raise BackupError(f"{source} is damaged, so it is not backed up: {check}")
    return copy


def _contents(record: Path, folder: Path) -> tuple[int, dict[str, Path]]:
    """Schema version of a record's copy, and the folders of its students' weights by label.

    Raises:
        BackupError: it is a database, but not a record.
    """
    try:
        with closing(sqlite3.connect(record)) as connection:
            schema = int(connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()[0])
            rows = connection.execute("SELECT label, body FROM students ORDER BY number").fetchall()
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise BackupError(f"{folder / FILE} is not a record of Tutelage: {error}") from error
    root = folder.resolve()
    places = {label: folder / json.loads(body)["weights"] for label, body in rows}
    # Base weights are a name or lie elsewhere; they come from where they came from.
    return schema, {label: at for label, at in places.items() if at.is_dir() and root in at.resolve().parents}


def _file(path: Path) -> File:
    with path.open("rb") as stream:
        digest, size = sha256(), 0
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return File(bytes=size, sha256=digest.hexdigest())


def _write(part: Path, manifest: Manifest, paths: dict[str, Path]) -> None:
    with part.open("xb") as stream:
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=COMPRESSION, dereference=True) as archive:
            text = manifest.model_dump_json(indent=2).encode()
            first = _plain(tarfile.TarInfo(MANIFEST))
            first.size = len(text)
            archive.addfile(first, BytesIO(text))
            for name, path in paths.items():
                archive.add(path.resolve(), name, filter=_plain)
        stream.flush()
        os.fsync(stream.fileno())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who and where: neither users nor permissions of this machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


# -- restoring ----------------------------------------------------------------------------------


@contextmanager
def _unpacking(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BackupError(f"{file} is no backup of Tutelage, or it is damaged: {error}") from error
    except BackupError as error:
        raise BackupError(f"{file}: {error}") from error


def _unpack(archive: tarfile.TarFile, folder: Path) -> Manifest:
    manifest = _manifest(archive)
    room = shutil.disk_usage(folder).free
    if (need := sum(file.bytes for file in manifest.files.values())) > room:
        raise BackupError(f"it needs {need:,} bytes and there is room for {room:,}")
    left = dict(manifest.files)
    while (member := archive.next()) is not None:
        wanted = left.pop(member.name, None)
        if wanted is None or not member.isreg() or member.size != wanted.bytes:
            raise BackupError(f"{member.name!r} is not what the manifest lists")
        stream = archive.extractfile(member)
        assert stream is not None, "it is a regular file"
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        _extract(stream, path, wanted, member.name)
    if left:
        raise BackupError(f"it ends without {', '.join(sorted(left))}")
    return manifest


def _manifest(archive: tarfile.TarFile) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MAX_MANIFEST:
        raise BackupError("it has no manifest, so it is no backup of Tutelage")
    stream = archive.extractfile(first)
    assert stream is not None, "it is a regular file"
    text = stream.read()
    try:
        format = json.loads(text).get("format")
        if isinstance(format, int) and format > 1:
            raise BackupError(f"it has format {format}; this Tutelage reads format 1")
        manifest = Manifest.model_validate_json(text)
    except (ValueError, AttributeError, ValidationError) as error:
        raise BackupError("its manifest cannot be read") from error
    if FILE not in manifest.files:
        raise BackupError("there is no record in it")
    for name in manifest.files:
        if not _allowed(name):
            raise BackupError(f"{name!r} has no place in a workspace")
    return manifest


def _allowed(name: str) -> bool:
    """Whether a backup may write there: the databases, the settings, and students' weights."""
    if name in (*DATABASES, CONFIG):
        return True
    path = PurePosixPath(name)
    plain = str(path) == name and "\\" not in name and "\0" not in name and ".." not in path.parts
    return plain and len(path.parts) > 2 and path.parts[0] == "students"


def _extract(stream: IO[bytes], path: Path, wanted: File, name: str) -> None:
    digest = sha256()
    with path.open("xb") as out:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != wanted.sha256:
        raise BackupError(f"{name!r} is damaged: its digest is not the manifest's")


def _adapt(made: Path, folder: Path) -> None:
    """Have the settings name the new place."""
    config = made / CONFIG
    if config.is_file():
        try:
            settings = {**json.loads(config.read_bytes()), "workspace": str(folder)}
        except (ValueError, TypeError) as error:
            raise BackupError(f"{CONFIG} in it is not a workspace's settings") from error
        config.write_text(json.dumps(settings, indent=2), encoding="utf-8")

"""A backup is one moment of a workspace that goes on being written, and a restore is that moment or nothing."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tutelage.backup import BackupError, backup, restore
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.types import Ending, Split, Task, Trajectory

Members = dict[str, bytes]


def play(record: Record, seed: int) -> None:
    task = Task(environment="toy", family="f", seed=seed, split=Split.TRAIN)
    item = Trajectory(task=task, goal="g", system="", policy="p", memory=False, ending=Ending.SOLVED)
    record.add_trajectory(item, key=str(seed), cycle=0, arm="a")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A record with a student of its own, settings, a checkpoint, and what does not belong into a backup."""
    folder = tmp_path / "old"
    record = Record.open(folder)
    play(record, 0)
    record.add_student(Student(number=0, stage="base", cycle=0, weights="tiny"))
    record.add_student(Student(number=1, stage="sft", cycle=1, weights="students/1"))
    record.close()
    for name, text in {
        "config.json": json.dumps({"workspace": "old", "seed": 7}),
        "students/1/model.safetensors": "weights" * 1000,
        "students/1/more/config.json": "{}",
        "students/2/half.safetensors": "not in the record yet",
        "index/chroma/data.bin": "vectors",
        "report.html": "<html>",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    os.link(folder / "students/1/model.safetensors", folder / "students/1/same.safetensors")
    with sqlite3.connect(folder / "checkpoints.db") as connection:
        connection.execute("CREATE TABLE checkpoints (x)")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_workspace_comes_back_as_it_was(workspace: Path, tmp_path: Path) -> None:
    manifest = backup(workspace, tmp_path / "b.tar.gz", students=True)
    assert (manifest.schema_version, manifest.students, manifest.without) == (3, ("student@1",), ())
    (tmp_path / "new").mkdir()
    assert restore(tmp_path / "b.tar.gz", tmp_path / "new") == manifest
    old, new = files(workspace), files(tmp_path / "new")
    assert set(new) == {
        *("record.db", "checkpoints.db", "config.json"),
        *(f"students/1/{name}" for name in ("model.safetensors", "same.safetensors", "more/config.json")),
    }
    assert all(new[name] == old[name] for name in new if name.startswith("students/"))
    assert json.loads(new["config.json"]) == {"workspace": str(tmp_path / "new"), "seed": 7}
    one, two = Record.open(workspace), Record.open(tmp_path / "new", create=False)
    assert one.trajectories() == two.trajectories() != []
    assert one.fingerprint() == two.fingerprint()
    one.close()
    two.close()


def test_without_students_it_says_whose_weights_are_missing(workspace: Path, tmp_path: Path) -> None:
    assert backup(workspace, tmp_path / "b.tar.gz").without == ("student@1",)
    restore(tmp_path / "b.tar.gz", tmp_path / "new")
    assert set(files(tmp_path / "new")) == {"record.db", "checkpoints.db", "config.json"}


WRITER = """
import sys
from pathlib import Path
from tutelage.record import Record

record = Record.open(Path(sys.argv[1]))
number = 0
while True:
    with record.transaction():
        record.put("a", str(number), {"text": "x" * 5000})
        record.put("b", str(number), {"text": "x" * 5000})
    number += 1
    print(number, flush=True)
"""


def test_it_is_one_moment_of_a_run_that_goes_on_writing(workspace: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(workspace)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        sizes = []
        for number in range(3):
            told = [int(child.stdout.readline()) for _ in range(20)][-1]
            backup(workspace, tmp_path / f"{number}.tar.gz")
            restore(tmp_path / f"{number}.tar.gz", tmp_path / str(number))
            record = Record.open(tmp_path / str(number))
            written = list(record.items("a"))
            assert list(record.items("b")) == written == [str(place) for place in range(len(written))]
            assert len(written) >= told, "what was committed before is in it"
            sizes.append(len(written))
            record.close()
        child.kill()
    assert sizes == sorted(set(sizes))


def test_nothing_is_overwritten_and_nothing_made_of_what_is_no_record(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    backup(workspace, out)
    before = files(workspace)
    with pytest.raises(BackupError, match="exists"):
        backup(workspace, out)
    with pytest.raises(BackupError, match="is not empty"):
        restore(out, workspace)
    assert files(workspace) == before
    with pytest.raises(BackupError, match="there is no record"):
        backup(tmp_path / "none", tmp_path / "c.tar.gz")
    with sqlite3.connect(workspace / "record.db") as connection:
        connection.execute("DROP TABLE meta")
    connection.close()
    with pytest.raises(BackupError, match="not a record of Tutelage"):
        backup(workspace, tmp_path / "c.tar.gz")
    (workspace / "record.db").write_bytes(before["record.db"][:4096] + b"x" * 20000)
    with pytest.raises(BackupError, match=r"is damaged|cannot read"):
        backup(workspace, tmp_path / "c.tar.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "old"]


def unpacked(file: Path) -> Members:
    with tarfile.open(file) as archive:
        return {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]


def packed(file: Path, members: Members, **kinds: Any) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in kinds.get(name, {}).items() if name in kinds else ():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))


def listed(members: Members, name: str, data: bytes, **claims: Any) -> Members:
    """With a further file that the manifest lists, truly unless `claims` say otherwise."""
    manifest = json.loads(members["manifest.json"])
    manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest(), **claims}
    return {**members, "manifest.json": json.dumps(manifest).encode(), name: data}


def dropped(members: Members, name: str) -> Members:
    return {key: data for key, data in members.items() if key != name}


def edited(members: Members, **fields: Any) -> Members:
    return {**members, "manifest.json": json.dumps({**json.loads(members["manifest.json"]), **fields}).encode()}


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda m: listed(m, "../evil", b"x"), "has no place in a workspace"),
        (lambda m: listed(m, "/tmp/evil", b"x"), "has no place in a workspace"),
        (lambda m: listed(m, "students/../../evil", b"x"), "has no place in a workspace"),
        (lambda m: listed(m, "index/chroma.sqlite3", b"x"), "has no place in a workspace"),
        (lambda m: listed(m, "students/1/a", b"xyz", sha256="0" * 64), "its digest is not the manifest's"),
        (lambda m: listed(m, "students/1/a", b"xyz", bytes=2), "is not what the manifest lists"),
        (lambda m: listed(m, "students/1/a", b"", bytes=10**18), "there is room for"),
        (lambda m: {**m, "students/1/more": b"x"}, "is not what the manifest lists"),
        (lambda m: dropped(m, "config.json"), "ends without config.json"),
        (lambda m: dropped(m, "manifest.json"), "no backup of Tutelage"),
        (lambda m: edited(m, format=2), "has format 2; this Tutelage reads format 1"),
        (lambda m: edited(m, files={}), "there is no record in it"),
        (lambda m: {**m, "manifest.json": b"[]"}, "manifest cannot be read"),
        (lambda m: listed(m, "config.json", b"[1]"), "not a workspace's settings"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said_and_nothing_is_left(
    workspace: Path, tmp_path: Path, attack: Callable[[Members], Members], message: str
) -> None:
    backup(workspace, tmp_path / "good.tar.gz")
    packed(tmp_path / "bad.tar.gz", attack(unpacked(tmp_path / "good.tar.gz")))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(BackupError, match=message):
        restore(tmp_path / "bad.tar.gz", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(workspace: Path, tmp_path: Path, kind: bytes) -> None:
    backup(workspace, tmp_path / "good.tar.gz")
    members = listed(unpacked(tmp_path / "good.tar.gz"), "students/1/link", b"")
    packed(tmp_path / "bad.tar.gz", members, **{"students/1/link": {"type": kind, "linkname": "/etc/passwd"}})
    with pytest.raises(BackupError, match="is not what the manifest lists"):
        restore(tmp_path / "bad.tar.gz", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.9])
def test_a_damaged_file_is_a_clear_error(workspace: Path, tmp_path: Path, cut: float) -> None:
    out = tmp_path / "b.tar.gz"
    backup(workspace, out, students=True)
    data = out.read_bytes()
    out.write_bytes(data[: int(cut * len(data)) if cut < 1 else int(cut)])
    with pytest.raises(BackupError, match="damaged"):
        restore(out, tmp_path / "new")
    out.write_text("a text file, which is no archive")
    with pytest.raises(BackupError, match="no backup of Tutelage"):
        restore(out, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "old"]


def tutelage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tutelage.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_the_commands_back_up_restore_forget_and_list_what_was_forgotten(workspace: Path, tmp_path: Path) -> None:
    here, there = (f"workspace={folder}" for folder in (workspace, tmp_path / "new"))
    (workspace / "config.json").write_text(json.dumps({"workspace": str(workspace)}))
    out = str(tmp_path / "b.tar.gz")
    assert "without the weights of student@1; --students" in tutelage("backup", out, "-s", here).stdout
    assert "all digests right" in tutelage("restore", out, "-s", there).stdout
    again = tutelage("restore", out, "-s", there)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is not empty" in again.stderr
    (episode,) = json.loads(tutelage("trajectories", "list", "--json", "-s", there).stdout)
    told = tutelage("trajectories", "forget", episode["id"], "--reason", "private", "--as", "ada", "-y", "-s", there)
    assert told.stdout == f"trajectory {episode['id']} is forgotten\n"
    (stone,) = json.loads(tutelage("memory", "forgotten", "--json", "-s", there).stdout)
    assert [stone[name] for name in ("id", "kind", "reason", "by")] == [
        *(episode["id"], "trajectory", "private", "hand:ada")
    ]
    assert "private" in tutelage("memory", "forgotten", "-s", there).stdout

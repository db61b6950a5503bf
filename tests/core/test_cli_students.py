"""The commands about student versions, as programs and people read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli import students
from tutelage.cli.app import app
from tutelage.config import CONFIG_FILE, Config
from tutelage.errors import RecordError
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import content

COMMANDS = (students,)
"""Imported, they are known to the application."""

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a workspace with the base student and three in a row after it; what it prints, read if JSON."""
    config = Config.model_validate({"workspace": tmp_path / "w", "student": {"weights": "tiny"}})
    record = Record.open(tmp_path / "w")
    (tmp_path / "w" / CONFIG_FILE).write_text(config.model_dump_json())
    parent = Student(number=0, stage="base", cycle=0, weights="tiny")
    record.add_student(parent)
    for number in (1, 2, 3):
        folder = tmp_path / "w" / "students" / str(number)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(f"weights {number}")
        parent = Student(
            number=number,
            stage="sft",
            cycle=number,
            weights=f"students/{number}",
            parent=parent.id,
            files=content.seal(folder),
            settings={"steps": 10 * number},
        )
        record.add_student(parent)
    record.promote(parent.id, reason="test", evidence={})
    record.close()

    def run(*arguments: str, exit_code: int = 0) -> Any:
        command = [*arguments, "-s", f"workspace={tmp_path / 'w'}"]
        done = CliRunner().invoke(app, ["students", *command], catch_exceptions=False)
        assert done.exit_code == exit_code, done.output
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


def test_they_tell_about_each_version(run: Run) -> None:
    listed = run("list", "--json")
    assert [row["promoted"] for row in listed] == ["", "", "", "yes"]
    assert len({row["content"] for row in listed}) == 4
    shown = run("show", listed[2]["content"], "--json")
    assert (shown["line"], shown["children"]) == (["student@0", "student@1", "student@2"], ["student@3"])
    assert shown["needed"] == ["student@3 was trained from it (delete that first)"]
    assert run("show", "3").startswith(f"student@3  {listed[3]['id']}  promoted\nline: student@0 → student@1")
    assert run("compare", "1", "student@2", "--json")["settings"] == {"sft.steps": [10, 20]}
    assert "sft.steps: 10 → 20" in run("compare", "1", "2")


def test_deleting_asks_is_refused_or_leaves_a_row(run: Run, tmp_path: Path) -> None:
    run("delete", "1", exit_code=1)  # nobody answers
    assert (tmp_path / "w" / "students" / "1").is_dir()
    with pytest.raises(RecordError, match="student@3 stays: it is promoted"):
        run("delete", "3", "--yes")
    with pytest.raises(RecordError, match="student@1 stays: student@2 was trained from it"):
        run("delete", "1", "--yes")
    with pytest.raises(RecordError, match="has not passed the gate"):
        run("promote", "2", "--reason", "none")
    record = Record.open(tmp_path / "w")
    record.add_student(Student(number=4, stage="sft", cycle=4, weights="students/4", parent=record.students()[2].id))
    record.close()
    assert run("delete", "4", "--yes", "--as", "kim", "-m", "an error", "--json")["by"] == "hand:kim"
    assert run("list", "--json")[4]["note"].endswith("by hand:kim")
    assert "deleted by hand:kim on" in run("show", "4")


def test_a_digest_that_two_share_does_not_say_which_is_meant(run: Run, tmp_path: Path) -> None:
    record = Record.open(tmp_path / "w")
    second = record.students()[2]
    twin = Student(number=4, stage="sft", cycle=4, weights="students/4", parent=second.parent, files=second.files)
    record.add_student(twin)
    record.close()
    for words in (("delete", "--yes"), ("promote", "--reason", "it")):
        with pytest.raises(RecordError, match="several students: student@2, student@4; say which by its label"):
            run(*words, second.content[:8])
    assert run("show", second.content[:8], "--json")["student"] == "student@2", "it is the same model"


def test_verifying_ends_with_1_if_a_file_is_not_what_it_was(run: Run, tmp_path: Path) -> None:
    assert [row["state"] for row in run("verify", "1", "2", "--json")] == ["sound", "sound"]
    spoilt = tmp_path / "w" / "students" / "2" / "model.safetensors"
    spoilt.chmod(0o600)
    spoilt.write_text("weights 5")
    found = run("verify", "1", "2", "--json", exit_code=1)
    assert [row["state"] for row in found] == ["sound", "changed"]
    assert found[1]["detail"] == "model.safetensors has changed"

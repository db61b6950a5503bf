"""What others wrote does not command the terminal of who reads it, whichever command shows it."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli import job_queue, job_triggers, look, memory_writing, students
from tutelage.cli.app import app, fail
from tutelage.config import CONFIG_FILE, Config
from tutelage.environments.toy import Toy
from tutelage.experience import Change, Experience, Source, Sticker
from tutelage.jobs.model import State
from tutelage.jobs.store import JobStore
from tutelage.measures import Student
from tutelage.record import Record

COMMANDS = (job_queue, job_triggers, look, students)
"""Imported, they are known to the application."""
Told = tuple[Callable[..., str], str]
OBEYED = "\x1b]0;title\x07\x1b[2J\x9b2J\r\u202e"


def legible(text: str) -> bool:
    return "told" in text and not set(text) & set("\x1b\x07\x9b\r\u202e")


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """A job and a student's promotion say what terminals obey: what a command prints about them, and the job's id."""
    config = Config.model_validate({"workspace": tmp_path / "w", "student": {"weights": "tiny"}})
    with closing(Record.open(tmp_path / "w")) as record:
        (tmp_path / "w" / CONFIG_FILE).write_text(config.model_dump_json())
        base = Student(number=0, stage="base", cycle=0, weights="tiny")
        record.add_student(base)
        record.promote(base.id, reason=f"told{OBEYED}", evidence={})
        store = JobStore(record)
        job = store.submit("evaluate", {"policy": "expert"}, key="k", by="hand:somebody")[0]
        now = time.time()
        attempt = store.lease(job.id, "one", now, 60)
        assert attempt is not None
        store.started(job.id, attempt, "host:1", "", now)
        store.say(job.id, attempt, [f"told{OBEYED}"])
        store.finish(job.id, attempt, State.FAILED, f"told{OBEYED}", {"told": OBEYED})

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "-s", f"workspace={tmp_path / 'w'}"])
        assert done.exit_code in (0, 1), done.output
        return done.stdout + done.stderr

    return run, job.id


@pytest.mark.parametrize("words", [("show", "JOB"), ("logs", "JOB"), ("logs", "-f", "JOB"), ("list",)])
def test_what_a_job_says(told: Told, words: tuple[str, ...]) -> None:
    run, job = told
    assert legible(run("jobs", *(job if word == "JOB" else word for word in words)))


def test_what_a_job_says_that_is_waited_for(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle:
        def tick(self) -> int:
            return 0

    monkeypatch.setattr("tutelage.cli.job_queue.dispatcher", lambda *_: Idle())
    assert legible(told[0]("jobs", "submit", "evaluate", "--key", "k", "--wait"))


def test_why_a_student_is_in_use(told: Told) -> None:
    assert legible(told[0]("students", "show", "0"))


def test_what_an_environment_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = Toy.reset

    def obeyed(self: Toy, **options: Any) -> Any:
        _, info = reset(self, **options)
        return f"told{OBEYED}", info

    monkeypatch.setattr(Toy, "reset", obeyed)
    done = CliRunner().invoke(app, ["env", "show", "toy", "-f", "press"], catch_exceptions=False)
    assert legible(done.stdout)


def test_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(f"told{OBEYED}")
    assert legible(capsys.readouterr().err)


def test_why_an_experience_was_changed(capsys: pytest.CaptureFixture[str]) -> None:
    item = Experience(
        environment="toy",
        family="press",
        goal="g",
        content=Sticker(conditions=("c",), question="q"),
        sources=(Source(trajectory="", task=""),),
        author="hand:somebody",
        change=Change(by="hand:somebody", reason=f"told{OBEYED}"),
    )
    memory_writing._report([item], as_json=False)
    assert legible(capsys.readouterr().out)

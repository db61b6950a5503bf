"""The commands of the queue, but for those that run jobs."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command
from sqlalchemy.exc import OperationalError

from tutelage.config import CONFIG_FILE, Config
from tutelage.jobs.model import Job, Progress, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record


@pytest.fixture
def jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Gives a command; returns its exit code and what it printed."""
    workspace = tmp_path / "workspace"
    Record.open(workspace).close()
    (workspace / CONFIG_FILE).write_text(Config(workspace=workspace, jobs={"poll": 0.01}).model_dump_json())

    def run(*words: str, where: Path = workspace) -> tuple[int, str]:
        code, shown = command("jobs", *words, "-s", f"workspace={where}"), capsys.readouterr()
        return code, shown.out + shown.err

    return run


def test_a_job_can_be_submitted_found_cancelled_and_retried(jobs) -> None:
    code, shown = jobs("submit", "evaluate", "-p", "policy=expert", "-p", "episodes=2", "--key", "k", "--json")
    job = json.loads(shown)
    assert (code, job["state"], job["new"]) == (0, "queued", True)
    assert job["params"] == {"policy": "expert", "episodes": 2}
    assert json.loads(jobs("submit", "train", "--key", "k", "--json")[1])["id"] == job["id"]
    short = job["id"][4:12]
    assert [row["id"] for row in json.loads(jobs("list", "--state", "queued", "--json")[1])] == [job["id"]]
    assert json.loads(jobs("cancel", short, "--json")[1])["state"] == "cancelled"
    assert "cancelled by hand:" in jobs("show", short)[1]
    assert jobs("cancel", short)[0] == 2
    assert "queued" in jobs("retry", short)[1]
    assert "retried by hand:" in jobs("list")[1]


def test_lines_and_progress_of_a_running_job_are_shown(jobs, tmp_path: Path) -> None:
    record = Record.open(tmp_path / "workspace")
    store = JobStore(record)
    job = store.submit("distill", {"set": ["act.width=2"]}, by="trigger:nightly")[0]
    attempt = store.lease(job.id, "one", 2e9, 60)
    assert attempt is not None
    store.started(job.id, attempt, "host:1", "", 2e9)
    store.beat(job.id, attempt, 2e9, 60, Progress(what="sft", done=3, total=50))
    store.say(job.id, attempt, ["cycle 1: train"])
    listed = jobs("list")[1]
    assert "trigger:nightly" in listed
    assert "sft 3/50" in listed
    assert "cycle 1: train" in jobs("logs", job.id)[1]
    store.finish(job.id, attempt, State.SUCCEEDED, result={"cycle": 1, "promoted": None, "gate": "student@1 refused"})
    record.close()
    assert "cycle 1: train" in jobs("logs", "-f", job.id)[1]
    assert '"promoted": null' in jobs("show", job.id)[1]
    assert "student@1 refused" in jobs("list")[1]


def test_nonsense_is_one_clear_line(jobs, tmp_path: Path) -> None:
    for words, why in {
        ("submit", "train", "-s", "act.wdth=2"): "act.wdth",
        ("submit", "evaluate", "-p", "episodes"): "NAME=VALUE",
        ("submit", "evaluate", "-p", "splt=test"): "it takes: set, policy",
        ("show", "nothing"): "no job 'nothing'",
    }.items():
        code, shown = jobs(*words)
        assert code == 2
        assert why in shown
        assert shown.count("\n") == 1
    code, shown = jobs("list", where=tmp_path / "elsewhere")
    assert (code, "there is no workspace at" in shown) == (2, True)


# -- what works on the queue ----------------------------------------------------------------------


class Acting:
    """A dispatcher whose ticks do what they are given, one each, and then nothing."""

    def __init__(self, *acts: Callable[[JobStore], int]) -> None:
        self.acts = list(acts)

    def __call__(self, store: JobStore, settings: Config) -> "Acting":
        self.store = store
        return self

    def tick(self) -> int:
        return self.acts.pop(0)(self.store) if self.acts else 0


def begin(store: JobStore) -> int:
    job = oldest(store, State.QUEUED)
    attempt = store.lease(job.id, "one", 2e9, 60)
    assert attempt is not None
    store.started(job.id, attempt, "host:1", "", 2e9)
    return 1


def end(store: JobStore) -> int:
    job = oldest(store, State.RUNNING)
    store.finish(job.id, job.last.attempt, State.SUCCEEDED)
    return 0


def busy(store: JobStore) -> int:
    raise OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked"))


def interrupted(store: JobStore) -> int:
    raise KeyboardInterrupt


def oldest(store: JobStore, state: State) -> Job:
    return store.jobs((state,))[-1]


def test_a_tick_ends_only_when_what_its_jobs_kept_waiting_is_done(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs("submit", "extract")
    jobs("submit", "consolidate")
    monkeypatch.setattr("tutelage.cli.job_triggers.dispatcher", Acting(begin, end, begin, end))
    code, shown = jobs("tick", "--json")
    told = [(job["kind"], job["state"]) for job in json.loads(shown)["jobs"]]
    assert (code, told) == (0, [("extract", "succeeded"), ("consolidate", "succeeded")])


@pytest.mark.parametrize("words", [("submit", "extract", "--wait"), ("tick",)])
def test_a_busy_database_is_waited_for(
    jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: tuple[str, ...]
) -> None:
    jobs("submit", "extract", "--key", "k")
    for module in ("job_queue", "job_triggers"):
        monkeypatch.setattr(f"tutelage.cli.{module}.dispatcher", Acting(begin, busy, end))
    code, shown = jobs(*words, *(("--key", "k") if "--wait" in words else ()))
    assert code == 0
    assert "succeeded" in shown
    assert caplog.messages == ["the database is busy or away: database is locked"]


def test_commands_say_in_one_line_that_the_database_is_busy(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobStore, "jobs", lambda store, *_: busy(store))
    code, shown = jobs("list")
    assert (code, shown) == (2, "error: the database is busy or away: database is locked\n")

    def mistaken(*_: object) -> None:
        try:
            sqlite3.connect(":memory:").execute("SELECT * FROM gone")
        except sqlite3.OperationalError as error:
            raise OperationalError("SELECT", {}, error) from error

    monkeypatch.setattr(JobStore, "jobs", mistaken)
    with pytest.raises(OperationalError, match="no such table"):
        jobs("list")


def test_who_stops_waiting_is_told_how_to_find_the_job_again(jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.cli.job_queue.dispatcher", Acting(begin, interrupted))
    code, shown = jobs("submit", "extract", "--wait")
    (job,) = json.loads(jobs("list", "--json")[1])
    assert (code, job["state"]) == (130, "running")
    assert f"`tutelage jobs logs -f {job['id']}`" in shown
    assert "the same command" not in shown, "that would queue a second job"

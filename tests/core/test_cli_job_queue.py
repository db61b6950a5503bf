"""The commands of the queue, but for those that run jobs."""

import json
import sys
from pathlib import Path

import pytest

from tutelage.cli import main
from tutelage.config import CONFIG_FILE, Config
from tutelage.jobs.model import Progress, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Gives a command; returns its exit code and what it printed."""
    workspace = tmp_path / "workspace"
    Record.open(workspace).close()
    (workspace / CONFIG_FILE).write_text(Config(workspace=workspace).model_dump_json())

    def run(*words: str, where: Path = workspace) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tutelage", "jobs", *words, "-s", f"workspace={where}"])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

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

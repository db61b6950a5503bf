"""The heartbeat of a job: what it keeps, and what becomes of the job when it cannot beat."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import TimeoutError as NoConnection

from tutelage.config import JobsConfig
from tutelage.jobs import heart
from tutelage.jobs.heart import Heart
from tutelage.jobs.lines import JobReporter
from tutelage.jobs.model import Job, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record


class Beating:
    """A running job of this process."""

    def __init__(self, folder: Path) -> None:
        self.store = JobStore(Record.open(folder))
        self.id = self.store.submit("evaluate", by="hand:test")[0].id
        attempt = self.store.lease(self.id, "one", time.time(), 60)
        assert attempt is not None
        assert self.store.started(self.id, attempt, "host:1", "", time.time())
        self.report = JobReporter()
        self.heart = Heart(self.store, self.id, attempt, JobsConfig(), self.report)

    @property
    def job(self) -> Job:
        return self.store.get(self.id)


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[Beating]:
    found = Beating(tmp_path)
    yield found
    found.store.record.close()


def test_half_of_a_character_stops_no_heart_and_hinders_no_end(beating: Beating) -> None:
    beating.report.keep("error: a \ud800 b")
    beating.report("part \ud800", 1, 2)
    beating.heart._beat("")
    assert beating.store.lines(beating.id)[0].text == "error: a ? b"
    assert beating.job.progress.what == "part ?"
    assert beating.store.say(beating.id, 1, ["its process wrote \ud800"])
    assert beating.heart.end(lambda: beating.store.finish(beating.id, 1, State.FAILED, "what \ud800"))
    assert beating.job.last.reason == "what ?"


def test_a_heart_that_cannot_beat_ends_the_process(
    beating: Beating, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ends(reason: str) -> None:
        raise SystemExit(reason)

    def breaks(*given: object) -> bool:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(heart, "_end_process", ends)
    monkeypatch.setattr(beating.store, "beat", breaks)
    with pytest.raises(SystemExit, match="no heartbeat: ValueError"):
        beating.heart.run()
    assert "nobody thought of this" in caplog.text, "which its attendant keeps"


def test_a_heart_that_gets_no_connection_tries_again(
    beating: Beating, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*given: object) -> bool:
        raise NoConnection("all are taken")

    monkeypatch.setattr(beating.store, "beat", breaks)
    with caplog.at_level(logging.WARNING):
        beating.heart._beat("")
    assert caplog.messages == [f"no heartbeat for {beating.id}: the database is busy or away: all are taken"]


def test_the_wait_doubles_up_to_the_most_however_many_failures_came_before() -> None:
    config = JobsConfig(backoff=30, backoff_most=100)
    assert [config.wait(before) for before in (0, 1, 2, 5000)] == [30, 60, 100, 100]
    assert JobsConfig(backoff=0).wait(5000) == 0

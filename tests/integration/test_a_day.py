"""A day of a service by a quick clock: episodes arrive, triggers fire, a worker and the scheduler are killed; at the
end the record is that of the same work done by hand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from same_work import happened

from tutelage import loop
from tutelage.config import Config
from tutelage.cycle import ROLLOUTS, run_and_record
from tutelage.jobs.kinds import Params, settings
from tutelage.jobs.local import LocalLauncher
from tutelage.jobs.model import Again, Job, State
from tutelage.jobs.scheduler import TRIGGER
from tutelage.jobs.store import JobStore
from tutelage.jobs.triggers import Kept
from tutelage.progress import Reporter
from tutelage.types import Split
from tutelage.workspace import Workspace

BERLIN = ZoneInfo("Europe/Berlin")
MIDNIGHT = datetime(2026, 6, 1, tzinfo=BERLIN).timestamp()
MINUTE, MINUTES = 60.0, 24 * 60
ENOUGH = 12
"""Accepted episodes that start a distillation."""
USELESS = ("stages.0.learning_rate=0", "stages.0.steps=2")
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "environments": [{"name": "toy", "families": ["press"]}],
    "student": {"weights": "tiny", "dtype": "float32", "max_new_tokens": 16},
    "act": {"width": 1, "max_steps": 3},
    "collect": {"guarded": 0},
    "stages": [{"type": "sft", "steps": 45, "learning_rate": 5e-3, "warmup": 0.1, "checkpoint_every": 5}],
    "evaluate": {"episodes": 8, "between": 0, "with_memory": 0, "test": 0},
    "evidence": {"pairs": 0},
    "jobs": {"poll": 0.05, "heartbeat": 0.3, "lease": 60},
    "triggers": [
        {"name": "enough", "accepted": ENOUGH},
        {"name": "nightly", "cron": "0 22 * * *", "timezone": "Europe/Berlin", "params": {"set": USELESS}},
        {"name": "lunch", "cron": "30 12 * * *", "timezone": "Europe/Berlin", "missed": "skip", "job": "extract"},
    ],
}


class Day:
    """The service of a workspace in a process of its own, and the clock that it goes by."""

    def __init__(self, folder: Path, minute: float, night: str, poll: float) -> None:
        """
        Args:
            minute: how many seconds one of its minutes lasts.
            night: the kind of job that the night brings.
            poll: seconds between two looks of the service.
        """
        self.folder, self.minute = folder, minute
        self.told = folder.parent / "clock"
        self.now = 0
        self.night, self.settings = night, settings_of(night, poll)
        self.workspace = Workspace(Config(workspace=folder, **self.settings))
        self.store = JobStore(self.workspace.record)
        self.service: subprocess.Popen[bytes] | None = None
        self._tell()

    def start(self) -> None:
        script = Path(__file__).with_name("day_service.py")
        self.service = subprocess.Popen([sys.executable, str(script), str(self.folder), str(self.told)])
        kept = self.kept("lunch")
        self.wait(lambda: kept is not None or self.kept("lunch") is not None)

    def kill(self) -> None:
        assert self.service is not None
        assert self.service.poll() is None, "it had ended before"
        self.service.kill()
        self.service.wait()

    def until(self, hour: int, minute: int = 0) -> None:
        """Let the time pass, minute by minute."""
        while self.now < 60 * hour + minute:
            self.now += 1
            self._tell()
            time.sleep(self.minute)

    def wait(self, come: Callable[[], bool]) -> None:
        for _ in range(3000):
            if come():
                return
            assert self.service is None or self.service.poll() is None, "the service has ended"
            time.sleep(0.1)
        raise AssertionError(f"waited in vain; {self.store.jobs()}")

    def fired(self, trigger: str) -> Job:
        """The job that a trigger queues, as soon as it does."""
        self.wait(lambda: any(job.by == f"trigger:{trigger}" for job in self.store.jobs()))
        return next(job for job in self.store.jobs() if job.by == f"trigger:{trigger}")

    def over(self, job: Job) -> Job:
        self.wait(lambda: self.store.get(job.id).over)
        return self.store.get(job.id)

    def kept(self, trigger: str) -> Kept | None:
        body = self.workspace.record.get(TRIGGER, trigger)
        return None if body is None else Kept.model_validate(body)

    def _tell(self) -> None:
        new = self.told.with_suffix(".new")
        new.write_text(str(MIDNIGHT + MINUTE * self.now))
        new.replace(self.told)


@pytest.fixture
def day(tmp_path: Path, full_counts: bool) -> Iterator[Day]:
    """In full it lasts ten minutes, and the night distils again, to be refused by the gate. Otherwise time flies while
    nothing happens, and the night extracts only: starting processes that train is most of what this costs."""
    full = (600 / MINUTES, "distill", 0.05)
    day = Day(tmp_path / "service", *(full if full_counts else (0.004, "extract", 0.2)))
    yield day
    if day.service is not None and day.service.poll() is None:
        day.kill()
    for job in day.store.jobs((State.LEASED, State.RUNNING)):
        LocalLauncher(day.workspace.config.jobs, day.folder).stop(job.handle, grace=0)
    day.workspace.close()


def settings_of(night: str, poll: float) -> dict[str, Any]:
    triggers = [{**item, "job": night} if item["name"] == "nightly" else item for item in SETTINGS["triggers"]]
    return {**SETTINGS, "triggers": triggers, "jobs": {**SETTINGS["jobs"], "poll": poll}}


def arrive(workspace: Workspace, first: int, count: int) -> None:
    """Episodes that the teacher solves."""
    tasks = workspace.suite.tasks(Split.TRAIN, first, count)
    run_and_record(workspace, tasks, workspace.acting(), arm=ROLLOUTS, cycle=0, report=Reporter(None))


def kill_in_training(day: Day, job: Job) -> None:
    """Kill -9 of the process that runs a job, once it trains."""
    day.wait(lambda: any("student@1" in line.text for line in day.store.lines(job.id)))
    running = day.store.get(job.id)
    assert running.state is State.RUNNING
    os.kill(int(running.worker.rpartition(":")[2]), signal.SIGKILL)


def test_a_day_ends_as_if_all_had_been_done_by_hand(day: Day, tmp_path: Path) -> None:
    day.start()
    day.until(2)
    arrive(day.workspace, 0, 5)
    day.until(5)
    arrive(day.workspace, 5, ENOUGH - 6)
    day.until(6)
    assert day.store.jobs() == [], "one is missing"
    arrive(day.workspace, ENOUGH - 1, 1)
    first = day.fired("enough")
    kill_in_training(day, first)
    first = day.over(first)
    day.until(12)
    day.kill()
    day.until(13)
    day.start()
    day.until(14)
    arrive(day.workspace, ENOUGH, 3)
    day.until(22, 1)
    second = day.over(day.fired("nightly"))
    day.until(24)

    jobs = [(job.by, job.state, job.last.attempt) for job in reversed(day.store.jobs())]
    assert jobs == [("trigger:enough", State.SUCCEEDED, 2), ("trigger:nightly", State.SUCCEEDED, 1)]
    assert (first.times(Again.TAKEN_OVER), first.times(Again.FAILED)) == (1, 0)
    assert (first.last.result["promoted"], second.last.result.get("promoted")) == ("student@1", None)
    assert ("gate" in second.last.result) == (day.night == "distill")
    student = day.workspace.record.promoted()
    assert student is not None
    assert student.label == "student@1"
    noted = {name: kept.note for name in ("enough", "nightly", "lunch") if (kept := day.kept(name)) is not None}
    assert noted["enough"] == f"{ENOUGH} of {ENOUGH} accepted trajectories"
    assert noted["nightly"] == "2026-06-01 22:00:00 CEST has come"
    assert "2026-06-01 12:30:00 CEST was missed by" in noted["lunch"]
    found = happened(day.workspace.record, day.folder, queue=False, without=(TRIGGER,))
    assert found == by_hand(tmp_path / "by hand", day)


def by_hand(folder: Path, day: Day) -> dict[str, list[dict[str, Any]]]:
    """What the record says once the day's work was done without a service, in one go."""
    with closing(Workspace(Config(workspace=folder, **day.settings))) as workspace:
        arrive(workspace, 0, ENOUGH)
        loop.run(workspace, "distill", Reporter(None))
        arrive(workspace, ENOUGH, 3)
    useless = settings(folder, Params(set=USELESS))
    with closing(Workspace(useless, remember=False)) as workspace:
        loop.run(workspace, day.night, Reporter(None))
        return happened(workspace.record, folder, queue=False)

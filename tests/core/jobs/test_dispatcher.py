"""Dispatchers: any number on one queue, and what becomes of jobs whose processes die or do not stop."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tutelage.config import CONFIG_FILE, Config, JobsConfig, load_config
from tutelage.cycle_lock import cycle_lock
from tutelage.errors import ConfigError, TutelageError
from tutelage.jobs.dispatcher import CANCEL_GRACE, Dispatcher
from tutelage.jobs.model import Again, Job, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record

HELPERS = (Path(__file__).parents[2], Path(__file__).parents[2] / "integration")
BEGAN = 1_800_000_000.0


def test_two_dispatchers_run_no_job_twice(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    store = JobStore(record)
    with record.transaction():
        ids = {store.submit("evaluate" if n % 2 else "collect", by="hand:test")[0].id for n in range(200)}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, HELPERS))}
    command = [sys.executable, "-m", "noop_dispatcher", str(tmp_path)]
    names = [("one", "two"), ("two", "one")]
    both = [subprocess.Popen([*command, *these], env=environment) for these in names]
    assert [process.wait(120) for process in both] == [0, 0]
    runs = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    assert Counter(job for job, _, _ in runs) == Counter(ids)
    assert len({pid for _, _, pid in runs}) == 2, "both had a share"
    assert {(job.state, job.last.attempt) for job in store.jobs()} == {(State.SUCCEEDED, 1)}
    record.close()


class Processes:
    """A launcher whose processes live and die by what the test says."""

    name = "told"

    def __init__(self) -> None:
        self.living: dict[str, bool | None] = {}
        self.stopped: list[tuple[str, float]] = []
        self.fault: Exception | None = None

    def start(self, job: str, attempt: int) -> str:
        if self.fault is not None:
            raise self.fault
        self.living[f"{job}/{attempt}"] = True
        return f"{job}/{attempt}"

    def alive(self, handle: str) -> bool | None:
        return self.living[handle]

    def stop(self, handle: str, *, grace: float) -> None:
        self.living[handle] = False
        self.stopped.append((handle, grace))

    def output(self, handle: str) -> str:
        return "Out of memory\nkey sk-verysecretindeed1234"


class Stand:
    """A dispatcher with its clock in hand."""

    def __init__(self, folder: Path) -> None:
        self.record = Record.open(folder)
        self.now, self.launcher = BEGAN, Processes()
        config = Config(jobs=JobsConfig(lease=60, heartbeat=10, attempts=2, takeovers=3, backoff=30, at_once=2))
        self.dispatcher = Dispatcher(self.record, folder, config, self.launcher, "one", lambda: self.now)
        self.store = self.dispatcher.store

    def started(self, kind: str = "evaluate") -> Job:
        """A job whose process runs."""
        job = self.store.submit(kind, by="hand:test", now=self.now)[0]
        assert self.dispatcher.tick() == 1
        assert self.store.started(job.id, 1, "host:1", "", self.now)
        return self.store.get(job.id)


@pytest.fixture
def stand(tmp_path: Path):
    stand = Stand(tmp_path)
    yield stand
    stand.record.close()


def test_a_dead_process_is_found_before_its_lease_runs_out(stand: Stand) -> None:
    job = stand.started()
    stand.launcher.living[job.handle] = False
    assert stand.dispatcher.tick() == 1
    taken = stand.store.get(job.id)
    assert (taken.state, taken.last.attempt, taken.times(Again.TAKEN_OVER)) == (State.LEASED, 2, 1)
    said = [line.text for line in stand.store.lines(job.id)]
    assert said[-2:] == ["Out of memory", "key [secret]"]


def test_how_a_job_ended_is_logged_once(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    job = stand.started()
    stand.dispatcher.tick()
    assert not caplog.records
    assert stand.store.finish(job.id, 1, State.FAILED, "ConfigError: nonsense", now=stand.now)
    stand.dispatcher.tick()
    stand.dispatcher.tick()
    assert [(item.levelname, item.getMessage()) for item in caplog.records] == [
        ("WARNING", f"{job.id}: the evaluate job is failed: ConfigError: nonsense")
    ]


def test_a_silent_process_is_stopped_and_its_job_taken_over(stand: Stand) -> None:
    job = stand.started()
    stand.now += 61
    assert stand.dispatcher.tick() == 1
    assert stand.launcher.stopped == [(job.handle, 0)]
    assert stand.store.get(job.id).last.attempt == 2
    assert "host:1 gave no sign of life" in [move.reason for move in stand.store.get(job.id).moves]


def test_a_process_that_is_slow_to_start_keeps_its_lease(stand: Stand) -> None:
    job = stand.store.submit("evaluate", by="hand:test")[0]
    stand.dispatcher.tick()
    for _ in range(4):
        stand.now += 40
        assert stand.dispatcher.tick() == 0
    assert stand.store.started(job.id, 1, "host:1", "", stand.now)


def test_no_more_run_at_once_than_configured(stand: Stand) -> None:
    for _ in range(5):
        stand.store.submit("evaluate", by="hand:test")
    assert [stand.dispatcher.tick(), stand.dispatcher.tick()] == [2, 0]
    assert not stand.dispatcher.idle()


def test_what_cannot_be_started_has_its_attempts_or_fails_at_once(stand: Stand) -> None:
    stand.launcher.fault = TutelageError("no room")
    job = stand.store.submit("evaluate", by="hand:test", now=BEGAN)[0]
    assert stand.dispatcher.tick() == 0
    assert stand.store.get(job.id).last.due == BEGAN + 30
    stand.now += 30
    stand.dispatcher.tick()
    assert stand.store.get(job.id).state is State.FAILED
    assert "no room" in stand.store.get(job.id).last.reason
    stand.launcher.fault = ConfigError("never")
    other = stand.store.submit("evaluate", by="hand:test", now=BEGAN)[0]
    stand.dispatcher.tick()
    assert (stand.store.get(other.id).state, stand.store.get(other.id).last.attempt) == (State.FAILED, 1)
    stand.launcher.fault = FileNotFoundError("the folder is gone")  # which its launcher did not foresee
    third = stand.store.submit("evaluate", by="hand:test", now=stand.now)[0]
    assert stand.dispatcher.tick() == 0
    again = stand.store.get(third.id).last
    assert (again.state, again.due) == (State.QUEUED, stand.now + 30)
    assert again.reason.endswith("could not start it: FileNotFoundError: the folder is gone")


def test_a_job_that_does_not_stop_is_ended_after_a_grace(stand: Stand) -> None:
    job = stand.started()
    stand.store.cancel(job.id, "hand:test")
    stand.dispatcher.tick()
    stand.now += CANCEL_GRACE / 2
    stand.dispatcher.tick()
    assert stand.launcher.stopped == []
    stand.now += CANCEL_GRACE
    stand.store.beat(job.id, 1, stand.now, 60)
    stand.dispatcher.tick()
    assert [handle for handle, _ in stand.launcher.stopped] == [job.handle]
    stand.dispatcher.tick()
    assert stand.store.get(job.id).state is State.CANCELLED
    assert stand.dispatcher.idle()


def test_a_launcher_that_knows_nothing_of_a_job_keeps_nobody_waiting(stand: Stand) -> None:
    foreign, other = stand.started(), stand.started()
    del stand.launcher.living[foreign.handle]  # so that it raises, as one that did not give that handle may
    stand.launcher.living[other.handle] = None
    stand.now += 61
    stand.dispatcher.tick()
    assert [stand.store.get(job.id).times(Again.TAKEN_OVER) for job in (foreign, other)] == [1, 1]


def test_what_a_cancelled_job_left_unfinished_is_cleaned_up_whoever_ended_it(
    stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CONFIG_FILE).write_text(load_config(None, ["teacher.model=expert/toy"]).model_dump_json())

    def begun(cycle: int) -> Job:
        job = stand.started("train")
        stand.record.put("loop", str(cycle), {"kind": "train", "status": "running", "job": job.id})
        (tmp_path / "students" / f"{cycle}.checkpoints").mkdir(parents=True)
        return job

    def status(cycle: int) -> str:
        left = (tmp_path / "students" / f"{cycle}.checkpoints").exists()
        return f"{(stand.record.get('loop', str(cycle)) or {})['status']}{', half made' if left else ''}"

    job = begun(1)  # is told to end, and hands itself back
    stand.store.cancel(job.id, "hand:test")
    assert stand.store.again(job.id, 1, Again.HANDED_BACK, "SIGTERM", due=stand.now, now=stand.now)
    stand.dispatcher.tick()
    assert (stand.store.get(job.id).state, status(1)) == (State.CANCELLED, "cancelled")

    job = begun(2)
    assert stand.store.finish(job.id, 1, State.FAILED, now=stand.now)
    stand.dispatcher.tick()
    assert status(2) == "running, half made", "so that a retry goes on with it"
    stand.store.cancel(job.id, "hand:test", stand.now)
    with cycle_lock(tmp_path, "its process, which is still ending"):
        stand.dispatcher.tick()
        stand.dispatcher.tick()
        assert status(2) == "running, half made"
    assert caplog.text.count(f"{job.id}: the next cycle cleans up after it: ") == 1
    stand.dispatcher.tick()
    assert status(2) == "cancelled"


def test_another_dispatcher_goes_on_with_what_runs(stand: Stand, tmp_path: Path) -> None:
    job = stand.started()
    config = Config(jobs=JobsConfig(lease=60, heartbeat=10))
    other = Dispatcher(stand.record, tmp_path, config, stand.launcher, "two", lambda: stand.now)
    assert other.tick() == 0
    stand.launcher.living[job.handle] = False
    assert other.tick() == 1
    assert [move.worker for move in stand.store.get(job.id).moves if move.state is State.LEASED] == ["one", "two"]

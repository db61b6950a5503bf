"""How an attempt ends, by what came of the work."""

import signal
import time
from pathlib import Path

import pytest
from waiting import until

from tutelage.config import CONFIG_FILE, JobsConfig, load_config
from tutelage.cycle_lock import cycle_lock
from tutelage.errors import TutelageError, WorkspaceBusy
from tutelage.jobs import execute
from tutelage.jobs.heart import Heart
from tutelage.jobs.lines import JobReporter
from tutelage.jobs.model import Again, Job, State
from tutelage.jobs.store import JobStore
from tutelage.progress import Reporter
from tutelage.record import Record

SETTINGS = ("jobs.backoff=30", "jobs.attempts=2", "jobs.heartbeat=0.1", "teacher.model=expert/toy")
NOTHING_ELSE = ["collect.mistaken=0", "collect.explored=0"]
ONE_EPISODE = {"set": ["collect.demonstrations=1", *NOTHING_ELSE]}
TWO_EPISODES = {"set": ["collect.demonstrations=2", *NOTHING_ELSE]}


class Queue:
    """A workspace whose jobs are run in this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / CONFIG_FILE).write_text(load_config(None, list(SETTINGS)).model_dump_json())
        self.folder, self.record = folder, Record.open(folder)
        self.store = JobStore(self.record)

    def run(self, job: Job, now: float | None = None) -> Job:
        attempt = self.store.lease(job.id, "one", now or time.time(), 60)
        assert attempt is not None
        code = execute.main([str(self.folder), job.id, str(attempt)])
        ended = self.store.get(job.id)
        assert (code == 0) == (ended.state is State.SUCCEEDED)
        return ended

    def submit(self, kind: str, params: dict | None = None) -> Job:
        return self.store.submit(kind, params or {}, by="hand:test")[0]


@pytest.fixture
def queue(tmp_path: Path):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    queue = Queue(tmp_path / "workspace")
    yield queue
    queue.record.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_that_succeeds_says_what_came_of_it_and_another_process_cannot_run_it_again(queue: Queue) -> None:
    job = queue.run(queue.submit("collect", ONE_EPISODE))
    families = len({item.task.family for item in queue.record.trajectories()})
    assert job.last.result["cycle"] == 1
    assert job.last.result["episodes"] == {"demonstrations": families}
    assert next(line.text for line in queue.store.lines(job.id)) == "cycle 1: collect"
    assert execute.main([str(queue.folder), job.id, "1"]) == execute.NOT_OURS


def test_what_another_attempt_would_meet_again_fails_at_once(queue: Queue) -> None:
    job = queue.run(queue.submit("evaluate", {"policy": "expert/nobody"}))
    assert (job.state, job.last.attempt) == (State.FAILED, 1)
    assert job.last.reason.startswith("UnknownName: ")
    assert "nobody" in job.last.reason


def test_reasons_and_progress_are_kept_without_secrets(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-verysecretindeed1234"

    def quotes_what_it_sent(record: object, folder: object, job: object, report: Reporter) -> None:
        report(f"asking with {key}", 1, 2)
        until(lambda: queue.store.get(asked.id).progress.what)
        seen.append(queue.store.get(asked.id).progress.what)
        raise TutelageError(f"refused: Authorization {key}")

    seen: list[str] = []
    monkeypatch.setattr("tutelage.jobs.work.work", quotes_what_it_sent)
    asked = queue.submit("collect", ONE_EPISODE)
    job = queue.run(asked)
    assert seen == ["asking with [secret]"]
    assert "Authorization [secret]" in job.last.reason


def test_what_is_handed_back_again_and_again_waits_in_the_end(queue: Queue) -> None:
    job, config, now = queue.submit("evaluate"), JobsConfig(backoff=30, backoff_most=50), time.time()
    waits = []
    for lasted in (1, 1, 100, 1, 1, 1, 1, 1):
        attempt = queue.store.lease(job.id, "one", now, 60)
        assert attempt is not None
        assert queue.store.started(job.id, attempt, "host:1", "", now)
        now += lasted
        pause = Heart(queue.store, job.id, attempt, config, JobReporter())._pause(now)
        waits.append(pause)
        queue.store.again(job.id, attempt, Again.HANDED_BACK, "told to end", due=now + pause, now=now)
        now += pause
    assert waits == [0, 0, 0, 0, 0, 30, 50, 50], "one that got somewhere in between begins the count anew"


def test_a_programming_error_is_told_and_tried_again(queue: Queue) -> None:
    queue.record.put("loop", "1", {"a body": "that no version wrote"})
    job = queue.submit("collect", ONE_EPISODE)
    again = queue.run(job)
    assert (again.state, again.times(Again.FAILED)) == (State.QUEUED, 1)
    assert 25 < again.last.due - time.time() < 31
    assert any("Traceback" in line.text for line in queue.store.lines(job.id))
    failed = queue.run(job, now=again.last.due)
    assert (failed.state, failed.last.attempt, failed.last.reason) == (State.FAILED, 2, "KeyError: 'status'")


def test_a_job_waits_for_a_cycle_by_hand(queue: Queue) -> None:
    job = queue.submit("collect", ONE_EPISODE)
    with cycle_lock(queue.folder, "`tutelage distill`"):
        with pytest.raises(WorkspaceBusy, match=r"`tutelage distill`, process \d+"), cycle_lock(queue.folder, "me"):
            pass
        waiting = queue.run(job)
    assert (waiting.state, waiting.times(Again.BUSY), waiting.times(Again.FAILED)) == (State.QUEUED, 1, 0)
    assert queue.run(job, now=waiting.last.due).state is State.SUCCEEDED


def test_a_finished_cycle_is_not_run_again_for_a_job_that_could_not_say_so(queue: Queue) -> None:
    job = queue.submit("collect", ONE_EPISODE)
    body = {"kind": "collect", "status": "finished", "job": job.id, "created": ""}
    config = load_config(queue.folder / CONFIG_FILE).model_dump(mode="json")
    queue.record.put("loop", "1", {**body, "config": config})
    assert queue.run(job).last.result["cycle"] == 1
    assert queue.record.trajectories() == []


def test_whose_an_unfinished_cycle_is_decides_who_goes_on_with_it(queue: Queue) -> None:
    config = load_config(queue.folder / CONFIG_FILE, [f"workspace={queue.folder}", *ONE_EPISODE["set"]])
    body = {"kind": "collect", "status": "running", "config": config.model_dump(mode="json"), "created": ""}
    queue.record.put("loop", "1", body)
    by_hand = queue.run(queue.submit("collect", ONE_EPISODE))
    assert (by_hand.state, "begun by hand" in by_hand.last.reason) == (State.FAILED, True)

    owner = queue.submit("evaluate")  # of no lane, so that it keeps none
    queue.record.put("loop", "1", {**body, "job": owner.id})
    waits = queue.run(queue.submit("collect", ONE_EPISODE))
    assert (waits.state, waits.times(Again.BUSY)) == (State.QUEUED, 1)
    queue.store.cancel(waits.id, "hand:test")

    attempt = queue.store.lease(owner.id, "one", time.time(), 60)
    assert attempt is not None
    queue.store.finish(owner.id, attempt, State.FAILED, "for good")
    other = queue.run(queue.submit("collect", TWO_EPISODES))
    assert (other.state, f"tutelage jobs cancel {owner.id}" in other.last.reason) == (State.FAILED, True)
    same = queue.run(queue.submit("collect", ONE_EPISODE))
    assert (same.state, same.last.result["cycle"]) == (State.SUCCEEDED, 1)

    queue.record.put("loop", "2", {**body, "job": owner.id})
    queue.store.cancel(owner.id, "hand:test")
    after = queue.run(queue.submit("collect", TWO_EPISODES))
    assert (after.state, after.last.result["cycle"]) == (State.SUCCEEDED, 3)
    given_up = queue.record.get("loop", "2")
    assert given_up is not None
    assert given_up["status"] == "cancelled"

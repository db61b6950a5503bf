"""Jobs whose processes are killed at random moments: none is lost, none has its effect twice, nothing is left half."""

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from same_work import QUEUE, happened

from tutelage.config import Config, load_config
from tutelage.jobs.dispatcher import Dispatcher
from tutelage.jobs.lines import JobReporter
from tutelage.jobs.local import LocalLauncher
from tutelage.jobs.model import RUNS, Again, Job, State
from tutelage.jobs.store import JobStore
from tutelage.jobs.work import work
from tutelage.record import Record
from tutelage.workspace import Workspace

SETTINGS = """
environments = [{name = "toy", families = ["press", "form"]}]
teacher = {model = "expert/toy"}
student = {weights = "tiny", dtype = "float32"}
act = {width = 1, max_steps = 4}
collect = {demonstrations = 3, mistaken = 2, explored = 1, guarded = 1}
evaluate = {episodes = 2, between = 1, with_memory = 1, test = 1}
evidence = {pairs = 2, item_pairs = 1}
gate = {min_gain = -1}
jobs = {lease = 30, heartbeat = 0.2, poll = 0.05, at_once = 1, backoff = 0.1, takeovers = 1000}
stages = [
    {type = "sft", steps = 2, batch_size = 2, learning_rate = 1e-3},
    {type = "grpo", steps = 2, batch_size = 2, group_size = 2},
]
"""
JOBS = [
    ("collect", {}),
    ("distill", {}),
    ("evaluate", {"policy": "student", "episodes": 3}),
    ("collect", {"set": ["collect.explored=2"]}),
    ("extract", {}),
]
TRIED = (*QUEUE, "meta")
"""Tables that tell how often something was tried."""


class Place:
    """A workspace with its queue."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        settings = folder.with_suffix(".toml")
        settings.write_text(SETTINGS)
        self.folder = folder
        self.config: Config = load_config(settings, [f"workspace={folder}"])
        Workspace(self.config).close()
        self.record = Record.open(folder)
        self.store = JobStore(self.record)
        self.launcher = LocalLauncher(self.config.jobs, folder)
        self.dispatcher = Dispatcher(self.record, folder, self.config, self.launcher)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *error: object) -> None:
        for job in self.store.jobs(RUNS):
            self.launcher.stop(job.handle, grace=0)
        self.record.close()

    def submit(self, kind: str, params: dict[str, Any]) -> Job:
        return self.store.submit(kind, params, by="hand:test")[0]

    def fingerprint(self) -> dict[str, list[dict[str, Any]]]:
        found = happened(self.record, self.folder)
        return {table: rows for table, rows in found.items() if table not in TRIED}

    def come_to(self, job: Job, *states: State, what: str = "") -> Job:
        """Work on the queue until the job is in one of these states or over, or says that it does `what`."""
        until = time.monotonic() + 1500
        while True:
            self.dispatcher.tick()
            now = self.store.get(job.id)
            if now.over or now.state in states or (what and now.progress.what == what):
                return now
            assert time.monotonic() < until, now
            time.sleep(0.05)

    def kill(self, job: Job) -> bool:
        """Kill −9 the process that runs it, if one does; whether that came before it had noted that the job is over."""
        job = self.store.get(job.id)
        if job.state is not State.RUNNING:
            return False
        try:
            process = psutil.Process(int(job.worker.rpartition(":")[2]))
            process.kill()
        except psutil.NoSuchProcess:
            return False
        process.wait(30)
        return self.store.get(job.id).state is State.RUNNING


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, full_counts: bool) -> list[dict[str, list[dict[str, Any]]]]:
    """The record after each job, when all are done in this process."""
    found = []
    with Place(tmp_path_factory.mktemp("undisturbed") / "workspace") as place:
        for kind, params in JOBS if full_counts else JOBS[:2]:
            work(place.record, place.folder, place.submit(kind, params), JobReporter())
            found.append(place.fingerprint())
    return found


def test_killed_jobs_end_like_undisturbed_ones(undisturbed, tmp_path: Path, full_counts: bool) -> None:
    moments, kills, wanted, rounds = random.Random(20261122), 0, 200 if full_counts else 5, 0
    while kills < wanted:
        rounds += 1
        with Place(tmp_path / str(rounds) / "workspace") as place:
            jobs = [place.submit(kind, params) for kind, params in (JOBS if full_counts else JOBS[:2])]
            for job, expected in zip(jobs, undisturbed, strict=True):
                kills += killed(place, job, moments, min(3, wanted - kills))
                found = place.fingerprint()
                for table, rows in expected.items():
                    assert found[table] == rows, f"{table} differs after {kills} kills"
            cycles = Counter(body["job"] for body in place.record.items("loop").values())
            assert set(cycles.values()) == {1}


def killed(place: Place, job: Job, moments: random.Random, most: int) -> int:
    """Have a job done, killing its process up to `most` times; how often that stopped it."""
    kills = 0
    while kills < most and not place.come_to(job, State.RUNNING).over:
        time.sleep(moments.uniform(0.0, 12.0 if job.kind == "distill" else 6.0))
        kills += place.kill(job)
    ended = place.come_to(job)
    assert ended.state is State.SUCCEEDED, ended.last
    assert (ended.times(Again.FAILED), ended.times(Again.TAKEN_OVER)) == (0, kills)
    assert ended.last.attempt == 1 + kills
    return kills


def test_a_cancelled_job_leaves_things_whole(tmp_path: Path, full_counts: bool) -> None:
    moments = random.Random(7)
    with Place(tmp_path / "workspace") as place:
        work(place.record, place.folder, place.submit("collect", {}), JobReporter())
        place.store.cancel(place.store.jobs()[0].id, "hand:test")
        # One stops by itself; the processes of the others are killed while they are about to.
        for kill in (False, *[True] * 20) if full_counts else (True,):
            job = place.submit("train", {"set": ["stages.0.steps=100000"]})
            assert place.come_to(job, what="sft").state is State.RUNNING
            place.store.cancel(job.id, "hand:test")
            if kill:
                time.sleep(moments.uniform(0.0, 0.5))
                place.kill(job)
            assert place.come_to(job).state is State.CANCELLED
            (cycle,) = [body for body in place.record.items("loop").values() if body.get("job") == job.id]
            assert cycle["status"] == "cancelled"
            assert list((place.folder / "students").glob("*")) == []
        job = place.submit("train", {})
        assert place.come_to(job).last.result["students"] == ["student@1", "student@2"]
        assert [student.number for student in place.record.students()] == [0, 1, 2]

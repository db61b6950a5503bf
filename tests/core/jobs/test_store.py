"""The queue: who gets a job, what a lost lease may still do, and which states follow."""

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import insert

from tutelage.errors import ConfigError, RecordError
from tutelage.jobs.model import CANCEL, LANES, NEXT, OVER, RUNS, Again, Job, Progress, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record
from tutelage.record_tables import JOB_MOVES, JOBS
from tutelage.service_config import JobKind

BEGAN = 1_800_000_000.0
LEASE = 60.0


@pytest.fixture
def store(tmp_path: Path):
    record = Record.open(tmp_path)
    yield JobStore(record)
    record.close()


def queued(store: JobStore, kind: JobKind = JobKind.DISTILL, **given) -> Job:
    job, new = store.submit(kind, by="hand:test", now=BEGAN, **given)
    assert new
    return job


def running(store: JobStore, kind: JobKind = JobKind.DISTILL, now: float = BEGAN) -> Job:
    job = queued(store, kind)
    attempt = store.lease(job.id, "one", now, LEASE)
    assert attempt == 1
    assert store.started(job.id, 1, "host:1", "h", now)
    return store.get(job.id)


def test_a_key_names_one_job(store: JobStore) -> None:
    job = queued(store, key="nightly 1", params={"set": ["act.width=4"]})
    assert job.params == {"set": ["act.width=4"]}
    again, new = store.submit("train", key="nightly 1", by="hand:other")
    assert (again, new) == (job, False)
    assert queued(store).id != queued(store).id
    assert store.get(job.id[4:12]) == store.get(job.id) == job
    with pytest.raises(RecordError, match="several"):
        store.get("job_")


def test_what_a_kind_does_not_take_is_refused_at_once(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="episodes"):
        store.submit("evaluate", {"episodes": 0}, by="hand:test")
    with pytest.raises(ConfigError, match="it takes: set"):
        store.submit("train", {"polcy": "student"}, by="hand:test")
    (tmp_path / "config.json").write_text("{}")
    for item, why in {"act.wdth=4": "act.wdth", "workspace=elsewhere": "queued in", "act.width": "key.sub"}.items():
        with pytest.raises(ConfigError, match=why):
            store.submit("train", {"set": [item]}, by="hand:test")
    assert store.jobs() == []


def test_one_runs_per_lane_and_a_lane_is_kept_between_attempts(store: JobStore) -> None:
    first, second, free = queued(store), queued(store, JobKind.TRAIN), queued(store, JobKind.EVALUATE)
    assert [job.id for job in store.takeable(BEGAN)] == [first.id, second.id, free.id]
    assert store.lease(second.id, "one", BEGAN, LEASE) == 1
    assert store.lease(first.id, "two", BEGAN, LEASE) is None
    assert store.lease(second.id, "two", BEGAN, LEASE) is None
    assert store.lease(free.id, "two", BEGAN, LEASE) == 1
    store.again(second.id, 1, Again.FAILED, "away", due=BEGAN + 100, now=BEGAN)
    assert store.takeable(BEGAN + 99) == [], "the one that failed may have left a cycle that is to be finished first"
    assert [job.id for job in store.takeable(BEGAN + 100)] == [second.id]
    store.cancel(second.id, "hand:test", BEGAN)
    assert [job.id for job in store.takeable(BEGAN)] == [first.id]


def test_a_lane_is_kept_for_all_that_ran_in_it_so_that_whoever_has_something_unfinished_gets_there(
    store: JobStore,
) -> None:
    """Not for the last one alone, which may have to wait for another that was retried meanwhile, and would for ever."""
    first, second, third = queued(store), queued(store), queued(store)
    assert store.lease(first.id, "one", BEGAN, LEASE) == 1
    assert store.finish(first.id, 1, State.FAILED, now=BEGAN)
    assert store.lease(second.id, "one", BEGAN, LEASE) == 1
    store.retry(first.id, "hand:test", BEGAN)
    assert store.takeable(BEGAN) == [], "the lane is taken"
    store.again(second.id, 1, Again.BUSY, "the cycle is another's", due=BEGAN + 5, now=BEGAN)
    assert [job.id for job in store.takeable(BEGAN + 5)] == [first.id, second.id], "but not the one that never ran"
    assert store.lease(first.id, "one", BEGAN + 5, LEASE) == 2
    store.again(first.id, 2, Again.BUSY, "or the other way round", due=BEGAN + 6, now=BEGAN)
    assert [job.id for job in store.takeable(BEGAN + 6)] == [second.id, first.id], "who is due for longest first"
    for job, attempt in ((first, 3), (second, 2)):
        assert store.lease(job.id, "one", BEGAN + 6, LEASE) == attempt
        assert store.finish(job.id, attempt, State.FAILED, now=BEGAN)
    assert [job.id for job in store.takeable(BEGAN)] == [third.id]


def grown(store: JobStore, first: int, last: int) -> None:
    """Add jobs that are over."""
    rows = [{"id": f"job_{n}", "key": str(n), "kind": "evaluate", "by": "", "params": "{}"} for n in range(first, last)]
    made = {"created": datetime.now(UTC)}
    move = {"worker": "", "reason": "", "due": 0.0, "result": "{}", **made}
    with store.record.transaction() as connection:
        connection.execute(insert(JOBS), [{**row, **made} for row in rows])
        for state in (State.QUEUED, State.LEASED, State.RUNNING, State.SUCCEEDED):
            moves = [{"job": row["id"], "state": state.value, "attempt": 0, **move} for row in rows]
            connection.execute(insert(JOB_MOVES), moves)


def steps(store: JobStore, job: Job) -> Counter[str]:
    """Of SQLite's machine, in tens, for each look at a queue where this one job runs and nothing waits."""
    with store.record.reading() as connection:
        steps = Counter[str]()
        kernel: Any = connection.connection.driver_connection
        for name, look in {"runs": lambda: store.jobs(RUNS), "takeable": lambda: store.takeable(BEGAN)}.items():
            kernel.set_progress_handler(lambda name=name: steps.update([name]) or 0, 10)
            assert [item.id for item in look()] == ([job.id] if name == "runs" else [])
            kernel.set_progress_handler(None, 0)
    return steps


def test_what_runs_is_found_at_once_and_what_waits_by_a_few_steps_per_job_that_is_over(store: JobStore) -> None:
    """Sorting and grouping all moves would take many."""
    job, over = running(store), 3000
    grown(store, 0, over // 2)
    half = steps(store, job)
    grown(store, over // 2, over)
    whole = steps(store, job)
    assert 0 < whole["runs"] <= half["runs"] + 1, "however much is over"
    assert whole["runs"] * 10 < over
    assert 0 < whole["takeable"] * 10 < 35 * over
    assert (whole["takeable"] - half["takeable"]) * 10 < 35 * over / 2


def test_a_lost_lease_notes_nothing(store: JobStore) -> None:
    job = running(store)
    assert store.beat(job.id, 1, BEGAN + 50, LEASE, Progress(what="sft", done=1, total=2)) is True
    assert store.get(job.id).progress.done == 1
    assert store.reclaim(BEGAN + 109) == []
    assert [item.handle for item in store.reclaim(BEGAN + 111)] == ["h"]
    assert store.lease(job.id, "two", BEGAN + 111, LEASE) == 2
    assert not store.started(job.id, 1, "host:1", "", BEGAN + 112)
    assert store.beat(job.id, 1, BEGAN + 112, LEASE) is False
    assert not store.say(job.id, 1, ["late"])
    assert not store.finish(job.id, 1, State.SUCCEEDED)
    assert not store.again(job.id, 1, Again.FAILED, "late", due=0)
    assert store.abandon(job.id, 1, "late", BEGAN + 112) is None
    assert store.get(job.id).state is State.LEASED
    assert store.lines(job.id) == []
    assert store.started(job.id, 2, "host:2", "", BEGAN + 112)
    assert not store.started(job.id, 2, "host:3", "", BEGAN + 112), "one process per attempt"
    assert store.say(job.id, 2, ["a", "b"])
    assert store.finish(job.id, 2, State.SUCCEEDED, result={"cycle": 1})
    assert store.get(job.id).last.result == {"cycle": 1}
    (first, second) = store.lines(job.id)
    assert store.lines(job.id, after=first.n) == [second]


def test_takeovers_are_limited_and_counted_anew_after_a_retry_by_hand(store: JobStore) -> None:
    job, now = queued(store), BEGAN
    for taken in range(3):
        attempt = store.lease(job.id, "one", now, LEASE)
        assert attempt == taken + 1
        now += LEASE + 1
        store.reclaim(now, takeovers=2)
    failed = store.get(job.id)
    assert failed.state is State.FAILED
    assert "taken over 2 times" in failed.last.reason
    assert store.retry(job.id, "hand:test", now).times(Again.TAKEN_OVER) == 0
    assert store.lease(job.id, "one", now, LEASE) == 4


def test_cancelling(store: JobStore) -> None:
    waiting, busy = queued(store, JobKind.EVALUATE), running(store)
    assert store.cancel(waiting.id, "hand:test", BEGAN).state is State.CANCELLED
    assert store.cancel(busy.id, "hand:test", BEGAN).cancel
    assert store.beat(busy.id, 1, BEGAN, LEASE) == CANCEL
    store.reclaim(BEGAN + LEASE + 1)
    assert store.get(busy.id).state is State.CANCELLED, "its process died before it could stop"
    with pytest.raises(RecordError, match="cancelled"):
        store.cancel(busy.id, "hand:test")
    with pytest.raises(RecordError, match="queued"):
        store.retry(store.retry(busy.id, "hand:test", BEGAN).id, "hand:test")


def test_a_job_queued_in_a_transaction_that_fails_is_none(store: JobStore) -> None:
    def fire() -> None:
        with store.record.transaction():
            store.submit("distill", key="k", by="trigger:t", now=BEGAN)
            store.record.put("trigger", "t", {"last": BEGAN})
            raise RecordError("killed here")

    with pytest.raises(RecordError):
        fire()
    assert store.jobs() == []
    assert store.record.get("trigger", "t") is None


class Queue(RuleBasedStateMachine):
    """Workers that die, come back late and lie about what they hold, against what must hold at all times."""

    attempts = Bundle("attempts")
    folder: Path

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        Queue.folder = Queue.folder.parent / str(int(Queue.folder.name) + 1)
        self.record = Record.open(Queue.folder)
        self.store = JobStore(self.record)
        self.now = BEGAN
        self.ids: list[str] = []
        self.holds: dict[str, tuple[int, float]] = {}
        """What the store has to think: attempt and end of each lease."""

    def teardown(self) -> None:
        self.record.close()

    @rule(kind=st.sampled_from([JobKind.DISTILL, JobKind.TRAIN, JobKind.EVALUATE]), wait=st.sampled_from([0, 30]))
    def submit(self, kind: JobKind, wait: int) -> None:
        self.ids.append(self.store.submit(kind, by="hand:test", due=self.now + wait, now=self.now)[0].id)

    @rule(seconds=st.sampled_from([1.0, 20.0, 61.0, -30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=attempts, place=st.integers(0, 30))
    def lease(self, place: int) -> tuple[str, int]:
        if not self.ids:
            return "job_none", 1
        job = self.store.get(self.ids[place % len(self.ids)])
        lane = LANES.get(job.kind)
        taken = lane is not None and any(LANES.get(self.store.get(other).kind) == lane for other in self.holds)
        attempt = self.store.lease(job.id, "w", self.now, LEASE)
        if job.state is State.QUEUED and job.last.due <= self.now and not taken:
            assert attempt == job.last.attempt + 1
            self.holds[job.id] = attempt, self.now + LEASE
            return job.id, attempt
        assert attempt is None
        return job.id, job.last.attempt

    @rule(token=attempts)
    def start(self, token: tuple[str, int]) -> None:
        if token[0] in self.ids:
            able = self._holds(token) and self.store.get(token[0]).state is State.LEASED
            assert self.store.started(*token, "w", "", self.now) == able

    @rule(token=attempts)
    def beat(self, token: tuple[str, int]) -> None:
        assert bool(self.store.beat(*token, self.now, LEASE)) == self._holds(token)
        if self._holds(token):
            self.holds[token[0]] = token[1], self.now + LEASE

    @rule(token=attempts, state=st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED]))
    def finish(self, token: tuple[str, int], state: State) -> None:
        if token[0] in self.ids and not (state is State.SUCCEEDED and self._only_leased(token)):
            assert self.store.finish(*token, state, now=self.now) == self._holds(token)
            self._let_go(token)

    @rule(token=attempts, why=st.sampled_from(list(Again)[:3]))
    def again(self, token: tuple[str, int], why: Again) -> None:
        if token[0] in self.ids:
            assert self.store.again(*token, why, "", due=self.now, now=self.now) == self._holds(token)
            self._let_go(token)

    @rule()
    def reclaim(self) -> None:
        late = {job for job, (_, until) in self.holds.items() if until < self.now}
        assert {job.id for job in self.store.reclaim(self.now, takeovers=1)} == late
        self.holds = {job: held for job, held in self.holds.items() if job not in late}

    @rule(place=st.integers(0, 30), what=st.sampled_from(["cancel", "retry"]))
    def by_hand(self, place: int, what: str) -> None:
        if self.ids:
            job = self.store.get(self.ids[place % len(self.ids)])
            able = {
                "cancel": job.state not in (State.SUCCEEDED, State.CANCELLED),
                "retry": job.state in (State.FAILED, State.CANCELLED),
            }[what]
            if able:
                getattr(self.store, what)(job.id, "hand:test", self.now)
            else:
                with pytest.raises(RecordError):
                    getattr(self.store, what)(job.id, "hand:test", self.now)

    @invariant()
    def holds_together(self) -> None:
        jobs = self.store.jobs()
        assert [job.id for job in jobs] == self.ids[::-1]
        lanes = [LANES[job.kind] for job in jobs if job.state in RUNS and job.kind in LANES]
        assert len(lanes) == len(set(lanes))
        assert {job.id for job in jobs if job.state in RUNS} == self.holds.keys()
        for job in jobs:
            for before, after in pairwise(job.moves):
                assert after.state in NEXT[before.state]
                assert after.attempt == before.attempt + (after.state is State.LEASED)
            if job.id in self.holds:
                assert (job.last.attempt, job.until) == self.holds[job.id]
        for job in self.store.takeable(self.now):
            assert job.state is State.QUEUED
            assert job.last.due <= self.now
            assert job.state not in OVER

    def _holds(self, token: tuple[str, int]) -> bool:
        return token[0] in self.holds and self.holds[token[0]][0] == token[1]

    def _only_leased(self, token: tuple[str, int]) -> bool:
        return self._holds(token) and self.store.get(token[0]).state is State.LEASED

    def _let_go(self, token: tuple[str, int]) -> None:
        if self._holds(token):
            del self.holds[token[0]]


def test_any_order_of_events_keeps_the_queue_sound(tmp_path: Path, full_counts: bool) -> None:
    Queue.folder = tmp_path / "0"
    examples = 300 if full_counts else 10
    quiet = settings(
        max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Queue, settings=quiet)

"""The scheduler on real records: firing once whoever looks, restarts, settings that change, ticking on and on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tutelage.config import Config
from tutelage.errors import ConfigError, RecordError
from tutelage.experience import Experience, Source, Sticker
from tutelage.jobs.model import State
from tutelage.jobs.scheduler import TRIGGER, Scheduler
from tutelage.record import Record
from tutelage.service_config import TriggerConfig
from tutelage.workspace import Workspace

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0

Make = Callable[..., Scheduler]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Make]:
    """A scheduler of the one workspace with these triggers."""
    made = []

    def make(*triggers: dict[str, Any], **more: Any) -> Scheduler:
        config = Config.model_validate({"workspace": tmp_path, "triggers": triggers, "jobs": {"poll": 0.01}})
        Workspace(config).close()
        made.append(Scheduler(tmp_path, config, clock=clock, **more))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


HOURLY = {"name": "hourly", "every": HOUR, "job": "extract", "overlap": "queue"}
NIGHTLY = {"name": "nightly", "cron": "0 3 * * *", "params": {"set": ["act.width=2"]}}


def test_what_fires_is_queued_and_says_why(make: Make, clock: Clock) -> None:
    scheduler = make(HOURLY, NIGHTLY)
    assert scheduler.fire() == []
    clock.now += HOUR
    (fired,) = scheduler.fire()
    job = scheduler.store.get(fired.job)
    assert (job.kind, job.by, job.state) == ("extract", "trigger:hourly", State.QUEUED)
    assert fired.why == "2026-06-01 13:00:00 UTC has come"
    clock.now += 14.5 * HOUR
    assert [item.trigger for item in scheduler.fire()] == ["nightly"], "the hourly one's last job still waits"
    assert scheduler.store.jobs(limit=1)[0].params == {"set": ["act.width=2"]}


def test_restart_goes_on_where_it_was(make: Make, clock: Clock) -> None:
    make(HOURLY).fire()
    clock.now += HOUR
    first = make(HOURLY)
    assert len(first.fire()) == 1
    assert make(HOURLY).fire() == []
    first.store.cancel(first.store.jobs()[0].id, "hand:me")
    clock.now += 3 * HOUR
    assert len(make(HOURLY).fire()) == 1, "one for the three hours in which nothing ran"


def test_new_and_changed_triggers_start_from_now(make: Make, clock: Clock) -> None:
    make(HOURLY).fire()
    clock.now += 5 * HOUR
    changed = make({**HOURLY, "every": 2 * HOUR}, NIGHTLY)
    assert changed.fire() == []
    clock.now += 2 * HOUR
    assert len(changed.fire()) == 1


@pytest.mark.parametrize("without", [[], [{**HOURLY, "enabled": False}]])
def test_what_passes_while_it_is_off_or_gone_is_not_missed(make: Make, clock: Clock, without: list[Any]) -> None:
    make(HOURLY).fire()
    clock.now += 60
    make(*without).fire()
    clock.now += 5 * HOUR
    assert make(*without).fire() == []
    again = make(HOURLY)
    assert again.fire() == []
    clock.now += HOUR
    assert len(again.fire()) == 1


def test_many_schedulers_at_once_fire_once(make: Make, clock: Clock) -> None:
    several = [make(HOURLY, NIGHTLY) for _ in range(4)]
    several[0].fire()
    clock.now += 24 * HOUR
    together, fired = Barrier(len(several)), []

    def look(scheduler: Scheduler) -> None:
        together.wait()
        fired.extend(scheduler.fire())

    threads = [Thread(target=look, args=(scheduler,)) for scheduler in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.trigger for item in fired) == ["hourly", "nightly"]
    assert len(several[0].store.jobs()) == 2


def test_nothing_fires_twice_even_if_what_is_kept_is_lost(make: Make, clock: Clock) -> None:
    scheduler = make(HOURLY)
    scheduler.fire()
    before = scheduler.record.get(TRIGGER, "hourly")
    assert before is not None
    clock.now += HOUR
    scheduler.fire()
    scheduler.record.put(TRIGGER, "hourly", before)
    assert scheduler.fire() == []
    assert len(scheduler.store.jobs()) == 1


def test_each_time_that_memory_grows_too_large_is_another_reason(make: Make) -> None:
    scheduler = make({"name": "full", "memory_over": 1, "job": "consolidate"})

    def grow(name: str) -> None:
        content, source = Sticker(conditions=(name,), question="?"), Source(trajectory="trj_1", task="toy/press@1")
        item = Experience(
            environment="toy", family="press", goal="g", content=content, sources=(source,), author="a hand"
        )
        scheduler.record.save_experience(item)

    grow("a")
    grow("b")
    assert scheduler.fire() == []
    (first,) = scheduler.fire()
    assert first.why == "2 experiences in use (bound: 1)"
    scheduler.store.cancel(first.job, "hand:me")
    assert scheduler.fire() == [], "no more than when it fired"
    grow("c")
    (second,) = scheduler.fire()
    assert second.job != first.job


def test_looking_writes_nothing(make: Make, clock: Clock, tmp_path: Path) -> None:
    scheduler = make(HOURLY, NIGHTLY, {"name": "enough", "accepted": 5}, {"name": "off", "every": 1, "enabled": False})
    scheduler.fire()
    with closing(Record.open(tmp_path)) as other:
        before = other.stamp()
        for _ in range(50):
            clock.now += 60
            scheduler.fire()
        assert other.stamp() == before


def test_params_that_the_workspace_cannot_take_are_refused_at_the_start(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"trigger nightly: unknown environment 'nope'"):
        make({**NIGHTLY, "job": "evaluate", "params": {"environment": ["nope"]}})
    with pytest.raises(ConfigError, match=r"trigger nightly: .*width"):
        make({**NIGHTLY, "params": {"set": ["act.width=0"]}})


class Counting:
    """A dispatcher that counts, and fails when told to."""

    def __init__(self, *faults: Exception) -> None:
        self.ticks, self.faults = 0, list(faults)
        self.reached = Event()
        self.goal = 0

    def tick(self) -> int:
        self.ticks += 1
        if self.ticks >= self.goal:
            self.reached.set()
        if self.faults:
            raise self.faults.pop(0)
        return 0

    def reaches(self, more: int) -> bool:
        self.goal = self.ticks + more  # first: a tick in between must not count for the goal before
        self.reached.clear()
        return self.reached.wait(20)


def running(scheduler: Scheduler, raised: list[BaseException]) -> tuple[Event, Thread]:
    stop = Event()

    def run() -> None:
        try:
            scheduler.run(stop)
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    return stop, thread


def test_it_ticks_on_through_trouble_until_it_is_stopped(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    busy = OperationalError("INSERT", {"body": "somebody's own"}, Exception("database is locked"))
    dispatcher, raised = Counting(busy, busy, RecordError("the disk is full")), []
    with caplog.at_level(logging.WARNING):
        stop, thread = running(make(HOURLY, dispatcher=dispatcher), raised)
        assert dispatcher.reaches(10)
        stop.set()
        thread.join(20)
    assert raised == []
    said = [item.getMessage() for item in caplog.records if item.name == "tutelage.jobs.scheduler"]
    assert said == ["the database is busy or away: database is locked", "the disk is full"]
    assert not thread.is_alive()


def test_a_time_that_is_let_pass_is_logged_once(make: Make, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = make({**HOURLY, "missed": "skip", "grace": 60})
    scheduler.fire()
    with caplog.at_level(logging.INFO):
        for later in (1.5 * HOUR, 1, -4000 * HOUR, 1):
            clock.now += later
            scheduler.fire()
    assert [(item.levelno, item.getMessage()) for item in caplog.records] == [
        (logging.INFO, "trigger hourly: 2026-06-01 13:00:00 UTC was missed by 30.0 min and is skipped"),
        (logging.WARNING, "trigger hourly: the clock was set back by 166.6 d: it starts from now"),
    ]


def test_triggers_in_trouble_are_each_logged_once_until_they_are_well(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, ill = make(HOURLY, NIGHTLY), {"hourly", "nightly"}

    def look_at(trigger: TriggerConfig, now: float) -> None:
        if trigger.name in ill:
            raise RecordError("no room")

    monkeypatch.setattr(scheduler, "_look_at", look_at)
    for names in ({"hourly", "nightly"}, {"hourly", "nightly"}, {"hourly"}, {"hourly", "nightly"}):
        ill = names
        scheduler.fire()
    hourly, nightly = (f"trigger {name}: no room" for name in ("hourly", "nightly"))
    assert caplog.messages == [hourly, nightly, nightly]


def test_a_programming_error_ends_it(make: Make) -> None:
    raised: list[BaseException] = []
    _, thread = running(make(dispatcher=Counting(KeyError("oops"))), raised)
    thread.join(20)
    assert [type(error) for error in raised] == [KeyError]

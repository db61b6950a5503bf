"""What triggers decide: missed times, clocks that change, overlap, cooldown, settings that change."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tutelage.jobs.model import Job, Move, State
from tutelage.jobs.triggers import OFF, WRONG_CLOCK, Found, Kept, begin, condition, decide, ready, upcoming
from tutelage.service_config import JobKind, TriggerConfig

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0


def trigger(**settings: Any) -> TriggerConfig:
    return TriggerConfig(name="t", **settings)


def job(state: State) -> Job:
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    move = Move(state=state, attempt=1, created=moment)
    return Job(id="job_1", kind=JobKind.DISTILL, key="k", by="trigger:t", params={}, created=moment, moves=(move,))


def watch(settings: TriggerConfig, *looks: float, kept: Kept | None = None) -> tuple[list[str], Kept]:
    """The keys that fire when it is looked at at these times, having begun at noon, and what is kept then."""
    kept, fired = kept or begin(settings, NOON, 0), []
    for now in looks:
        decision = decide(settings, kept, now)
        kept = decision.kept
        fired += [decision.key] if decision.key else []
    return fired, kept


HOURLY = trigger(every=HOUR)
NIGHTLY = trigger(cron="0 3 * * *", timezone="Europe/Berlin")


def test_interval_counts_from_its_beginning_whenever_it_is_looked_at() -> None:
    fired, _ = watch(HOURLY, NOON, NOON + 10, NOON + HOUR - 1, NOON + HOUR + 5, NOON + HOUR + 10, NOON + 2 * HOUR)
    assert fired == ["trigger/t/2026-06-01T13:00:00+00:00", "trigger/t/2026-06-01T14:00:00+00:00"]


def test_cron_fires_once_a_day_in_its_zone() -> None:
    fired, _ = watch(NIGHTLY, *(NOON + 600 * step for step in range(300)))
    assert fired == ["trigger/t/2026-06-02T01:00:00+00:00", "trigger/t/2026-06-03T01:00:00+00:00"]


def test_looking_when_nothing_is_due_changes_nothing() -> None:
    kept = begin(HOURLY, NOON, 0)
    assert all(decide(HOURLY, kept, NOON + second).kept == kept for second in range(0, 3600, 60))


def test_missed_times_are_made_up_for_by_one_job() -> None:
    fired, kept = watch(HOURLY, NOON + 5.5 * HOUR, NOON + 5.6 * HOUR, NOON + 6 * HOUR)
    assert fired == ["trigger/t/2026-06-01T17:00:00+00:00", "trigger/t/2026-06-01T18:00:00+00:00"]
    _, kept = watch(HOURLY, NOON + 5.5 * HOUR)
    assert kept.note == "2026-06-01 17:00:00 UTC was missed by 30.0 min and is made up for"


def test_missed_times_are_skipped_where_that_is_asked_for() -> None:
    skipping = trigger(every=HOUR, missed="skip", grace=60)
    assert watch(skipping, NOON + HOUR + 60)[0] == ["trigger/t/2026-06-01T13:00:00+00:00"], "within grace"
    fired, kept = watch(skipping, NOON + 5.5 * HOUR, NOON + 5.6 * HOUR)
    assert fired == []
    assert "skipped" in kept.note
    assert watch(skipping, NOON + 6 * HOUR, kept=kept)[0] == ["trigger/t/2026-06-01T18:00:00+00:00"]


@pytest.mark.parametrize("settings", [HOURLY, trigger(cron="0 * * * *")])
def test_clock_set_back_fires_nothing_twice(settings: TriggerConfig) -> None:
    fired, _ = watch(settings, NOON + 3 * HOUR, NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR, NOON + 4 * HOUR)
    assert fired == ["trigger/t/2026-06-01T15:00:00+00:00", "trigger/t/2026-06-01T16:00:00+00:00"]


@pytest.mark.parametrize("settings", [HOURLY, trigger(cron="0 * * * *")])
def test_clock_that_was_far_wrong_does_not_stop_a_trigger(settings: TriggerConfig) -> None:
    fired, kept = watch(settings, NOON + 4000 * DAY)
    assert len(fired) == 1
    fired, kept = watch(settings, NOON + HOUR, kept=kept)
    assert fired == []
    assert "set back by" in kept.note
    fired, _ = watch(settings, NOON + HOUR + 1, NOON + 2 * HOUR, NOON + 3 * HOUR, kept=kept)
    assert fired == ["trigger/t/2026-06-01T14:00:00+00:00", "trigger/t/2026-06-01T15:00:00+00:00"]


@given(st.lists(st.floats(-0.9 * WRONG_CLOCK, 0.9 * WRONG_CLOCK), min_size=2, max_size=40), st.sampled_from([0, 1]))
def test_whatever_the_clock_does_nothing_fires_twice_or_early(jumps: list[float], which: int) -> None:
    settings, now, kept, fired = (HOURLY, trigger(cron="17 */2 * * *"))[which], NOON, None, []
    newest = now
    for jump in jumps:
        now = max(now + jump, newest - 0.9 * WRONG_CLOCK)
        newest = max(now, newest)
        keys, kept = watch(settings, now, kept=kept)
        fired += keys
        assert all(datetime.fromisoformat(key.split("/")[2]).timestamp() <= now for key in keys)
    assert len(set(fired)) == len(fired)


def test_next_time_is_when_it_fires() -> None:
    for settings in (HOURLY, NIGHTLY):
        kept = begin(settings, NOON, 0)
        due = upcoming(settings, kept, NOON + 100)
        assert due is not None
        assert watch(settings, due - 1, kept=kept)[0] == []
        assert len(watch(settings, due, kept=kept)[0]) == 1


def test_time_that_comes_while_the_last_job_is_not_over() -> None:
    kept = begin(HOURLY, NOON, 0)
    skipped = decide(HOURLY, kept, NOON + HOUR, ahead=job(State.RUNNING))
    assert not skipped.key
    assert "job_1 is not over" in skipped.kept.note
    assert not decide(HOURLY, skipped.kept, NOON + HOUR + 10, ahead=job(State.SUCCEEDED)).key, "that time is gone"
    assert decide(HOURLY, kept, NOON + HOUR, ahead=job(State.FAILED)).key
    queueing = trigger(every=HOUR, overlap="queue")
    assert decide(queueing, kept, NOON + HOUR, ahead=job(State.RUNNING)).key
    assert not decide(queueing, kept, NOON + HOUR, ahead=job(State.QUEUED)).key, "one at most waits"


def test_data_trigger_fires_for_what_it_has_not_fired_for() -> None:
    settings = trigger(accepted=3)
    kept = begin(settings, NOON, 7)
    found = Found(True, "3 of 3 accepted trajectories", mark=12)
    assert not decide(settings, kept, NOON, found=replace(found, holds=False)).key
    decision = decide(settings, kept, NOON, found=found)
    assert decision.key == f"trigger/t/{NOON:.0f}/12"
    assert (decision.kept.mark, decision.kept.fired_time) == (12, NOON)
    assert not ready(settings, decision.kept, NOON, job(State.RUNNING))
    assert ready(settings, decision.kept, NOON, job(State.SUCCEEDED))


def test_data_trigger_cools_down() -> None:
    settings = trigger(accepted=3, cooldown=HOUR)
    kept = begin(settings, NOON, 0).model_copy(update={"fired_time": NOON})
    assert not ready(settings, kept, NOON + HOUR - 1, None)
    assert ready(settings, kept, NOON + HOUR, None)


def test_memory_trigger_is_armed_again_once_there_are_few() -> None:
    settings = trigger(memory_over=10)
    kept = begin(settings, NOON, 0).model_copy(update={"count": 11})
    assert decide(settings, kept, NOON, found=Found(False, "", count=11)).kept == kept
    assert decide(settings, kept, NOON, found=Found(False, "", count=10)).kept.count == 0


def test_what_it_waits_for_is_what_makes_it_another_trigger() -> None:
    same = trigger(every=HOUR, job="collect", missed="skip", overlap="queue", grace=1)
    assert condition(same) == condition(HOURLY)
    others = [trigger(every=60), trigger(cron="0 * * * *"), trigger(cron="0 * * * *", timezone="Europe/Berlin")]
    others += [trigger(drift=0.2), trigger(drift=0.2, window=60)]
    assert len({condition(item) for item in [HOURLY, *others]}) == 6
    assert condition(trigger(every=HOUR, enabled=False)) == OFF


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one"),
        ({"cron": "0 3 * * *", "every": 5}, "exactly one"),
        ({"cron": "0 3 * *"}, "needs five"),
        ({"every": 5, "timezone": "Mars/Base"}, "no time zone"),
        ({"accepted": 5, "params": {"tasks": 3}}, "it takes: set"),
        ({"accepted": 5, "job": "annotate", "params": {"tasks": -3}}, "greater than or equal to 0"),
    ],
)
def test_nonsense_is_refused_when_settings_are_read(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        trigger(**given)

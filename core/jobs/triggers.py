"""When a job starts by itself: what a trigger decides, from its settings, what is kept of it, the time and the data.

Nothing here reads a clock or a record. What is kept changes only when something is decided, so that looking every
second writes nothing; and every decision to fire has a key that names its reason, which a second scheduler arrives at
as well.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import floor

from tutelage.jobs.cron import Cron, zone
from tutelage.jobs.model import Job, State
from tutelage.service_config import TriggerConfig
from tutelage.types import Frozen

WRONG_CLOCK = 86_400.0
"""Seconds that a clock is set back from which on it is taken to have been wrong before: times count from the new now.
Until then nothing fires before the clock has come to where it was."""
OFF = ""
"""Condition of a trigger that is switched off or gone from the settings."""
_cron = lru_cache(Cron)


class Kept(Frozen):
    """What is kept of a trigger. Times are seconds since 1970."""

    condition: str
    """What it waits for, as `condition` puts it; another one begins anew."""
    begun_time: float
    """When it began to; intervals are counted from here."""
    done_time: float
    """Times of the clock up to here are dealt with."""
    mark: int = 0
    """Rows of the record up to here are dealt with."""
    count: int = 0
    """Experiences in use when it last fired for them and they have not become few enough since; else 0."""
    fired_time: float = 0.0
    """When it last fired; 0: never."""
    job: str = ""
    """Id of what it queued last."""
    note: str = ""
    """Why it last fired, or let a time pass."""


@dataclass(frozen=True)
class Found:
    """What the data say to a data trigger."""

    holds: bool
    far: str
    """How far they are, in words."""
    mark: int = 0
    """Row of the record up to which they were looked at."""
    count: int = 0
    """Experiences in use."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a look at a trigger."""

    kept: Kept
    """To be kept from now on; the same as before: nothing happened."""
    key: str = ""
    """What it fires for; empty: it does not fire."""


def condition(trigger: TriggerConfig) -> str:
    """What it waits for; `OFF` while it is switched off."""
    if not trigger.enabled:
        return OFF
    when = trigger.model_dump(include={"cron", "every", "accepted", "success_below", "memory_over", "drift"})
    when = {name: value for name, value in when.items() if value}
    if trigger.cron:
        when["timezone"] = trigger.timezone
    if trigger.success_below or trigger.drift:
        when["window"] = trigger.window
    return json.dumps(when)


def by_clock(trigger: TriggerConfig) -> bool:
    return bool(trigger.cron or trigger.every)


def begin(trigger: TriggerConfig, now: float, mark: int, before: Kept | None = None) -> Kept:
    """What is kept of one that is new, was changed or switched on or off: it starts from now, whatever was missed."""
    fired = {} if before is None else {"fired_time": before.fired_time, "job": before.job}
    return Kept(condition=condition(trigger), begun_time=now, done_time=now, mark=mark, **fired)


def decide(
    trigger: TriggerConfig, kept: Kept, now: float, *, found: Found | None = None, ahead: Job | None = None
) -> Decision:
    """Whether it fires.

    Args:
        found: what the data say; needed by a data trigger that is `ready`.
        ahead: the job that it queued last.
    """
    if by_clock(trigger):
        return _by_clock(trigger, kept, now, ahead)
    if found is None or not ready(trigger, kept, now, ahead):
        return Decision(kept)
    if found.holds:
        fired = {"mark": found.mark, "count": found.count, "fired_time": now, "note": found.far}
        key = f"trigger/{trigger.name}/{kept.begun_time:.0f}/{found.mark}"  # every firing is for rows of its own
        return Decision(kept.model_copy(update=fired), key=key)
    if kept.count and found.count <= trigger.memory_over:
        return Decision(kept.model_copy(update={"count": 0}))
    return Decision(kept)


def ready(trigger: TriggerConfig, kept: Kept, now: float, ahead: Job | None) -> bool:
    """Whether a data trigger looks at the data: not while its last job is in the way, nor while it cools down."""
    return _in_the_way(trigger, ahead) == "" and not 0 <= now - kept.fired_time < trigger.cooldown


def upcoming(trigger: TriggerConfig, kept: Kept, now: float) -> float | None:
    """When a clock trigger is due next."""
    after = max(now, kept.done_time)
    if trigger.every:
        return kept.begun_time + (floor((after - kept.begun_time) / trigger.every) + 1) * trigger.every
    return _cron(trigger.cron, trigger.timezone).next(after)


def _by_clock(trigger: TriggerConfig, kept: Kept, now: float, ahead: Job | None) -> Decision:
    if kept.done_time - now > WRONG_CLOCK:
        note = f"the clock was set back by {_duration(kept.done_time - now)}: it starts from now"
        return Decision(kept.model_copy(update={"done_time": now, "note": note}))
    due = _due(trigger, kept, now)
    if due is None:
        return Decision(kept)
    when, late = _moment(trigger, due), now - due
    passed = {"done_time": due}
    if late > trigger.grace and trigger.missed == "skip":
        note = f"{when} was missed by {_duration(late)} and is skipped"
        return Decision(kept.model_copy(update={**passed, "note": note}))
    if way := _in_the_way(trigger, ahead):
        return Decision(kept.model_copy(update={**passed, "note": f"{when} is skipped: {way}"}))
    note = f"{when} has come" if late <= trigger.grace else f"{when} was missed by {_duration(late)} and is made up for"
    fired = {**passed, "fired_time": now, "note": note}
    key = f"trigger/{trigger.name}/{datetime.fromtimestamp(due, UTC).isoformat()}"
    return Decision(kept.model_copy(update=fired), key=key)


def _due(trigger: TriggerConfig, kept: Kept, now: float) -> float | None:
    """The last of its times that have come and are not dealt with; earlier ones go with it."""
    if trigger.every:
        due = kept.begun_time + floor((now - kept.begun_time) / trigger.every) * trigger.every
        return due if due > kept.done_time else None
    return _cron(trigger.cron, trigger.timezone).last(kept.done_time, now)


def _in_the_way(trigger: TriggerConfig, ahead: Job | None) -> str:
    """Why another job cannot be queued now; empty: it can."""
    if ahead is None or ahead.over:
        return ""
    if trigger.overlap == "skip":
        return f"{ahead.id} is not over"
    return f"{ahead.id} still waits" if ahead.state is State.QUEUED else ""


def _moment(trigger: TriggerConfig, time: float) -> str:
    return datetime.fromtimestamp(time, zone(trigger.timezone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"

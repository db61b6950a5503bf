"""Crontab expressions in a time zone: when they are due next, worked out by APScheduler.

As in crontab, and other than in APScheduler itself, 0 and 7 are Sunday, and where both a day of the month and a weekday
are given either will do. When clocks are put forward, a time that they skip is one hour later by the new time; when
they are put back, a time that they show twice counts once, unless the hour is ``*``: then real hours count.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tutelage.errors import ConfigError, MissingPart

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(\*|[a-z]{3}|\d)(?:-([a-z]{3}|\d))?(?:/(\d+))?")


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name.

    Raises:
        ConfigError: there is none.
    """
    if name == "UTC":
        return UTC  # known even where no table of zones is installed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"there is no time zone {name!r}; it takes IANA names such as Europe/Berlin") from error


class Cron:
    """The times that a crontab expression means in a zone."""

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        """Raises ConfigError (no such expression or zone, or a day that never comes) or MissingPart (APScheduler)."""
        try:
            from apscheduler.triggers.cron import CronTrigger
        except ImportError as error:
            raise MissingPart("cron expressions need APScheduler: pip install 'tutelage[jobs]'") from error
        self._zone = zone(timezone)
        fields = expression.lower().split()
        if len(fields) != 5:
            raise ConfigError(
                f"cron {expression!r} has {len(fields)} fields and needs five: minute, hour, day of month, month, "
                "weekday"
            )
        minute, hour, day, month, weekday = fields
        self._real_hours = hour == "*"
        days = [(day, weekday)]
        if not day.startswith("*") and not weekday.startswith("*"):
            days = [(day, "*"), ("*", weekday)]
        try:
            self._triggers: list[Any] = [
                CronTrigger.from_crontab(f"{minute} {hour} {of_month} {month} {_named(of_week)}", self._zone)
                for of_month, of_week in days
            ]
        except ValueError as error:
            raise ConfigError(f"cron {expression!r}: {error}") from error
        if self.next(datetime.now(UTC).timestamp()) is None:
            raise ConfigError(f"cron {expression!r}: there is no such day")

    def next(self, after: float) -> float | None:
        """The first time after `after`, both in seconds since 1970."""
        while True:
            start = datetime.fromtimestamp(after, UTC) + timedelta(microseconds=1)
            found = [item for trigger in self._triggers if (item := trigger.get_next_fire_time(None, start))]
            if not found:
                return None
            after = min(item.timestamp() for item in found)
            # Of a wall-clock time that comes twice the second has a fold.
            if self._real_hours or not datetime.fromtimestamp(after, self._zone).fold:
                return after

    def last(self, after: float, until: float) -> float | None:
        """The last time after `after` and not after `until`; quick however long that is."""
        first = self.next(after)
        if first is None or first > until:
            return None
        span = 60.0
        while until - span > first:  # the shortest stretch before `until` with a time in it has few of them
            near = self.next(until - span)
            if near is not None and near <= until:
                first = near
                break
            span *= 4
        while (later := self.next(first)) is not None and later <= until:
            first = later
        return first


def _named(field: str) -> str:
    """A field of weekdays by name: APScheduler counts them from Monday, crontab from Sunday, at both ends.

    Raises:
        ValueError: it is none.
    """
    if field == "*":
        return field
    found: set[int] = set()
    for part in field.split(","):
        matched = _PART.fullmatch(part)
        if matched is None:
            raise ValueError(f"{part!r} is no weekday")
        first, last, step = matched.groups()
        start = 0 if first == "*" else _weekday(first)
        end = 6 if first == "*" else _weekday(last) if last else 6 if step else start
        if end < start:
            end += 7  # sat-mon
        found.update(day % 7 for day in range(start, end + 1, _step(step)))
    return ",".join(_WEEKDAYS[day] for day in sorted(found))


def _step(text: str | None) -> int:
    if text is not None and int(text) == 0:
        raise ValueError("a step is at least 1")
    return int(text or 1)


def _weekday(text: str) -> int:
    if text.isdigit() and int(text) <= 7:
        return int(text)
    if text in _WEEKDAYS:
        return _WEEKDAYS.index(text)
    raise ValueError(f"{text!r} is no weekday; they are 0 to 7 or {', '.join(_WEEKDAYS)}")

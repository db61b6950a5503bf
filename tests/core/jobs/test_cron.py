"""Crontab expressions: what crontab means by them, clock changes, and what is refused."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.jobs.cron import Cron

BERLIN = ZoneInfo("Europe/Berlin")
MARCH, OCTOBER = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)
"""Noon before clocks are put forward from 2 to 3, and back from 3 to 2."""


def times(expression: str, start: datetime, count: int, zone: str = "Europe/Berlin") -> list[str]:
    cron, found, after = Cron(expression, zone), [], start.timestamp()
    for _ in range(count):
        after = cron.next(after) or 0.0
        found.append(f"{datetime.fromtimestamp(after, ZoneInfo(zone)):%a %d %H:%M %Z}")
    return found


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("mon,thu", "Mon Thu"),
        ("sat-mon", "Sat Sun Mon"),
        ("*/3", "Sun Wed Sat"),
        ("5-7", "Fri Sat Sun"),
    ],
)
def test_weekdays_are_counted_as_in_crontab(weekday: str, days: str) -> None:
    found = {item[:3] for item in times(f"0 12 * * {weekday}", MARCH, 14, "UTC")}
    assert found == set(days.split())


def test_day_of_month_and_weekday_are_alternatives() -> None:
    assert times("0 0 13 * fri", datetime(2026, 1, 1, tzinfo=UTC), 4, "UTC") == [
        "Fri 02 00:00 UTC",
        "Fri 09 00:00 UTC",
        "Tue 13 00:00 UTC",
        "Fri 16 00:00 UTC",
    ]


def test_time_that_is_skipped_comes_an_hour_later() -> None:
    assert times("30 2 * * *", MARCH, 2) == ["Sun 29 03:30 CEST", "Mon 30 02:30 CEST"]
    assert times("30 * * * *", datetime(2026, 3, 29, 0, 0, tzinfo=UTC), 3) == [
        "Sun 29 01:30 CET",
        "Sun 29 03:30 CEST",
        "Sun 29 04:30 CEST",
    ]


def test_time_that_is_shown_twice_counts_once_unless_every_hour_is_meant() -> None:
    assert times("30 2 * * *", OCTOBER, 2) == ["Sun 25 02:30 CEST", "Mon 26 02:30 CET"]
    assert times("30 * * * *", datetime(2026, 10, 25, 0, 0, tzinfo=UTC), 3) == [
        "Sun 25 02:30 CEST",
        "Sun 25 02:30 CET",
        "Sun 25 03:30 CET",
    ]


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("0 3 * *", "UTC", "needs five"),
        ("61 * * * *", "UTC", "higher than the maximum"),
        ("* * * * 8", "UTC", "'8' is no weekday"),
        ("* * * * */0", "UTC", "at least 1"),
        ("* * * * a-b", "UTC", "no weekday"),
        ("@daily", "UTC", "needs five"),
        ("0 0 30 2 *", "UTC", "no such day"),
        ("0 3 * * *", "Mars/Base", "no time zone"),
        ("0 3 * * *", "../passwd", "no time zone"),
        ("0 3 * * *", "", "no time zone"),
    ],
)
def test_nonsense_is_refused(expression: str, zone: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Cron(expression, zone)


@settings(max_examples=60, deadline=None)
@given(
    expression=st.sampled_from(
        ["*/7 * * * *", "30 2 * * *", "0 3 * * 1-5", "15 */6 1,15 * *", "0 0 29 2 *", "* 2 * * *", "5 1-4 * * sun"]
    ),
    start=st.integers(int(MARCH.timestamp()), int(OCTOBER.timestamp())),
    span=st.integers(0, 400_000),
)
def test_last_time_is_the_last_of_all_in_between(expression: str, start: int, span: int) -> None:
    cron, until = Cron(expression, "Europe/Berlin"), float(start + span)
    found, after = [], float(start)
    while (later := cron.next(after)) is not None and later <= until:
        found.append(later)
        after = later
    assert all(one < other for one, other in pairwise(found))
    assert cron.last(float(start), until) == (found[-1] if found else None)

"""What is counted, where it is kept, and when a limit stops the next call."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent
from tutelage.usage import BY_CYCLE, TOTAL, Usage, UsageLog, in_all

Documents = dict[str, dict[str, dict[str, Any]]]


def sink(documents: Documents) -> Callable[[str, str, dict[str, Any]], None]:
    def put(kind: str, key: str, body: dict[str, Any]) -> None:
        documents.setdefault(kind, {})[key] = body

    return put


def called(usage: UsageLog, role: str, times: int) -> None:
    for _ in range(times):
        usage.reserve(role, BudgetConfig())
        usage.add(role, Usage(prompt_tokens=10, completion_tokens=5))
    usage.save(role)


def test_cycles_add_up_over_kills() -> None:
    kept: Documents = {}
    first = UsageLog(sink(kept))
    called(first, "teacher", 1)  # by hand, before any cycle
    first.begin_cycle(1, {})
    called(first, "teacher", 2)
    first.reserve("teacher", BudgetConfig())  # killed here: what was not saved is lost, what was is not
    again = UsageLog(sink(kept), kept[TOTAL])
    again.begin_cycle(1, kept[BY_CYCLE])
    called(again, "teacher", 3)
    called(again, "judge", 1)
    again.begin_cycle(12, kept[BY_CYCLE])
    called(again, "teacher", 4)
    again.end_cycle()
    called(again, "judge", 1)
    calls = {key: body["calls"] for key, body in kept[BY_CYCLE].items()}
    assert calls == {"1/teacher": 5, "1/judge": 1, "12/teacher": 4}
    assert {role: usage.calls for role, usage in again.roles().items()} == {"teacher": 10, "judge": 2}
    assert kept[TOTAL]["teacher"] == Usage(calls=10, prompt_tokens=100, completion_tokens=50).model_dump()


def test_totals_of_earlier_versions_are_read() -> None:
    old = {"calls": 2, "prompt_tokens": 7, "completion_tokens": 1, "dollars": 0.5, "unpriced": 0}
    assert UsageLog(before={"teacher": old}).total() == Usage(
        calls=2, prompt_tokens=7, completion_tokens=1, dollars=0.5
    )


@pytest.mark.parametrize(
    ("limit", "spent"),
    [
        (BudgetConfig(calls=3), Usage(calls=3)),
        (BudgetConfig(tokens=15), Usage(prompt_tokens=10, completion_tokens=5)),
        (BudgetConfig(dollars=0.5), Usage(dollars=0.5)),
    ],
)
def test_a_limit_stops_the_next_call_of_any_role_and_says_how_to_go_on(limit: BudgetConfig, spent: Usage) -> None:
    usage = UsageLog()
    usage.add("teacher", spent)
    (name,) = limit.model_fields_set
    with pytest.raises(BudgetSpent) as stop:
        usage.reserve("judge", limit)
    message = str(stop.value)
    assert f"{getattr(limit, name):g} of {getattr(limit, name):g} {name}" in message
    assert f"-s budget.{name}=" in message
    assert "saved" in message
    assert "\n" not in message
    assert usage.total() == spent, "a call that is not allowed is not counted"
    usage.reserve("judge", BudgetConfig(**{name: 2 * getattr(limit, name)}))


def test_replays_are_free() -> None:
    usage = UsageLog()
    usage.add("teacher", Usage(replayed=1))
    usage.reserve("teacher", BudgetConfig(calls=1, tokens=1, dollars=0.01))
    assert usage.total() == Usage(calls=1, replayed=1)


def test_wall_clock_counts_from_the_first_call() -> None:
    usage, limit = UsageLog(), BudgetConfig(seconds=0.05)
    time.sleep(0.06)
    usage.reserve("teacher", limit)
    time.sleep(0.06)
    with pytest.raises(BudgetSpent, match=r"of 0\.05 seconds.*give the same command again"):
        usage.reserve("teacher", limit)


def test_a_call_limit_is_exact_with_many_threads() -> None:
    usage, limit = UsageLog(), BudgetConfig(calls=50)

    def attempt(number: int) -> bool:
        try:
            usage.reserve(f"role{number % 3}", limit)
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(attempt, range(200)))
    assert sum(allowed) == in_all(usage.roles()).calls == 50

"""The forecast against what a cycle then needs: the scripted expert behind a real HTTP server plays the provider."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import load_config
from tutelage.forecast import Forecast, forecast, price
from tutelage.loop import NODES
from tutelage.progress import Reporter
from tutelage.usage import Usage
from tutelage.workspace import Workspace

SETTINGS = [
    "environments.0.name=toy",
    "teacher.model=openai/toy-expert",
    "act.max_steps=5",
    "collect.demonstrations=8",
    "collect.mistaken=4",
    "collect.explored=0",
    "collect.guarded=2",
    "teacher.votes=3",
    "memory.distil_per_family=4",
]
WITH_CALLS = ("collect", "judge", "extract", "consolidate")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = opened(tmp_path, *SETTINGS)
    yield workspace
    workspace.close()


def opened(folder: Path, *settings: str) -> Workspace:
    return Workspace(load_config(None, [*settings, f"workspace={folder / 'workspace'}"]))


def of(found: Forecast) -> dict[str, int]:
    return {line.role: line.calls for line in found.lines}


def cycle(workspace: Workspace, number: int) -> dict[str, Usage]:
    """Everything of a cycle that calls models; what each role used."""
    before = workspace.usage.roles()
    workspace.usage.begin_cycle(number)
    for name in WITH_CALLS:
        NODES[name](workspace, number, Reporter(None))
    return {role: used.minus(before.get(role, Usage())) for role, used in workspace.usage.roles().items()}


def test_a_cycle_needs_about_what_was_forecast(expert_server: Any, workspace: Workspace) -> None:
    families = len(workspace.suite.families)
    blind = forecast(workspace, "run")
    used = cycle(workspace, 1)
    assert sum(used[role].calls for role in used) == len(expert_server.requests)
    assert of(blind)["judge"] == used["judge"].calls == 3 * 12 * families, "three votes on every episode"
    for role, most in (("teacher", 0.35), ("distiller", 0.5)):
        assert of(blind)[role] == pytest.approx(used[role].calls, rel=most), role

    informed = forecast(workspace, "run")
    again = cycle(workspace, 2)
    for role, most in (("teacher", 0.15), ("judge", 0), ("distiller", 0.15)):
        assert of(informed)[role] == pytest.approx(again[role].calls, rel=most), role
    lines = {line.role: line for line in informed.lines}
    assert lines["judge"].prompt_tokens == 10 * lines["judge"].calls, "as measured in the first cycle"
    assert lines["judge"].dollars is None, "nobody knows this server's price"
    assert informed.total.unpriced == informed.total.calls
    assert "tokens per call of the judge, after what calls took here" in " ".join(informed.assumptions)


def test_of_a_cycle_that_was_begun_the_rest_is_forecast(expert_server: Any, workspace: Workspace) -> None:
    workspace.record.put("loop", "1", {"kind": "run", "status": "running"})
    workspace.usage.begin_cycle(1)
    before = of(forecast(workspace, "run"))
    NODES["collect"](workspace, 1, Reporter(None))
    after = of(forecast(workspace, "run"))
    assert after["judge"] == before["judge"], "these episodes were in the plan already"
    assert after["teacher"] < before["teacher"] / 2


def test_an_annotation_is_forecast_by_its_steps(tmp_path: Path) -> None:
    settings = ["environments.0.name=files", "teacher.model=openai/gpt-4o-mini", "teacher.votes=2"]
    settings += ["annotate.explore_steps=7", "annotate.calibrate=5", "annotate.personas=9"]
    workspace = opened(tmp_path, *settings, "act.max_steps=8")
    found = forecast(workspace, "annotate", 12)  # two explorations, each asked about three times, two designs each
    assert of(found) == {"persona": 3, "teacher": 2 * 7 + 12 * 4, "designer": 6, "judge": (12 + 5) * 2}
    lines = {line.role: line for line in found.lines}
    judge = lines["judge"]
    assert judge.dollars == pytest.approx(judge.prompt_tokens * 0.15e-6 + judge.completion_tokens * 0.6e-6), (
        "the price list's own price of gpt-4o-mini"
    )
    workspace.close()


def test_only_a_judge_that_was_measured_itself_is_not_measured_again(tmp_path: Path) -> None:
    settings = ["environments.0.name=files", "teacher.model=openai/gpt-4o", "teacher.votes=2", "annotate.calibrate=5"]
    workspace = opened(tmp_path, *settings)
    for other in ("openai/gpt-4o-mini", "openai/gpt-4o-mini, 2 votes", "openai/gpt-4o"):
        workspace.record.put("calibration", other, {"n": 5})
        assert of(forecast(workspace, "annotate", 3))["judge"] == (3 + 5) * 2, other
    workspace.record.put("calibration", "openai/gpt-4o, 2 votes", {"n": 0})
    assert of(forecast(workspace, "annotate", 3))["judge"] == (3 + 5) * 2, "it had no answer"
    workspace.record.put("calibration", "openai/gpt-4o, 2 votes", {"n": 5})
    assert of(forecast(workspace, "annotate", 3))["judge"] == 3 * 2
    workspace.close()


def test_later_cycles_are_whole_and_find_nothing_left_over(expert_server: Any, workspace: Workspace) -> None:
    whole = of(forecast(workspace, "run"))
    assert of(forecast(workspace, "run", cycles=3)) == {role: 3 * count for role, count in whole.items()}
    workspace.record.put("loop", "1", {"kind": "run", "status": "running"})
    workspace.usage.begin_cycle(1)
    NODES["collect"](workspace, 1, Reporter(None))
    rest, both = (of(forecast(workspace, "run", cycles=cycles)) for cycles in (1, 2))
    assert rest["teacher"] < whole["teacher"] / 2
    assert both["teacher"] - rest["teacher"] > whole["teacher"] / 2, "not twice the rest"
    assert both["judge"] - rest["judge"] == whole["judge"]

    workspace.record.put("loop", "1", {"kind": "run", "status": "finished"})
    left = of(forecast(workspace, "run"))
    assert left["judge"] == 2 * whole["judge"], "what was collected waits for its verdicts"
    assert of(forecast(workspace, "run", cycles=2))["judge"] == 3 * whole["judge"], "once"


def test_scripted_roles_cost_nothing_and_say_so(tmp_path: Path) -> None:
    workspace = opened(tmp_path, "environments.0.name=toy", "teacher.judge=openai/gpt-4o-mini")
    found = forecast(workspace, "run")
    assert {line.role: line.scripted for line in found.lines} == {"teacher": True, "judge": False, "distiller": True}
    assert [line.role for line in found.paid] == ["judge"]
    assert all(line.dollars == 0 for line in found.lines if line.scripted)
    assert "of the teacher, assumed" not in " ".join(found.assumptions), "its tokens cost nothing"
    workspace.close()


def test_prices() -> None:
    assert price("openai/gpt-4o-mini", 1_000_000, 1_000_000) == pytest.approx(0.75)
    assert price("openai/local-model", 1_000_000, 1_000_000) is None

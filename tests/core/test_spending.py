"""What is said about money before and after work, and when nothing is."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tutelage.config import load_config
from tutelage.errors import BudgetSpent
from tutelage.forecast import forecast
from tutelage.progress import Reporter
from tutelage.spending import accounted, warnings
from tutelage.usage import Usage
from tutelage.workspace import Workspace


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text.strip())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    workspaces: list[Workspace] = []

    def with_settings(*settings: str) -> Workspace:
        config = load_config(None, ["environments.0.name=toy", *settings, f"workspace={tmp_path / 'workspace'}"])
        workspaces.append(Workspace(config))
        return workspaces[-1]

    yield with_settings
    for workspace in workspaces:
        workspace.close()


def test_where_all_is_scripted_nothing_is_said(opened: Callable[..., Workspace]) -> None:
    workspace, heard = opened(), Heard()
    with accounted(workspace, heard, "run"):
        workspace.usage.add("teacher", Usage(calls=3))
    assert heard.lines == []


def test_one_line_before_one_after_and_a_warning_where_a_limit_is_near(opened: Callable[..., Workspace]) -> None:
    workspace, heard = opened("teacher.model=openai/gpt-4o-mini", "budget.dollars=0.001", "loop.cycles=3"), Heard()
    workspace.usage.add("teacher", Usage(calls=100, dollars=0.0004))
    with suppress(BudgetSpent), accounted(workspace, heard, "run"):
        workspace.usage.add("judge", Usage(calls=2, prompt_tokens=30, dollars=0.0002))
        raise BudgetSpent
    said, warning, spent = heard.lines
    assert said.startswith("forecast for openai/gpt-4o-mini: about ")
    assert "for the 3 cycles to go" in said
    told = said.removeprefix("forecast for openai/gpt-4o-mini: about ").partition(" for ")[0]
    assert spent.endswith(f"(forecast: {told})"), "what was spent stands beside what all of it was to cost"
    assert "budget.dollars leaves 0.0006 of 0.001" in warning
    assert spent.startswith("LLM use: 2 calls, 30 tokens, $0.0002 (forecast: "), (
        "only of this work, though it was stopped"
    )


def test_the_rest_of_a_cycle_is_not_taken_for_the_cycles_after_it(opened: Callable[..., Workspace]) -> None:
    workspace, heard = opened("teacher.model=openai/gpt-4o-mini", "loop.cycles=2", "budget.calls=100000"), Heard()
    whole = forecast(workspace, "run").total.calls
    workspace.record.put("loop", "1", {"kind": "run", "status": "running"})
    workspace.usage.begin_cycle(1)
    for role in ("teacher", "judge", "distiller", "merger"):
        workspace.usage.add(role, Usage(calls=10_000))
        workspace.usage.save(role)
    with accounted(workspace, heard, "run"):
        workspace.usage.add("judge", Usage(calls=1))
    said, spent = heard.lines
    assert f"about {whole:,} calls" in said
    assert f"(forecast: {whole:,} calls" in spent
    assert not warnings(workspace, forecast(workspace, "run").total), "nothing is left of it"


def test_a_replay_says_that_it_is_free(opened: Callable[..., Workspace]) -> None:
    workspace = opened("teacher.model=openai/gpt-4o-mini", "cassette.path=run.jsonl", "budget.calls=1")
    heard = Heard()
    with accounted(workspace, heard, "annotate", 5):
        workspace.usage.add("judge", Usage(replayed=2))
    said, spent = heard.lines
    assert said == "replaying run.jsonl: nobody is called and nothing is spent"
    assert spent.startswith("LLM use: 0 calls, 0 tokens, $0.00, 2 replayed")


def test_nothing_is_said_of_cycles_that_are_done(opened: Callable[..., Workspace]) -> None:
    workspace, heard = opened("teacher.model=openai/gpt-4o-mini"), Heard()
    workspace.record.put("loop", "1", {"kind": "run", "status": "finished"})
    with accounted(workspace, heard, "run"):
        pass
    assert heard.lines == []

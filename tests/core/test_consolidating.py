"""Consolidation of a workspace: as a command, as part of a cycle, with a model as merger and with measured effects."""

import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli import main
from tutelage.config import BudgetConfig, Config, MemoryConfig, TeacherConfig
from tutelage.consolidating import CONSOLIDATION, MEASURED, consolidate_memory, effects
from tutelage.distilling import consolidate
from tutelage.errors import BudgetSpent
from tutelage.experience import Change, Experience, Source, Status, Sticker
from tutelage.measures import Comparison, Effect, Finding, Measurement, Rate
from tutelage.memory.merging import DECISIONS
from tutelage.progress import Reporter
from tutelage.workspace import Workspace

TEXTS = ("Always read the sign first.", "Make sure to read the sign first.", "Never read the sign first.")
OTHER_WORDS = "Always look at the sign first."


def a_workspace(folder: Path, *texts: str, **config: Any) -> Workspace:
    memory = MemoryConfig(similar=0.5)
    workspace = Workspace(Config.model_validate({"workspace": folder, "memory": memory, **config}))
    for number, text in enumerate(texts):
        source = Source(trajectory=f"t{number}", task=f"toy/press@{number}")
        item = Experience(
            environment="toy",
            family="press",
            goal="press {text}",
            content=Sticker(conditions=(text,), question="What comes next?"),
            sources=(source,),
            author="a hand",
        )
        workspace.memory.add(item)
    return workspace


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process and returns what it prints."""

    def run(*words: str) -> str:
        out = StringIO()
        monkeypatch.setattr(sys, "argv", ["tutelage", *words])
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code in (0, None)
        return out.getvalue()

    return run


def test_the_command_prints_what_it_does_and_does_it_once(tmp_path: Path, run: Callable[..., str]) -> None:
    a_workspace(tmp_path / "w", *TEXTS).close()
    command = ("memory", "consolidate", "-s", f"workspace={tmp_path / 'w'}")
    planned = json.loads(run(*command, "--dry-run", "--json"))
    assert (planned["merged"], planned["contradictions"], planned["left"]) == (1, 1, 2)
    assert {row["what"] for row in planned["done"]} == {"merge", "contradiction"}
    text = run(*command)
    assert "1 merged, 1 contradictions (0 resolved by evidence), 0 retired for room; 2 are in use" in text
    assert planned["done"][0]["id"] in text
    assert "0 merged" in run(*command)
    workspace = Workspace(Config(workspace=tmp_path / "w"))
    assert len(workspace.memory.experiences(statuses=[Status.RETIRED])) == 1
    workspace.close()


def test_a_cycle_consolidates_and_keeps_what_it_set_out_to_do(tmp_path: Path) -> None:
    workspace = a_workspace(tmp_path / "w", *TEXTS, collect={"guarded": 0})
    for _ in range(2):
        consolidate(workspace, 1, Reporter(None))
        kept = workspace.record.get(CONSOLIDATION, "1")
        assert kept is not None
        assert (kept["merged"], kept["left"]) == (1, 2), "a cycle that goes on does not forget what it did"
    workspace.close()


def test_a_model_as_merger_is_asked_once_and_stops_on_a_spent_budget(tmp_path: Path, server: Any) -> None:
    server.answer = lambda text: json.dumps({"reason": "the same act", "relation": "same"})
    teacher = TeacherConfig(model="openai/local")
    texts = (*TEXTS, OTHER_WORDS)
    workspace = a_workspace(tmp_path / "a", *texts, teacher=teacher, budget=BudgetConfig(calls=1))
    for decided in (1, 1):
        with pytest.raises(BudgetSpent):
            consolidate_memory(workspace)
        assert len(workspace.record.items(DECISIONS)) == decided, "what was paid for is kept"
    assert workspace.memory.experiences(statuses=[Status.RETIRED]) == [], "nothing is done by halves"
    workspace.close()
    server.requests.clear()
    workspace = a_workspace(tmp_path / "b", *texts, teacher=teacher)
    assert len(consolidate_memory(workspace).merges) == 2
    asked = len(server.requests)
    assert asked == 3
    assert all("Role: merger" in request["messages"][0]["content"] for request in server.requests)
    consolidate_memory(workspace)
    assert len(server.requests) == asked
    assert len(workspace.memory.experiences(statuses=[Status.CANDIDATE])) == 2, "never is still apart"
    workspace.close()


def test_measured_effects_are_those_of_single_experiences_the_newest_last(tmp_path: Path) -> None:
    workspace = a_workspace(tmp_path / "w", *TEXTS)
    always, _, never = workspace.memory.experiences()

    def measured(
        name: str, experience: Experience, low: float, high: float, *, alone: bool = True, student: str = "s"
    ) -> None:
        rate = Rate(successes=1, episodes=2, low=0.0, high=1.0)
        gain = Comparison(pairs=20, gain=(low + high) / 2, low=low, high=high, won=0, lost=0, p_value=1.0)
        effect = Effect(
            family="toy/press",
            experience=experience.id,
            alone=alone,
            difference=gain,
            with_memory=rate,
            without=rate,
            finding=Finding.UNDECIDED,
        )
        body = Measurement(
            name=name, cycle=1, place=0, student=student, pairs=20, item_pairs=20, families={}, effects=(effect,)
        )
        workspace.record.put("measurement", name, body.model_dump(mode="json"))

    measured("1/a", always, -0.9, -0.8)
    measured("1/b", never, 0.1, 0.3)
    measured("1/c", never, -0.9, -0.8, alone=False)
    measured("2/a", always, 0.4, 0.6, student="t")
    assert [item.winner for item in consolidate_memory(workspace).contradictions] == [""], "of different students"
    measured("2/b", always, 0.4, 0.6)
    found = effects(workspace)
    assert found[always.id] == (0.4, 0.6, f"{MEASURED}, of student s")
    assert found[never.id] == (0.1, 0.3, f"{MEASURED}, of student s")
    plan = consolidate_memory(workspace)
    assert [item.winner for item in plan.contradictions] == [always.id]
    assert workspace.memory.get(never.id).status is Status.RETIRED
    workspace.memory.move(never.id, Status.CANDIDATE, Change(by="hand:ann", reason="look again"))
    workspace.close()

"""A cycle that its budget stops again and again, or that is replayed, ends with the record of one left alone."""

from pathlib import Path
from typing import Any

from same_work import UNLIKE

from tutelage import loop
from tutelage.config import load_config
from tutelage.errors import BudgetSpent
from tutelage.progress import Reporter
from tutelage.workspace import Workspace

SETTINGS = [
    "environments=[{name='toy', families=['copy', 'press']}]",
    "teacher.model=openai/toy-expert",
    "student.weights=tiny",
    "student.dtype=float32",
    "student.max_new_tokens=4",
    "act.width=4",
    "act.max_steps=3",
    "collect={demonstrations=4, mistaken=2, explored=1, guarded=1}",
    "stages=[{type='sft', steps=1, learning_rate=1e-3}]",
    "evaluate={episodes=2, between=0, with_memory=0, test=0}",
    "evidence.pairs=4",
]


def run(folder: Path, calls: int = 0, *settings: str) -> tuple[int, dict[str, Any], str]:
    """Run the cycle as far as the budget goes; calls counted in all, the record, and what stopped it."""
    config = load_config(None, [*SETTINGS, *settings, f"workspace={folder}", f"budget.calls={calls}"])
    workspace, stop = Workspace(config), ""
    try:
        loop.run(workspace, "run", Reporter(None))
    except BudgetSpent as error:
        stop = str(error)
    counted, by_cycle = workspace.usage.total().calls, workspace.record.items("usage-cycle")
    assert sum(body["calls"] for body in by_cycle.values()) == counted, "every call belongs to the cycle"
    found = workspace.record.fingerprint(without=(*UNLIKE, "loop"))  # the last tells of the budget itself
    workspace.close()
    return counted, found, stop


def test_a_cycle_stopped_by_its_budget_or_replayed_ends_like_an_undisturbed_one(
    expert_server: Any, tmp_path: Path
) -> None:
    cassette = f"cassette.path={tmp_path / 'run.jsonl'}"
    needed, undisturbed, _ = run(tmp_path / "undisturbed", 0, cassette, "cassette.mode=record")
    assert len(expert_server.requests) == needed

    expert_server.requests.clear()
    stops = 0
    for calls in (needed // 4, needed // 2, 2 * needed):
        counted, found, stop = run(tmp_path / "stopped", calls)
        assert len(expert_server.requests) == counted <= calls, "not one call more"
        stops += f"{calls} of {calls} calls" in stop
    assert stops == 2
    assert found == undisturbed

    expert_server.http.shutdown()
    expert_server.http.server_close()
    counted, found, stop = run(tmp_path / "replayed", 1, cassette, "cassette.mode=replay")
    assert (counted, stop) == (0, "")
    assert found == undisturbed

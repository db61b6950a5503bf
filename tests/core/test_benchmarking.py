"""The retrieval benchmark of a workspace, on one whose memory was made of played episodes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage import cycle, distilling
from tutelage.benchmarking import AS_ASKED, benchmark
from tutelage.cli import main
from tutelage.config import load_config
from tutelage.errors import ConfigError
from tutelage.progress import Reporter
from tutelage.retrieval import LAYERS, METHODS
from tutelage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Toy episodes, some of them distilled."""
    settings = ("collect.demonstrations=8", "collect.mistaken=6", "collect.explored=0", "memory.distil_per_family=3")
    config = load_config(None, [f"workspace={tmp_path / 'w'}", "environments=[{name='toy'}]", *settings])
    workspace = Workspace(config)
    cycle.collect(workspace, 1, Reporter(None))
    distilling.judge(workspace, 1, Reporter(None))
    return workspace


def test_memory_is_asked_about_its_own_episodes_and_the_table_is_printed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="memory has no answer"):
        benchmark(workspace, 4)
    distilling.extract(workspace, 1, Reporter(None))
    found = benchmark(workspace, 4)
    assert {question.sort for question in found.questions} >= {"situation", "goal", "detail"}
    assert len(found.figures) == 2 + len(METHODS) * len(LAYERS)
    # What memory answers is what the arm says that stands for it, to the last place.
    assert np.array_equal(found.figures[AS_ASKED], found.figures["fused, cross-layer"])
    drawn = {item.id: {source.task for source in item.sources} for item in workspace.memory.experiences()}
    for question in found.questions:
        assert all(question.task not in drawn[key] for key in question.grades)
    folder = workspace.folder
    workspace.close()
    monkeypatch.setattr(sys, "argv", ["tutelage", "memory", "benchmark", "-s", f"workspace={folder}"])
    capsys.readouterr()
    main_exits_well()
    assert f"{len(found.questions)} questions about {found.experiences} experiences" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
    main_exits_well()
    body = json.loads(capsys.readouterr().out)
    assert body["searches"][0]["MRR"] == pytest.approx(found.figures[AS_ASKED][:, 0].mean())


def main_exits_well() -> None:
    try:
        main()
    except SystemExit as end:
        assert not end.code  # noqa: PT017  (how a command ends)

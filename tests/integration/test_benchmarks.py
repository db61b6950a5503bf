"""The benchmarks still fit the library they measure."""

import runpy
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2] / "benchmarks"
WORKERS = {"browsergym_worker", "mem0_worker", "speed_scripts"}
"""Parts of others, which need what is not installed here."""
SCRIPTS = sorted(path for path in HERE.glob("*.py") if path.stem not in WORKERS)


def start(script: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if "argparse" in path.read_text()], ids=lambda script: script.stem
)
def test_what_it_imports_is_there_and_it_says_how_it_is_used(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        start(script, monkeypatch, "--help")
    assert capsys.readouterr().out.startswith(f"usage: {script.name}")


def test_graph_overhead_tells_the_parts_of_an_episode_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(HERE / "graph_overhead.py", monkeypatch, "--environment", "toy", "--episodes", "8", "--width", "2")
    assert "8 solved" in capsys.readouterr().out


def test_every_script_is_in_the_list() -> None:
    listed = (HERE / "README.md").read_text()
    assert [script.name for script in SCRIPTS if f"`{script.name}`" not in listed] == []

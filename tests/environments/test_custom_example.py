"""The example of an environment outside the library: it runs, and both ways of loading it work."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tutelage.environments import Environment, environment_class
from tutelage.errors import UnknownName
from tutelage.types import Cause, Split

FOLDER = Path(__file__).parents[2] / "examples" / "custom_environment"


def _check(cls: type[Environment]) -> None:
    environment = cls()
    _, info = environment.reset(options={"task": cls.tasks(Split.TRAIN, ["small"])[0]})
    assert info["goal"] == "Find the number from 1 to 10."
    *_, info = environment.step("guess(1.5)")
    assert info["diagnosis"].cause is Cause.INVALID_ACTION
    rewards = [environment.step(f"guess({number})")[1] for number in range(1, 11)]
    assert 1.0 in rewards


def test_by_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    _check(environment_class("guess:Guess"))


def test_by_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The metadata that installing the example would write, on the path."""
    groups = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = tmp_path / "tutelage_guess-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tutelage-guess\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{name} = {path}\n" for group, names in groups.items() for name, path in names.items())
    )
    with pytest.raises(UnknownName, match="known: bfcl"):
        environment_class("guess")
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(tmp_path)
    _check(environment_class("guess"))


def test_example_runs() -> None:
    done = subprocess.run([sys.executable, FOLDER / "guess.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("(solved, reward 1)")

"""What is installed is what is on disk, and the command line starts without the heavy parts."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "core": "tutelage",
    "agents": "tutelage.agents",
    "environments": "tutelage.environments",
    "memory": "tutelage.memory",
    "training": "tutelage.training",
}


def test_listed_packages_are_those_on_disk() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for folder, package in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(setuptools["packages"]) == on_disk
    assert setuptools["package-dir"] == {package: folder for folder, package in FOLDERS.items()}


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys; sys.argv = ['tutelage', '--help']\n"
        "from tutelage.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'chromadb', 'langgraph', 'litellm', 'playwright', 'scipy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "rollout" in done.stdout


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {match[0] for item in wanted if (match := re.match(r"[\w.-]+", item))}
    assert not {name.lower() for name in names} - pinned - {"tutelage"}

"""The red team: no attempt gets out, each leaves the sandbox as new; as whoever runs this, and unprivileged."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sandbox_attacks as attacks

from tutelage import errors
from tutelage.environments import sandbox
from tutelage.environments.sandbox import Sandbox, open_sandbox
from tutelage.environments.sandbox.oneshot import OneShot

HERE = Path(__file__).parent
SYSTEM_PYTHON = Path("/usr/bin/python3")
SOMEBODY = 1_899_999_999


@pytest.fixture(scope="module")
def trial() -> Iterator[Any]:
    made = attacks.Trial()  # the set-up installs bubblewrap: without it these tests fail
    yield made
    made.close()


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_attempt_fails_and_leaves_the_sandbox_as_new(trial: Any, name: str) -> None:
    assert trial.attempt(name) == []


def test_there_are_many_attempts() -> None:
    assert len(attacks.ATTACKS) >= 60


def test_unprivileged(full_counts: bool) -> None:
    """The same as a user who is nobody: with a copy of the sandbox that this user may read, by the system's Python."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip("no system Python")
    names = list(attacks.ATTACKS) if full_counts else list(attacks.ATTACKS)[::9]
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / "tutelage"
        shutil.copytree(Path(sandbox.__file__).parent, package / "environments" / "sandbox")
        for folder in (package, package / "environments"):
            (folder / "__init__.py").touch()
        shutil.copy(errors.__file__, package / "errors.py")
        for file in HERE.glob("sandbox_attacks.*"):
            shutil.copy(file, place)
        for path in (Path(place), *Path(place).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        switch: dict[str, Any] = {}
        if os.geteuid() == 0:
            switch = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}
        done = subprocess.run(
            [SYSTEM_PYTHON, "-s", Path(place) / "sandbox_attacks.py", *names],
            env={"PYTHONPATH": place, "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60 + 10 * len(names),
            check=False,
            **switch,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["user"] != 0
    assert result["tried"] == len(names)
    assert result["wrong"] == {}


REAL = (
    "read_secret_file",
    "read_passwd",
    "proc_list",
    "network_tcp",
    "network_host_unix_socket",
    "memory_without_owner",
)


def test_the_attempts_would_work_where_nothing_holds_them() -> None:
    """Else the suite above would show nothing."""
    eyes = attacks.Watch()
    try:
        loose = OneShot(replace(attacks.LIMITS, seconds=3.0), landlock=False)
        for name in REAL:
            assert "ESCAPED" in loose.run(eyes.fill(attacks.ATTACKS[name])).output, name
        assert eyes.alarms() == ["a listener was reached"]
    finally:
        eyes.tcp.accept()[0].close()
        eyes.close()


FILES_AND_NETWORK = ("read_", "write_", "network_", "proc_", "rights_", "environment", "inherited", "signals", "daemon")


def test_landlock_holds_files_network_and_rights(full_counts: bool) -> None:
    """The second choice, which has no namespaces: what it promises."""
    pytest.importorskip("sandlock")
    eyes = attacks.Watch()
    chosen = [name for name in attacks.ATTACKS if name.startswith(FILES_AND_NETWORK)]
    chosen.remove("proc_own_descriptors")  # leads to its own /dev/null, which it may read
    try:
        held: Sandbox = OneShot(replace(attacks.LIMITS, seconds=3.0), landlock=True)  # each starts a Python
        for name in chosen if full_counts else chosen[::8]:
            ran = held.run(eyes.fill(attacks.ATTACKS[name]))
            assert "ESCAPED" not in ran.output, f"{name}: {ran.output}"
            assert eyes.secret not in ran.output + ran.problem
            assert eyes.alarms() == []
            assert held.run("import os\nprint(os.listdir())").output == "[]\n"
    finally:
        eyes.close()


def test_the_default_is_the_strongest() -> None:
    with open_sandbox() as made:
        assert made.level.startswith("bubblewrap")

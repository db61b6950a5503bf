"""A real language model for the tests that want one: small, slow and poor, but real, over real HTTP."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(file: Path) -> ModuleType:
    """A module of the tests that is no test file; they are not on the import path."""
    spec = importlib.util.spec_from_file_location(f"tutelage_tests_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")  # of one module, so that others find no child process of these tests
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """SmolLM2-135M-Instruct behind `transformers serve`: `.teacher`, `.url`, `.name`, `.environ`."""
    serving = _load(Path(__file__).parents[1] / "serving.py").serving
    with serving(tmp_path_factory.mktemp("served") / "log.txt") as served:
        yield served


@pytest.fixture
def local_model(served: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its model string, with the environment such that LiteLLM and the OpenAI client find it."""
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    return str(served.teacher)

"""A real language model for the tests that want one: small, slow and poor, but real, over real HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")  # of one module, so that others find no child process of these tests
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """SmolLM2-135M-Instruct behind `transformers serve`: `.teacher`, `.url`, `.name`, `.environ`."""
    from serving import serving  # imports torch, which few tests here want

    with serving(tmp_path_factory.mktemp("served") / "log.txt") as served:
        yield served


@pytest.fixture
def local_model(served: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its model string, with the environment such that LiteLLM and the OpenAI client find it."""
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    return str(served.teacher)

"""What vLLM is told is what a request says; the engine itself needs a GPU and is not run here."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny_students import settings

from tutelage.serving.engine_vllm import MEMORY, VllmEngine, engine_arguments, sampling_arguments
from tutelage.serving.student_engine import EngineFailed
from tutelage.serving.types import Sampling
from tutelage.training import weights


def takes(folder: Path, tokens: int) -> None:
    """As if a model lay there that takes so many tokens."""
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": tokens}))


def test_all_of_a_requests_sampling_arrives() -> None:
    sampling = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.8, stop=("x",), seed=3)
    given = sampling_arguments(sampling, frozenset({5, 2}))
    assert (given["max_tokens"], given["temperature"], given["top_p"], given["seed"]) == (9, 0.7, 0.8, 3)
    assert (given["stop_token_ids"], given["ignore_eos"]) == ([2, 5], True)
    assert "stop" not in given  # it would need vLLM to make text of the tokens, which is done here


def test_two_versions_fit_side_by_side(tmp_path: Path) -> None:
    takes(tmp_path, 8192)
    given = engine_arguments(tmp_path, "student@3", settings(tmp_path, batch=5, max_length=777))
    assert 2 * MEMORY < 1
    assert (given["max_model_len"], given["max_num_seqs"], given["served_model_name"]) == (777, 5, "student@3")


def test_no_conversation_is_longer_than_the_model_takes(tmp_path: Path) -> None:
    takes(tmp_path, 512)
    assert engine_arguments(tmp_path, "student@3", settings(tmp_path, max_length=777))["max_model_len"] == 512


class Failing:
    """A vLLM that fails at its first token."""

    def __init__(self) -> None:
        self.aborted: list[str] = []
        self.stopped_in: list[int] = []

    async def generate(self, prompt: dict[str, Any], params: Any, name: str) -> AsyncIterator[Any]:
        raise RuntimeError(f"cannot go on with {prompt}")
        yield

    async def abort(self, name: str) -> None:
        self.aborted.append(name)

    def shutdown(self) -> None:
        self.stopped_in.append(threading.get_ident())


def test_what_fails_in_vllm_is_a_failed_engine_and_nobody_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    module, parameters = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    monkeypatch.setattr(module, "SamplingParams", dict, raising=False)
    monkeypatch.setattr(parameters, "RequestOutputKind", SimpleNamespace(DELTA=1), raising=False)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    llm, tokenizer = Failing(), weights.load_tokenizer("tiny")
    engine = VllmEngine("student@3", llm, tokenizer, 100)

    async def used() -> None:
        with pytest.raises(EngineFailed, match="RuntimeError") as failed:
            await anext(engine.sample([7, 8], Sampling(max_new_tokens=1)))
        assert "7, 8" not in str(failed.value)
        await engine.close()

    asyncio.run(used())
    assert len(llm.aborted) == 1
    assert llm.stopped_in != [threading.get_ident()]

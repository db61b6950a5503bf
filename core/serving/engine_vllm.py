"""A version of the student in vLLM, in this process: requests go in as token ids and come back as such.

Written for vLLM 0.22 to 0.32 (`AsyncLLM`). It has to be run on a machine with a GPU, which the tests do not: they hold
what is passed to vLLM against what is meant.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.config import Config
from tutelage.serving.reading import ends_of
from tutelage.serving.student_engine import EngineFailed, StudentEngine, tokens_at_most
from tutelage.serving.types import Sampling
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.vllm_policy import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MEMORY = 0.42
"""Share of the GPU's memory per version, so that two fit while one is exchanged for the other."""

_numbers = count()


class VllmEngine(StudentEngine):
    """Answers with vLLM.

    Args:
        label: which version, e.g. ``student@3``.
        llm: a running `AsyncLLM`.
    """

    def __init__(self, label: str, llm: Any, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        super().__init__(label, ChatEncoder(tokenizer), max_length)
        self._llm = llm

    @classmethod
    def load(cls, label: str, name: str, config: Config) -> "VllmEngine":
        """The engine of weights named as for `weights.load`; takes a minute.

        Raises:
            MissingPart: vLLM, a GPU, or the weights are not here.
        """
        require()
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        given = engine_arguments(weights.ensure(name), label, config)
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**given))
        return cls(label, llm, weights.load_tokenizer(name), given["max_model_len"])

    async def sample(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[int, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        given = sampling_arguments(sampling, ends_of(self.encoder))
        name = f"{self.label}-{next(_numbers)}"
        params = SamplingParams(**given, output_kind=RequestOutputKind.DELTA)
        try:
            try:
                async for output in self._llm.generate({"prompt_token_ids": ids}, params, name):
                    for token in output.outputs[0].token_ids:
                        yield int(token)
            finally:
                await self._llm.abort(name)  # nothing to it where the request has ended
        except Exception as error:  # its words may be the request's
            raise EngineFailed(f"{self.label}: vLLM has failed: {type(error).__name__}") from error

    async def close(self) -> None:
        await asyncio.to_thread(self._llm.shutdown)  # which waits for its processes to end


def engine_arguments(folder: Path, label: str, config: Config) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`, which takes no more tokens than the model does."""
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(folder, local_files_only=True)
    return {
        "model": str(folder),
        "served_model_name": label,
        "dtype": str(weights.compute_dtype(config.student.dtype)).removeprefix("torch."),
        "max_model_len": tokens_at_most(model, config.serve.max_length),
        "max_num_seqs": config.serve.batch,
        "gpu_memory_utilization": MEMORY,
        "generation_config": "vllm",  # no defaults from the model's own settings
        "enable_prefix_caching": True,
        "enable_log_requests": False,  # what is said is nobody's business
    }


def sampling_arguments(sampling: Sampling, ends: frozenset[int]) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`; stop strings are looked for here, as with the other engine."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": sampling.seed,
        "max_tokens": sampling.max_new_tokens,
        "ignore_eos": True,
        "stop_token_ids": sorted(ends),
        "detokenize": False,
    }

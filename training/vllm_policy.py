"""The student in vLLM, in this process: token ids in, sampled ids and their log-probabilities out.

TRL's own `use_vllm` is not used: it generates one completion per prompt inside its trainer, whereas an episode
here is played in an environment, turn by turn, by the same policy that evaluation uses. What it does right is done
here too: log-probabilities after the temperature (`logprobs_mode`), and weights handed to the running engine.

Written for vLLM 0.22 (the oldest that TRL 1.16 takes) to 0.32: `LLM.generate` on token ids, `reload_weights` of its
workers and `LLM.reset_prefix_cache`.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Unpack

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutelage.errors import MissingPart
from tutelage.training import weights
from tutelage.training.policy import merged_weights
from tutelage.training.token_policy import SEEDS, Asked, Sampled, Settings, TokenPolicy

ALONE = 0.85
"""Share of the GPU's memory for vLLM where nothing is trained beside it."""
BESIDE_TRAINING = 0.3
"""And where something is (TRL's default)."""


class Engine:
    """A running vLLM with weights that can be exchanged for others of the same shapes.

    Args:
        folder: weights and tokenizer to begin with.
        max_length: tokens of a whole episode.
        dtype: of the weights in the engine.
        memory: share of the GPU's memory that it may take.

    Raises:
        MissingPart: vLLM or a GPU is not here.
    """

    def __init__(self, folder: str, *, max_length: int, dtype: torch.dtype, memory: float) -> None:
        require()
        # The engine must be in this process: functions are not sent to another one, and weights need not be copied.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM

        with _own_randomness():
            self.llm: Any = LLM(
                model=folder,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=max_length,
                gpu_memory_utilization=memory,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",  # no defaults from the model's own settings
                seed=0,
            )
        self.holder: object = None
        """Whose weights it has."""

    def load(self, named: Iterable[tuple[str, torch.Tensor]], holder: object) -> None:
        """Take over weights by the names that transformers gives them; what was cached with the old ones is dropped."""
        self.holder = None
        # Not `model.load_weights`: after loading, vLLM may have rewritten the parameters for its kernels.
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(named)})
        self.llm.reset_prefix_cache()
        self.holder = holder

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        """vLLM's `RequestOutput` for each prompt, in order."""
        from vllm import SamplingParams

        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        made = self.llm.generate(given, [SamplingParams(**each) for each in params], use_tqdm=False)
        return list(made)


class VllmPolicy(TokenPolicy):
    """Samples from an `Engine`, whose weights it brings along.

    Seeded: the same context gives the same reply, up to rounding that depends on the batch; another reply than
    `StudentPolicy` gives, as the generators differ. What is common to an episode's turns is computed once, by vLLM's
    prefix cache.

    Args:
        source: whose weights to sample from: a model, or a name as for `weights.load`.
    """

    def __init__(
        self,
        engine: Engine,
        source: PreTrainedModel | str,
        tokenizer: PreTrainedTokenizerBase,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(tokenizer, **settings)
        self._engine, self._source = engine, source
        self._hold()

    def sample(self, asked: Sequence[Asked]) -> list[Sampled]:
        if self._engine.holder is not self:
            self._hold()
        params = [sampling(one, self.temperature, self.max_new_tokens, self.encoder.end) for one in asked]
        return [sampled(output) for output in self._engine.generate([one.ids for one in asked], params)]

    def _hold(self) -> None:
        """Give the engine this policy's weights; another policy may have given it its own since."""
        model = weights.load(self._source)[0] if isinstance(self._source, str) else self._source
        with torch.no_grad():
            self._engine.load(merged_weights(model), self)


def sampling(asked: Asked, temperature: float, max_new_tokens: int, end: int) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`: all probabilities as the model has them, and one token that ends a turn."""
    return {
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": asked.seed % SEEDS,
        "max_tokens": max_new_tokens,
        "ignore_eos": True,
        "stop_token_ids": [end],
        "logprobs": 0,  # of the sampled token alone
        "detokenize": False,
    }


def sampled(output: Any) -> Sampled:
    """The tokens in vLLM's `RequestOutput`, the one that ended the turn included."""
    (completion,) = output.outputs
    ids = tuple(int(token) for token in completion.token_ids)
    chosen = zip(ids, completion.logprobs, strict=True)
    return Sampled(ids, tuple(float(by_token[token].logprob) for token, by_token in chosen))


def require() -> None:
    """See that vLLM can run here.

    Raises:
        MissingPart: it is not installed, or there is no GPU. vLLM's build for processors samples as it should, but
            not after an exchange of weights (seen with 0.32).
    """
    if find_spec("vllm") is None:
        raise MissingPart('student.engine = "vllm" needs vLLM and a GPU: pip install "vllm>=0.22,<0.33"')
    if not torch.cuda.is_available():
        raise MissingPart('student.engine = "vllm" needs a GPU; without one use "transformers"')


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the program's random numbers as they were; vLLM seeds all generators of its process."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

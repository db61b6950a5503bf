"""A version of the student that answers in this process, with transformers: many requests in one batch."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.serving.batching import Asked, Batcher
from tutelage.serving.reading import ends_of
from tutelage.serving.student_engine import StudentEngine, tokens_at_most
from tutelage.serving.types import Sampling
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class TransformersEngine(StudentEngine):
    """Answers with a model of this process.

    Args:
        label: which version, e.g. ``student@3``.
        batch: replies that are generated together; more wait their turn.
        max_length: tokens of a conversation with its reply; the model may take fewer.

    Raises:
        ConfigError: the model is not of a kind that is understood here.
    """

    def __init__(
        self, label: str, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, batch: int, max_length: int
    ) -> None:
        check_kind(model.config)
        super().__init__(label, ChatEncoder(tokenizer), tokens_at_most(model.config, max_length))
        self._batcher = Batcher(model, batch)

    @classmethod
    def load(cls, label: str, name: str, config: Config) -> "TransformersEngine":
        """The engine of weights named as for `weights.load`; takes seconds.

        Raises:
            ConfigError, MissingPart: as `weights.load`, or as the constructor.
        """
        model, tokenizer = weights.load(name, dtype=weights.compute_dtype(config.student.dtype))
        return cls(label, model, tokenizer, batch=config.serve.batch, max_length=config.serve.max_length)

    async def sample(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[int, None]:
        asked = Asked(ids, sampling, ends_of(self.encoder), asyncio.get_running_loop())
        self._batcher.submit(asked)
        try:
            while True:
                token = await asked.tokens.get()
                if isinstance(token, Exception):
                    raise token
                yield token
        finally:
            asked.cancelled = True

    async def close(self) -> None:
        await asyncio.to_thread(self._batcher.close)


def check_kind(config: "PretrainedConfig") -> None:
    """Raises ConfigError: some layer of the model does not attend to everything before, as all do in a Llama."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds != {"full_attention"} or (window and not getattr(config, "layer_types", None)):
        raise ConfigError(
            f"a model of type {config.model_type} with layers of another kind than full attention cannot be served by "
            'engine = "transformers"; serve it with vLLM and set serve.engine = "upstream"'
        )

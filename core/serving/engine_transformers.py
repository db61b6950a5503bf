"""A version of the student that answers in this process, with transformers: many requests in one batch."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tutelage.config import Config
from tutelage.errors import ConfigError, RequestTooLong
from tutelage.serving.batching import Asked, Batcher, EngineFailed
from tutelage.serving.limits import check_length
from tutelage.serving.reading import Reader, ends_of
from tutelage.serving.rendering import conversation
from tutelage.serving.types import ChatMessage, Engine, Piece, Prompt, Sampling
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CHECK = 120.0
"""Seconds for a version to say its first word, on a machine that may be busy."""


class TransformersEngine:
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
        self._label = label
        self.max_length = min(max_length, getattr(model.config, "max_position_embeddings", None) or max_length)
        self._encoder = ChatEncoder(tokenizer)
        self._batcher = Batcher(model, batch)

    @classmethod
    def load(cls, label: str, name: str, config: Config) -> "TransformersEngine":
        """The engine of weights named as for `weights.load`; takes seconds.

        Raises:
            ConfigError, MissingPart: as `weights.load`, or as the constructor.
        """
        model, tokenizer = weights.load(name, dtype=weights.compute_dtype(config.student.dtype))
        return cls(label, model, tokenizer, batch=config.serve.batch, max_length=config.serve.max_length)

    @property
    def label(self) -> str:
        return self._label

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The reply in pieces.

        Raises:
            RequestRefused: it leaves no room for a reply, or there is nothing to answer.
            EngineFailed: the model has failed, or was unloaded.
        """
        tools = () if prompt.tool_choice == "none" else prompt.tools
        # A long conversation takes seconds, in which others are to be answered.
        ids = await asyncio.to_thread(render, self._encoder, prompt, self.max_length)
        most = min(prompt.sampling.max_new_tokens, self.max_length - len(ids))
        sampling = replace(prompt.sampling, max_new_tokens=most)
        reader = Reader(self._encoder, len(ids), sampling, tools)
        asked = Asked(ids, sampling, ends_of(self._encoder), asyncio.get_running_loop())
        self._batcher.submit(asked)
        try:
            finished = False
            while not finished:
                token = await asked.tokens.get()
                if isinstance(token, Exception):
                    raise token
                piece = reader.read(token)
                finished = piece.finish is not None
                if piece.text or finished:
                    yield piece
        finally:
            asked.cancelled = True

    async def check(self) -> None:
        await said_something(self)

    async def close(self) -> None:
        await asyncio.to_thread(self._batcher.close)


async def said_something(engine: Engine) -> None:
    """Have an engine say one token.

    Raises:
        EngineFailed: it does not.
    """
    prompt = Prompt((ChatMessage("user", "Hello"),), Sampling(max_new_tokens=1))
    try:
        async with asyncio.timeout(CHECK):
            async for _ in engine.generate(prompt):
                pass
    except TimeoutError:
        raise EngineFailed(f"{engine.label} has not said anything within {CHECK:g} s") from None


def render(encoder: ChatEncoder, prompt: Prompt, max_length: int) -> list[int]:
    """The prompt as tokens, up to where the assistant starts.

    Raises:
        RequestTooLong: it leaves no room for a reply within `max_length`.
        RequestRefused: there is nothing to answer.
    """
    tools = () if prompt.tool_choice == "none" else prompt.tools
    messages = conversation(prompt.messages, tools)
    check_length((message.content for message in messages), max_length)
    ids = encoder.conversation(messages, tools)
    if len(ids) >= max_length:
        raise RequestTooLong(
            f"this model's maximum context length is {max_length} tokens, with the reply; the messages have {len(ids)}"
        )
    return ids


def check_kind(config: "PretrainedConfig") -> None:
    """Raises ConfigError: some layer of the model does not attend to everything before, as all do in a Llama."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds != {"full_attention"} or (window and not getattr(config, "layer_types", None)):
        raise ConfigError(
            f"a model of type {config.model_type} with layers of another kind than full attention cannot be served by "
            'engine = "transformers"; serve it with vLLM and set serve.engine = "upstream"'
        )

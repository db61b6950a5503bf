"""What the engines share that sample a student's tokens: from a request to tokens, and from tokens to text."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from tutelage.errors import RequestTooLong, TutelageError
from tutelage.serving.limits import check_length
from tutelage.serving.reading import Reader
from tutelage.serving.rendering import conversation
from tutelage.serving.types import ChatMessage, Piece, Prompt, Sampling
from tutelage.training.chat import ChatEncoder
from tutelage.types import Tool

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CHECK = 120.0
"""Seconds for a version to say its first word, on a machine that may be busy."""


class EngineFailed(TutelageError):
    """The model could not go on with a request; others may be fine."""


class StudentEngine(ABC):
    """A version of the student whose tokens are sampled by `sample`.

    Args:
        label: which version, e.g. ``student@3``.
        max_length: tokens of a conversation with its reply.
    """

    def __init__(self, label: str, encoder: ChatEncoder, max_length: int) -> None:
        self.label = label
        self.encoder = encoder
        self.max_length = max_length

    @abstractmethod
    def sample(self, ids: list[int], sampling: Sampling) -> AsyncGenerator[int, None]:
        """Tokens one by one, until whoever asks has enough and closes it; `max_new_tokens` at most.

        Raises:
            EngineFailed: the model has failed, or was unloaded.
        """

    @abstractmethod
    async def close(self) -> None:
        """Free what it holds; nothing is under way any more."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The reply in pieces.

        Raises:
            RequestRefused: it leaves no room for a reply, or there is nothing to answer.
            EngineFailed: the model has failed, or was unloaded.
        """
        tools = () if prompt.tool_choice == "none" else prompt.tools
        # A long conversation takes seconds, in which others are to be answered.
        ids = await asyncio.to_thread(render, self.encoder, prompt.messages, tools, self.max_length)
        sampling = replace(
            prompt.sampling, max_new_tokens=min(prompt.sampling.max_new_tokens, self.max_length - len(ids))
        )
        reader = Reader(self.encoder, len(ids), sampling, tools)
        async with aclosing(self.sample(ids, sampling)) as tokens:
            async for token in tokens:
                piece = reader.read(token)
                if piece.text or piece.finish:
                    yield piece
                if piece.finish:
                    return

    async def check(self) -> None:
        """Have it say one token.

        Raises:
            EngineFailed: it does not.
        """
        prompt = Prompt((ChatMessage("user", "Hello"),), Sampling(max_new_tokens=1))
        try:
            async with asyncio.timeout(CHECK):
                async for _ in self.generate(prompt):
                    pass
        except TimeoutError:
            raise EngineFailed(f"{self.label} has not said anything within {CHECK:g} s") from None


def tokens_at_most(model: "PretrainedConfig", max_length: int) -> int:
    """Tokens of a conversation with its reply: what is configured, or the fewer that the model takes."""
    return min(max_length, getattr(model, "max_position_embeddings", None) or max_length)


def render(encoder: ChatEncoder, messages: Sequence[ChatMessage], tools: Sequence[Tool], max_length: int) -> list[int]:
    """A conversation as tokens, up to where the assistant starts.

    Raises:
        RequestTooLong: it leaves no room for a reply within `max_length`.
        RequestRefused: there is nothing to answer.
    """
    spoken = conversation(messages, tools)
    check_length((message.content for message in spoken), max_length)
    ids = encoder.conversation(spoken, tools)
    if len(ids) >= max_length:
        raise RequestTooLong(
            f"this model's maximum context length is {max_length} tokens, with the reply; the messages have {len(ids)}"
        )
    return ids

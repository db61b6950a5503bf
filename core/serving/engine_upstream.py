"""Any OpenAI-compatible server or provider behind the endpoint, through LiteLLM."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from tutelage import tools as tooling
from tutelage.completion import MAX_REPLY, clean, is_embedded, litellm
from tutelage.errors import ConfigError, PolicyFailed, RequestRefused, TutelageError
from tutelage.serving.errors import wordless
from tutelage.serving.types import ChatMessage, Finish, Piece, Prompt, Sampling, TokenCount, ToolCall

REFUSED = (400, 413, 422)
"""Statuses by which the upstream says that the request is to blame."""
FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class UpstreamEngine:
    """Passes requests on.

    Args:
        model: LiteLLM model string.
        timeout: seconds without a piece of the reply.

    Raises:
        ConfigError: the model answers by rule, in this process, and cannot stream.
    """

    def __init__(self, model: str, *, timeout: float) -> None:
        if is_embedded(model):
            raise ConfigError(f"serve.upstream cannot be {model}, which answers by rule and knows no conversations")
        self._model, self._timeout = model, timeout

    @property
    def label(self) -> str:
        return self._model

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The reply in pieces; calls come together in one, before the last.

        Raises:
            RequestRefused: the upstream blames the request.
            PolicyFailed: it fails, is not there, or sends more than `MAX_REPLY` characters. That is logged, and so has
                none of the upstream's words, which may quote the request.
        """
        async with aclosing(self._pieces(prompt, wordless)) as pieces:  # left early, the connection ends with it
            async for piece in pieces:
                yield piece

    async def check(self) -> None:
        """Ask for one token; what the upstream says then is about a request of ours, and is told in full."""
        async for _ in self._pieces(Prompt((ChatMessage("user", "Hello"),), Sampling(max_new_tokens=1)), _in_full):
            pass

    async def close(self) -> None:
        """Nothing is held."""

    async def _pieces(self, prompt: Prompt, told: Callable[[Exception], str]) -> AsyncGenerator[Piece, None]:
        size, calls, finish, tokens = 0, Calls(), None, None
        try:
            stream = await self._send(prompt)
            try:
                while (chunk := await self._next(stream)) is not None:
                    tokens = _count(chunk) or tokens
                    for choice in getattr(chunk, "choices", None) or ():
                        text, more = choice.delta.content or "", getattr(choice.delta, "tool_calls", None) or ()
                        size += len(text) + calls.add(more)
                        finish = choice.finish_reason or finish
                        if size > MAX_REPLY:
                            raise PolicyFailed(f"{self._model}: the reply has more than {MAX_REPLY} characters")
                        if text:
                            yield Piece(text=text)
            finally:
                await _close(stream)
        except TutelageError:
            raise
        except TimeoutError:
            raise PolicyFailed(f"{self._model}: nothing came for {self._timeout:g} s") from None
        except Exception as error:  # nothing of ours runs in there: it is the upstream's, or LiteLLM's view of it
            if getattr(error, "status_code", 0) in REFUSED:
                raise RequestRefused(f"{self._model}: {_in_full(error)}") from None
            raise PolicyFailed(f"{self._model}: {told(error)}") from None
        whole = calls.whole()
        if whole:
            yield Piece(calls=whole)
        yield Piece(
            finish="tool_calls" if whole else FINISHES.get(str(finish), "stop"), tokens=tokens or TokenCount(0, 0)
        )

    async def _send(self, prompt: Prompt) -> Any:
        module = await asyncio.to_thread(litellm)  # importing it takes seconds
        async with asyncio.timeout(self._timeout):
            return await module.acompletion(
                model=self._model, timeout=self._timeout, max_retries=0, drop_params=True, **request(prompt)
            )

    async def _next(self, stream: Any) -> Any:
        """The next piece; None at the end."""
        async with asyncio.timeout(self._timeout):
            return await anext(aiter(stream), None)


class Calls:
    """Puts tool calls together that come in pieces."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}

    def add(self, deltas: Any) -> int:
        """Returns the number of characters that were added."""
        added = 0
        for delta in deltas:
            place = delta.index if isinstance(getattr(delta, "index", None), int) else len(self._parts)
            call = self._parts.setdefault(place, ["", "", ""])
            new = (delta.id or "", delta.function.name or "", delta.function.arguments or "")
            call[0] = call[0] or new[0]
            call[1] += new[1]
            call[2] += new[2]
            added += sum(map(len, new))
        return added

    def whole(self) -> tuple[ToolCall, ...]:
        """All of them, in order."""
        return tuple(
            ToolCall(call_id or f"call_{place}", name, arguments or "{}")
            for place, (call_id, name, arguments) in sorted(self._parts.items())
        )


def request(prompt: Prompt) -> dict[str, Any]:
    """A prompt as arguments of `litellm.acompletion`."""
    sampling = prompt.sampling
    found: dict[str, Any] = {
        "messages": [_message(message) for message in prompt.messages],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        found["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        found["seed"] = sampling.seed
    if prompt.tools:
        named = prompt.tool_choice not in ("auto", "none", "required")
        choice = {"type": "function", "function": {"name": prompt.tool_choice}} if named else prompt.tool_choice
        found |= {"tools": tooling.to_openai(prompt.tools), "tool_choice": choice}
    return found


def _message(message: ChatMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        found["content"] = message.content or None
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.role == "tool":
        found["tool_call_id"] = message.call_id
    return found


def _count(chunk: Any) -> TokenCount | None:
    used = getattr(chunk, "usage", None)
    return TokenCount(used.prompt_tokens or 0, used.completion_tokens or 0) if used else None


async def _close(stream: Any) -> None:
    """End the connection, so that the upstream stops generating."""
    inner = getattr(stream, "completion_stream", None)
    closing = getattr(inner, "close", None) or getattr(inner, "aclose", None)
    if closing is not None:
        await closing()


def _in_full(error: Exception) -> str:
    return clean(str(error) or type(error).__name__)

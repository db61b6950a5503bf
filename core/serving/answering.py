"""From a request that was understood to its reply: memory before, guardrails after, the student in between."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from tutelage.serving.offered import Read, read
from tutelage.serving.types import (
    Answer,
    Assist,
    Blocked,
    Chat,
    ChatMessage,
    Engine,
    Finish,
    Piece,
    Prepared,
    Prompt,
    Students,
    TokenCount,
    ToolCall,
)

FREE = ("auto", "none", "required")
"""Choices that name no tool."""


@dataclass(frozen=True)
class Begun:
    """Which version answers; comes before the pieces."""

    student: str


@dataclass(frozen=True)
class Whole:
    """How it ended; comes after the pieces."""

    prepared: Prepared
    answer: Answer


Event = Begun | Piece | Whole


@dataclass
class _Said:
    """What an engine has said so far."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    tokens: TokenCount = field(default_factory=lambda: TokenCount(0, 0))

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.calls += piece.calls
        self.finish = piece.finish or self.finish
        self.tokens = piece.tokens or self.tokens


async def reply(
    chat: Chat, assist: Assist, students: Students, *, retries: int, most_calls: int = 0
) -> AsyncGenerator[Event, None]:
    """The reply as it comes; where calls are possible, only when it has ended and was checked.

    Closing the generator ends the generation.

    Args:
        retries: how often a reply is asked for anew that a guardrail forbids, or that lacks the call asked for.
        most_calls: how many calls of a reply are sent; 0: all.

    Raises:
        RequestRefused: it cannot be answered as asked.
        UnknownName: the model is not served.
        TutelageError: memory or the student does not work.
    """
    async with students.engine(chat.model) as engine:
        prepared = await asyncio.to_thread(assist.prepare, chat)
        yield Begun(engine.label)
        if chat.prompt.tools and chat.prompt.tool_choice != "none":
            answer = await _checked(prepared, assist, engine, retries, most_calls)
            if answer.text:
                yield Piece(answer.text)
            if answer.calls:
                yield Piece(calls=answer.calls)
        else:
            said = _Said()
            async with _pieces(engine, prepared.prompt) as pieces:
                async for piece in pieces:
                    said.add(piece)
                    if piece.text:
                        yield Piece(piece.text)
            # An engine may want calls made that nobody asked for; they are not sent, so the reply just ends.
            finish: Finish = "stop" if said.finish == "tool_calls" else said.finish
            answer = Answer(engine.label, said.text, (), finish, said.tokens, prepared.shown)
        yield Piece(finish=answer.finish, tokens=answer.tokens)
    yield Whole(prepared, answer)


async def _checked(prepared: Prepared, assist: Assist, engine: Engine, retries: int, most: int) -> Answer:
    """A reply whose calls may all be made; without one, the refusal of the guardrail that stood in the way."""
    prompt, blocked, spent, refusal = prepared.prompt, list[str](), TokenCount(0, 0), ""
    choice = prompt.tool_choice
    only = "" if choice in FREE else choice

    def answer(text: str, calls: tuple[ToolCall, ...], finish: Finish) -> Answer:
        return Answer(engine.label, text, calls, finish, spent, prepared.shown, tuple(blocked))

    for left in range(retries, -1, -1):
        said = await _whole(engine, prompt)
        spent = TokenCount(spent.prompt + said.tokens.prompt, spent.completion + said.tokens.completion)
        # A reply that was cut off may end within a call that only looks whole.
        cut = said.finish not in ("stop", "tool_calls")
        found = Read(said.text) if cut else await asyncio.to_thread(_read, said, prompt, only, most)
        if not found.calls:
            if left and not cut and choice != "auto":
                prompt = _insisted(prompt, found, only)
                continue
            return answer(found.text, (), "stop" if said.finish == "tool_calls" else said.finish)
        forbidden = await asyncio.to_thread(assist.blocked, prepared, found.calls)
        if forbidden is None:
            return answer(found.text, found.calls, "tool_calls")
        blocked.append(forbidden.guardrail)
        prompt, refusal = _warned(prompt, found, forbidden), forbidden.refusal
    return answer(refusal, (), "content_filter")


def _read(said: _Said, prompt: Prompt, only: str, most: int) -> Read:
    return read(said.text, said.calls, prompt.tools, only=only, most=most)


async def _whole(engine: Engine, prompt: Prompt) -> _Said:
    said = _Said()
    async with _pieces(engine, prompt) as pieces:
        async for piece in pieces:
            said.add(piece)
    return said


def _pieces(engine: Engine, prompt: Prompt) -> "aclosing[AsyncGenerator[Piece, None]]":
    """The pieces of a reply, whose generation ends when they are left."""
    return aclosing(_closable(engine.generate(prompt)))


async def _closable(pieces: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
    try:
        async for piece in pieces:
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _warned(prompt: Prompt, found: Read, blocked: Blocked) -> Prompt:
    """The prompt with the forbidden reply and, as what came of it, why it is forbidden."""
    note = [ChatMessage("tool", blocked.note, call_id=call.id) for call in found.calls]
    said = ChatMessage("assistant", found.text, found.calls)
    return replace(prompt, messages=(*prompt.messages, said, *note))


def _insisted(prompt: Prompt, found: Read, only: str) -> Prompt:
    """The prompt with a reply that lacks the call asked for, and the reminder of it."""
    wanted = f"Call {only}." if only else "Call one of the tools."
    said = ChatMessage("assistant", found.text)
    return replace(prompt, messages=(*prompt.messages, said, ChatMessage("user", f"{wanted} {found.problem}".strip())))

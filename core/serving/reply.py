"""Replies as OpenAI's clients read them: one JSON body, or server-sent events as they come."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tutelage.serving import schemas
from tutelage.serving.answering import Begun, Event, Whole
from tutelage.serving.errors import as_answer
from tutelage.serving.offered import Names
from tutelage.serving.types import Answer, Chat, TokenCount, ToolCall

SEND_SECONDS = 60.0
"""How long a client may leave a piece of its reply unread."""

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class _Unread(Exception):
    """The client does not read its reply."""


class ChatReply(Response):
    """Generates the reply while it is sent; a client that leaves ends the generation.

    Nothing is sent before the first piece is there, so that what goes wrong until then has a status of its own.
    """

    def __init__(
        self,
        chat: Chat,
        events: AsyncGenerator[Event, None],
        names: Names,
        done: Callable[[Whole], None],
        *,
        created: int,
        stream: bool,
        usage: bool,
    ) -> None:
        """
        Args:
            done: called when the reply was sent whole.
            created: seconds since 1970.
            usage: whether the tokens are told at the end of a stream.
        """
        super().__init__()
        self._chat = chat
        self._events = events
        self._names = names
        self._done = done
        self._created = created
        self._stream = stream
        self._usage = usage
        self._started = self._sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Any) -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError as error:
                raise _Unread from error

        work = asyncio.create_task(self._reply(bounded))
        gone = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not self._sent:
                work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _reply(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                whole = await (self._streamed(events, send) if self._stream else self._at_once(events, send))
            except _Unread:
                return
            except Exception as error:
                problem = as_answer(error, self._chat.model)
                if not self._started:
                    raise problem from error
                # Too late for a status; without the closing event, clients see that it is not whole.
                await send(_part(_event(problem.body)))
                await send(_part(b"", more=False))
                return
        self._done(whole)

    async def _at_once(self, events: AsyncGenerator[Event, None], send: Send) -> Whole:
        async for event in events:
            if isinstance(event, Whole):
                body = _dumped(completion(self._chat.id, self._created, event.answer, self._names)).encode()
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send(_part(body, more=False))
                self._sent = True
                return event
        raise AssertionError("a reply ends with the whole of it")

    async def _streamed(self, events: AsyncGenerator[Event, None], send: Send) -> Whole:
        student = ""
        async for event in events:
            if isinstance(event, Begun):
                student = event.student
                continue
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
                await self._chunk(send, student, {"role": "assistant", "content": ""})
            if isinstance(event, Whole):
                await self._end(send, event.answer)
                self._sent = True
                return event
            if event.text:
                await self._chunk(send, student, {"content": event.text})
            if event.calls:
                listed = [{"index": n, **call} for n, call in enumerate(made_calls(event.calls, self._names))]
                await self._chunk(send, student, {"tool_calls": listed})
        raise AssertionError("a reply ends with the whole of it")

    async def _end(self, send: Send, answer: Answer) -> None:
        await self._chunk(send, answer.student, {}, finish=answer.finish, tutelage=around(answer))
        if self._usage:
            last = {**self._head(answer.student), "choices": [], "usage": counted(answer.tokens)}
            await send(_part(_event(last)))
        await send(_part(b"data: [DONE]\n\n", more=False))

    async def _chunk(
        self, send: Send, student: str, delta: dict[str, Any], finish: str | None = None, **more: Any
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._usage else {}
        await send(_part(_event({**self._head(student), "choices": [choice], **usage, **more})))

    def _head(self, student: str) -> dict[str, Any]:
        return {
            "id": self._chat.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": student,
        }


def completion(id: str, created: int, answer: Answer, names: Names) -> dict[str, Any]:
    """The body of a whole reply."""
    calls = made_calls(answer.calls, names)
    message = {
        "role": "assistant",
        "content": answer.text if answer.text or not calls else None,
        "refusal": None,
        **({"tool_calls": calls} if calls else {}),
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": answer.student,
        "choices": [choice],
        "usage": counted(answer.tokens),
        "tutelage": around(answer),
    }


def made_calls(calls: Sequence[ToolCall], names: Names) -> list[dict[str, Any]]:
    """Calls as a message has them, with the names that the caller gave its tools."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": names.outside(call.name), "arguments": call.arguments},
        }
        for call in calls
    ]


def counted(tokens: TokenCount) -> dict[str, int]:
    """Usage as OpenAI says it."""
    total = tokens.prompt + tokens.completion
    return {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion, "total_tokens": total}


def around(answer: Answer) -> dict[str, Any]:
    """What was done around the reply."""
    shown = [schemas.ShownExperience(id=item.id, version=item.version) for item in answer.shown]
    found = schemas.Around(student=answer.student, shown=shown, blocked=list(answer.blocked))
    return found.model_dump()


async def _left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {_dumped(data)}\n\n".encode()


def _dumped(data: dict[str, Any]) -> str:
    """JSON in ASCII: half a character that a student wrote can be sent, and no text looks like the end of a line."""
    return json.dumps(data, separators=(",", ":"))

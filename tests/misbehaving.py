"""A real HTTP server that plays a language model's provider and does whatever providers do wrong, on demand.

It speaks OpenAI's format under ``/v1/chat/completions`` and Anthropic's under ``/v1/messages``.
"""

import json
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from time import time
from typing import Any

FINE = "fine"
HUGE = 10_000_000
"""Characters of the huge reply."""
PAUSE = 0.05
"""Seconds between two bytes of a slow answer."""
HELD = 10.0
"""Seconds after which a hung or slow answer ends by itself; closing the server ends it at once."""


class Misbehaving:
    """Answers every request with the next of the faults that `play` was given, and well when they are used up.

    `seen` holds (fault, request body) of every request that arrived, in order; `faults` are the names of all there are.
    """

    def __init__(self) -> None:
        self.say: Callable[[str], str] = lambda text: f"you said {text}"
        """What a good answer says to the text of the last message."""
        self.faults = tuple(FAULTS)
        self.busy = 0.0
        """Seconds ahead of the date until which it says it is busy."""
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.closing = Event()
        self._faults: Iterator[str] = iter(())
        self._lock = Lock()
        outer = self

        class Handler(_Handler):
            server_side = outer

        self._http = _Server(("127.0.0.1", 0), Handler)
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def play(self, faults: Iterable[str] = ()) -> None:
        """Forget what was seen; these are next, in the order in which requests come."""
        with self._lock:
            self._faults = iter(faults)
            self.seen.clear()

    def take(self, body: dict[str, Any]) -> str:
        with self._lock:
            fault = next(self._faults, FINE)
            self.seen.append((fault, body))
            return fault

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up on a misbehaving server is right to."""


class _Handler(BaseHTTPRequestHandler):
    server_side: Misbehaving

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        FAULTS[self.server_side.take(self.body)](self)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def send(self, body: bytes | str, status: int = 200, *, length: int | None = None, **headers: str) -> None:
        """`length`: what is claimed, if not the truth."""
        raw = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"content_type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(raw) if length is None else length))
        self.end_headers()
        self.wfile.write(raw)

    def error(self, status: int, message: str = "no", **headers: str) -> None:
        self.send(json.dumps({"type": "error", "error": {"type": "x", "message": message}}), status, **headers)

    def answer(self, text: str | None = None, **changes: Any) -> str:
        """A whole answer as JSON; `changes` replace fields of the (only) choice, or of an Anthropic message."""
        asked = self.body["messages"][-1]["content"]
        asked = asked if isinstance(asked, str) else str((asked or [{}])[-1].get("text", ""))
        text = self.server_side.say(asked) if text is None else text
        model = self.body["model"]
        if self.anthropic:
            usage = {"input_tokens": 4, "output_tokens": 5, "cache_read_input_tokens": 6}
            message = {"id": "1", "type": "message", "role": "assistant", "model": model, "usage": usage}
            content = [{"type": "text", "text": text}]
            return json.dumps({**message, "content": content, "stop_reason": "end_turn", **changes})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **changes}
        details = {"cached_tokens": 6}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": details}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps({**whole, "choices": [choice], "usage": usage})

    @property
    def anthropic(self) -> bool:
        return self.path.endswith("/messages")

    def reset(self) -> None:
        """Close so that the other side sees a reset, not an end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def drip(self, raw: bytes) -> None:
        for place in range(int(HELD / PAUSE)):
            self.wfile.write(raw[place : place + 1])
            if self.server_side.closing.wait(PAUSE):
                break
        self.close_connection = True


def _short(handler: _Handler) -> None:
    """A connection that ends before the promised length."""
    whole = handler.answer()
    handler.send(whole[: len(whole) // 2], length=len(whole))
    handler.close_connection = True


def _reset_midway(handler: _Handler) -> None:
    handler.send(handler.answer()[:40], length=4000)
    handler.reset()


def _drip(handler: _Handler) -> None:
    handler.send("", length=4000)
    handler.drip(b" " * 4000)


def _hang(handler: _Handler) -> None:
    handler.server_side.closing.wait(HELD)
    handler.close_connection = True


def _endless(handler: _Handler) -> None:
    """Gigabytes, as fast as they are taken."""
    handler.send("", length=2**40)
    while not handler.server_side.closing.is_set():
        handler.wfile.write(b" " * 2**20)


def _calls(handler: _Handler, name: str, arguments: str) -> None:
    if handler.anthropic:
        given = {"type": "tool_use", "id": "c1", "name": name, "input": arguments}
        handler.send(handler.answer(content=[given], stop_reason="tool_use"))
    else:
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        handler.send(handler.answer(message=message, finish_reason="tool_calls"))


def _empty(handler: _Handler) -> None:
    if handler.anthropic:
        handler.send(handler.answer(content=[]))
    else:
        handler.send(json.dumps({**json.loads(handler.answer()), "choices": []}))


def _null(handler: _Handler) -> None:
    if handler.anthropic:
        handler.send(handler.answer(content=None))
    else:
        handler.send(handler.answer(message={"role": "assistant", "content": None}))


def _unpriced(handler: _Handler) -> None:
    """An answer that does not say what it cost, in OpenAI's format."""
    answer = json.loads(handler.answer())
    del answer["usage"]
    handler.send(json.dumps(answer))


def _busy_until(handler: _Handler) -> None:
    until = time() + handler.server_side.busy
    handler.error(429, "slow down", retry_after=formatdate(until, usegmt=True))


def _refusal(handler: _Handler) -> None:
    if handler.anthropic:
        handler.send(handler.answer("I will not.", stop_reason="refusal"))
    else:
        handler.send(handler.answer(message={"role": "assistant", "content": None, "refusal": "I will not."}))


def _status(status: int, message: str = "no", **headers: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.error(status, message, **headers)


def _said(text: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.send(handler.answer(text))


FAULTS: dict[str, Callable[[_Handler], None]] = {
    FINE: lambda handler: handler.send(handler.answer()),
    "400": _status(400, "unknown parameter"),
    "429": _status(429, "slow down"),
    "429 for seconds": _status(429, "slow down", retry_after="0.2"),
    "429 until a date": _busy_until,
    "429 for nonsense": _status(429, "slow down", retry_after="soon"),
    "500": _status(500, "internal error"),
    "503": _status(503, "overloaded"),
    "529": _status(529, "overloaded"),
    "502 page": lambda handler: handler.send("<html><h1>Bad gateway</h1></html>", 502, content_type="text/html"),
    "reset": lambda handler: handler.reset(),
    "reset midway": _reset_midway,
    "hang": _hang,
    "slow drip": _drip,
    "slow headers": lambda handler: handler.drip(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 4000),
    "truncated": lambda handler: handler.send(handler.answer()[:-30]),
    "short": _short,
    "wrong schema": lambda handler: handler.send('{"answer": "yes", "choices": {"a": 1}, "content": 3}'),
    "not an object": lambda handler: handler.send("[1, 2]"),
    "deep": lambda handler: handler.send('{"choices": ' + "[" * 50_000),
    "empty choice": _empty,
    "null content": _null,
    "no usage": _unpriced,
    "refusal": _refusal,
    "filtered": lambda handler: handler.send(
        handler.answer(stop_reason="refusal") if handler.anthropic else handler.answer(finish_reason="content_filter")
    ),
    "wrong tool": lambda handler: _calls(handler, "launch_rocket", '{"to": "moon"}'),
    "broken arguments": lambda handler: _calls(handler, "read", '{"path": '),
    "10 MB": _said("x" * HUGE),
    "endless": _endless,
    "invalid UTF-8": lambda handler: handler.send(handler.answer("\x00").encode().replace(b"\\u0000", b"\xff\xfe")),
    "lone surrogate": _said("a \ud800 b"),
    "wrong type": lambda handler: handler.send(handler.answer(), content_type="text/plain"),
    "page": lambda handler: handler.send("<html>We are down</html>", content_type="text/html"),
    "roles must alternate": _status(400, "Conversation roles must alternate user/assistant/user/assistant/..."),
}
"""What can go wrong, by name."""

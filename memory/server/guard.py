"""What stands before both interfaces: who may connect, who is asking, how much may be sent."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.requests import Request

from tutelage.memory.server.auth import Caller, Tokens, is_loopback
from tutelage.memory.server.schemas import MAX_BODY

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CALLER = "tutelage.caller"
"""Key of the connection's scope that holds the `Caller`."""
OPEN = frozenset({"/health"})
"""Paths that need no token."""
BODY_SECONDS = 30.0
"""How long a client may take to send a request's body."""

_LOG = logging.getLogger(__name__)


def asking(request: Request) -> Caller:
    """Who sent a request that the `Guard` let in; for FastAPI to depend on."""
    found: Caller = request.scope[CALLER]
    return found


class Refuse(Protocol):
    """Sends a whole answer that says what went wrong, in the form of one server."""

    async def __call__(self, send: Send, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        """Send it with these headers besides those that every answer has."""


class Guard:
    """An ASGI application around another one.

    A page in a browser on this machine can send requests to loopback, also under a name of its own that it lets
    point there. So on loopback the `Host` and, where there is one, the `Origin` must be loopback's too. Beyond
    loopback a token does the same: no browser adds it by itself.
    """

    def __init__(
        self,
        app: App,
        *,
        tokens: Tokens | None,
        anyone: Caller | None,
        loopback: bool,
        body_bytes: int = MAX_BODY,
        refuse: Refuse | None = None,
    ) -> None:
        """
        Args:
            tokens: who may come in.
            anyone: who everybody is where there are no tokens.
            loopback: whether to refuse what is not addressed to this machine under its own name.
            body_bytes: what the body of a request may have at most.
            refuse: how the server says what went wrong; default: `answer`.

        Raises:
            ValueError: neither or both of `tokens` and `anyone` are given, or no tokens beyond loopback.
        """
        if (tokens is None) is (anyone is None) or (tokens is None and not loopback):
            raise ValueError("a server has either tokens or, on loopback only, one caller for all")
        self._app = app
        self._tokens = tokens
        self._anyone = anyone
        self._loopback = loopback
        self._body_bytes = body_bytes
        self._refuse: Refuse = refuse or answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no web sockets here; the server answers 403 for the one that closed without a word
        headers = _headers(scope)
        if self._loopback and not _addressed_to_loopback(headers):
            await self._refuse(send, 421, "misdirected", "this server answers to loopback addresses only")
            return
        if scope["path"] not in OPEN:
            caller = self._caller(headers)
            if caller is None:
                challenge = (b"www-authenticate", b"Bearer")
                await self._refuse(
                    send, 401, "unauthenticated", "a valid token is needed: Authorization: Bearer …", challenge
                )
                return
            scope[CALLER] = caller
        if _has_body(headers) and not _is_json(headers):
            await self._refuse(send, 415, "unsupported", "the body must be application/json")
            return
        received = await self._whole_body(headers, receive, send)
        if received is not None:
            await self._app(scope, received, send)

    def _caller(self, headers: dict[str, str]) -> Caller | None:
        if self._tokens is None:
            return self._anyone
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        return self._tokens.caller(secret.strip()) if scheme.lower() == "bearer" else None

    async def _whole_body(self, headers: dict[str, str], receive: Receive, send: Send) -> Receive | None:
        """Take the body in before anything looks at it; None if it was refused and the client told so."""
        too_large = f"a request may have {self._body_bytes} bytes at most"
        declared = headers.get("content-length", "0")
        if not declared.isdigit() or int(declared[:20]) > self._body_bytes:
            await self._refuse(send, 413, "too_large", too_large)
            return None
        body, last = bytearray(), None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while last is None or (last["type"] == "http.request" and last.get("more_body", False)):
                    last = await receive()
                    body += last.get("body", b"")
                    if len(body) > self._body_bytes:
                        await self._refuse(send, 413, "too_large", too_large)
                        return None
        except TimeoutError:
            await self._refuse(send, 408, "timeout", f"the body did not come within {BODY_SECONDS:.0f} seconds")
            return None
        if last["type"] != "http.request":
            return None  # the client has gone
        first: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed() -> Message:
            return first.pop() if first else await receive()

        return replayed


async def answer(send: Send, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
    """A whole answer that says what went wrong, in the same form everywhere."""
    body = json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False).encode()
    length = (b"content-length", str(len(body)).encode())
    start = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """Of those that are given twice, what a header means is unclear: they are joined, and then fit nothing."""
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _addressed_to_loopback(headers: dict[str, str]) -> bool:
    origin = headers.get("origin")
    return _names_loopback(f"//{headers.get('host', '')}") and (origin is None or _names_loopback(origin))


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback((urlsplit(url).hostname or "").removesuffix("."))
    except ValueError:
        return False


def _has_body(headers: dict[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(headers: dict[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

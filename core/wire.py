"""What an attempt at a call is held to on its way through LiteLLM: one request, one answer of bounded size, and a
deadline for all of it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import cache
from threading import Lock, Thread, local
from types import ModuleType
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

MAX_BODY = 32_000_000
"""Bytes of an answer, as they come over the wire."""

MAX_LEFT = 64
"""Calls that were given up and have not come back, at most; more are not begun."""


class Again(BaseException):
    """LiteLLM was about to send a second request within one attempt, as it does where a server complains about the
    order of roles. Not an `Exception`, since the clients in between would try that again."""


class Endless(BaseException):
    """The answer is longer than `MAX_BODY`; not an `Exception` for the same reason."""


class Late(Exception):
    """No whole answer in time."""


_left: set[Thread] = set()
_left_lock = Lock()
_mine = local()
"""Of the work in this thread: `.urls` that requests were sent to, and `.until` when it has time."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, run in a thread of its own and given up after `seconds`.

    No read timeout of a client guarantees that: a server that sends a byte now and then never lets it expire. The
    thread of a call that was given up ends with its connection, or with the next piece of its answer; there are never
    more than `MAX_LEFT` of them.

    Raises:
        Late: given up, or not begun since too many others hang.
    """
    with _left_lock:
        _left.difference_update([thread for thread in _left if not thread.is_alive()])
        if len(_left) >= MAX_LEFT:
            raise Late(f"{MAX_LEFT} earlier calls were given up and still hang")
    future: Future[T] = Future()

    def run() -> None:
        _mine.urls, _mine.until = [], time.monotonic() + seconds
        try:
            future.set_result(work())
        except BaseException as error:  # whatever it is belongs to the thread that waits for it
            future.set_exception(error)

    thread = Thread(target=run, name="llm call", daemon=True)
    thread.start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise
        with _left_lock:
            _left.add(thread)
        raise Late(f"no whole answer within {seconds:g} s") from None


def hold_openai(litellm: ModuleType) -> None:
    """Have LiteLLM's client for OpenAI's format keep to the rules of `within`."""
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    client = BaseOpenAILLM._get_sync_http_client()  # with LiteLLM's settings of certificates and proxies
    assert client is not None
    _hold(client)
    litellm.client_session = client  # type: ignore[attr-defined]


@cache
def anthropic_client() -> Any:
    """A client for Anthropic's format that keeps to the rules of `within`; LiteLLM takes it as an argument."""
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    handler = HTTPHandler()
    _hold(handler.client)
    return handler


def _hold(client: httpx.Client) -> None:
    client.event_hooks = {"request": [_once], "response": [_bounded]}


def _once(request: httpx.Request) -> None:
    urls = getattr(_mine, "urls", None)
    if urls is None:  # not one of ours
        return
    if str(request.url) in urls:
        raise Again
    urls.append(str(request.url))


def _bounded(response: httpx.Response) -> None:
    if hasattr(_mine, "until") and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream, _mine.until)


class _Bounded(httpx.SyncByteStream):
    """The bytes of an answer, up to `MAX_BODY` of them and until its time is over."""

    def __init__(self, inner: httpx.SyncByteStream, until: float) -> None:
        self._inner = inner
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._inner:
            size += len(part)
            if size > MAX_BODY:
                raise Endless
            if time.monotonic() > self._until:
                raise httpx.ReadTimeout("the answer came too slowly")
            yield part

    def close(self) -> None:
        self._inner.close()

"""What an attempt at a call is held to on its way through LiteLLM: one request, and a deadline for all of it."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread, local
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

MAX_LEFT = 64
"""Calls that were given up and have not come back, at most; more are not begun."""


class Again(BaseException):
    """LiteLLM was about to send a second request within one attempt, as it does where a server complains about the
    order of roles. Not an `Exception`, since the clients in between would try that again."""


class Late(Exception):
    """No whole answer in time."""


_left: set[Thread] = set()
_left_lock = Lock()
_sent = local()
"""`.urls`: where this thread has sent requests since its work began."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, run in a thread of its own and given up after `seconds`.

    No read timeout of a client guarantees that: a server that sends a byte now and then never lets it expire. The
    thread of a call that was given up ends with its connection; there are never more than `MAX_LEFT` of them.

    Raises:
        Late: given up, or not begun since too many others hang.
    """
    with _left_lock:
        _left.difference_update([thread for thread in _left if not thread.is_alive()])
        if len(_left) >= MAX_LEFT:
            raise Late(f"{MAX_LEFT} earlier calls were given up and still hang")
    future: Future[T] = Future()

    def run() -> None:
        _sent.urls = []
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


def hold_to_one_request(litellm: ModuleType) -> None:
    """Have LiteLLM's client for OpenAI's format refuse a second request to the same address within one `within`."""
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    client = BaseOpenAILLM._get_sync_http_client()  # with LiteLLM's settings of certificates and proxies
    assert client is not None
    client.event_hooks = {"request": [_once]}
    litellm.client_session = client  # type: ignore[attr-defined]


def _once(request: Any) -> None:
    urls = getattr(_sent, "urls", None)
    if urls is None:  # not one of ours
        return
    if str(request.url) in urls:
        raise Again
    urls.append(str(request.url))

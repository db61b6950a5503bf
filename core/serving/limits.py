"""How much may be asked: so many requests at once, so many per key and minute; and what was asked, counted."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tutelage.errors import RequestTooLong
from tutelage.memory.server.auth import Caller
from tutelage.memory.server.guard import CALLER, App, Message, Receive, Scope, Send
from tutelage.serving.errors import refuse
from tutelage.serving.types import Answer

CHAT = "/v1/chat/completions"
"""The path that is limited; all others are answered at once."""
CHARACTERS = 100
"""Per token that there is room for, at most; a longer text is too long without being counted."""


def check_length(texts: Iterable[str], max_length: int) -> None:
    """Raises RequestTooLong: a conversation of these texts has more than `max_length` tokens, whatever they say."""
    characters = sum(map(len, texts))
    if characters > CHARACTERS * max_length:
        raise RequestTooLong(
            f"this model's maximum context length is {max_length} tokens; the messages have {characters} characters"
        )


@dataclass
class Counts:
    """What the endpoint has done since it started; kept by one thread."""

    requests: Counter[int] = field(default_factory=Counter)
    """Chat requests by status."""
    under_way: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    blocked: int = 0
    """Replies that a guardrail held back."""
    given_up: int = 0
    """Chat requests whose client left, or that broke off."""

    def answered(self, answer: Answer) -> None:
        """Count a reply that was sent whole."""
        self.prompt_tokens += answer.tokens.prompt
        self.completion_tokens += answer.tokens.completion
        self.blocked += len(answer.blocked)

    def text(self) -> str:
        """As Prometheus reads it."""
        lines = ["# TYPE tutelage_chat_requests_total counter"]
        lines += [f'tutelage_chat_requests_total{{status="{key}"}} {n}' for key, n in sorted(self.requests.items())]
        for name, kind, value in (
            ("chat_under_way", "gauge", self.under_way),
            ("chat_given_up_total", "counter", self.given_up),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("completion_tokens_total", "counter", self.completion_tokens),
            ("guardrail_blocks_total", "counter", self.blocked),
        ):
            lines += [f"# TYPE tutelage_{name} {kind}", f"tutelage_{name} {value}"]
        return "\n".join(lines) + "\n"


class Buckets:
    """So many requests per key and minute, as many of them at once as come: a bucket of tokens per key."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            per_minute: 0 means no limit.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one token of a key; returns 0, or in how many seconds there is one."""
        if not self._per_minute:
            return 0.0
        now = self._clock()
        level, since = self._levels.get(key, (float(self._per_minute), now))
        level = min(self._per_minute, level + (now - since) * self._per_minute / 60)
        if level < 1:
            self._levels[key] = level, now
            return (1 - level) * 60 / self._per_minute
        self._levels[key] = level - 1, now
        return 0.0


class Limits:
    """An ASGI application around another one, behind `Guard`. Its requests are served by one event loop."""

    def __init__(self, app: App, counts: Counts, *, concurrency: int, per_minute: int) -> None:
        """
        Args:
            concurrency: chat requests under way at once, until their replies are sent.
            per_minute: chat requests per key and minute; 0 means no limit.
        """
        self._app = app
        self._counts = counts
        self._concurrency = concurrency
        self._buckets = Buckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CHAT or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        sending = _Sending(send, self._counts)
        try:
            await self._limited(scope, receive, sending)
        finally:
            sending.end()

    async def _limited(self, scope: Scope, receive: Receive, sending: "_Sending") -> None:
        if self._counts.under_way >= self._concurrency:
            busy = f"{self._concurrency} requests are under way, and no more are taken at once; come back in a second"
            await refuse(sending, 503, "overloaded", busy, (b"retry-after", b"1"))
            return
        caller: Caller = scope[CALLER]
        wait = math.ceil(self._buckets.take(caller.name))
        if wait:
            often = f"this key has used up its requests; the next one is possible in {wait} s"
            await refuse(sending, 429, "rate_limit_exceeded", often, (b"retry-after", str(wait).encode()))
            return
        sending.begin()
        await self._app(scope, receive, sending)


class _Sending:
    """Sends, and counts what is sent. A reply is under way until its last byte: a client that has it may come back
    before anything else happens here."""

    def __init__(self, send: Send, counts: Counts) -> None:
        self._send = send
        self._counts = counts
        self._status = self._held = 0
        self._whole = False

    def begin(self) -> None:
        self._counts.under_way += 1
        self._held = 1

    def end(self) -> None:
        """Nothing more will be sent."""
        self._let_go()
        if not self._whole:
            self._counts.given_up += 1

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._whole = True
            self._counts.requests[self._status] += 1
            self._let_go()

    def _let_go(self) -> None:
        self._counts.under_way -= self._held
        self._held = 0

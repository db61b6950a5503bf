"""What nobody can exceed or hold up: so many requests at once and a minute, so much text, so much patience."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from tutelage.memory.server import guard
from tutelage.serving import app, limits, reply, server
from tutelage.serving.limits import CHARACTERS, Buckets

Serve = Callable[..., Any]


def asked(text: str = "hello there", *more: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"model": "student", "messages": [{"role": "user", "content": text}, *more], **options}


def said(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"]


@given(
    per_minute=st.integers(1, 120),
    pauses=st.lists(st.floats(0, 90, allow_nan=False), max_size=200),
)
def test_never_more_than_a_bucket_and_what_came_since(per_minute: int, pauses: list[float]) -> None:
    now, taken = 0.0, 0
    buckets = Buckets(per_minute, clock=lambda: now)
    for pause in pauses:
        now += pause
        wait = buckets.take("ann")
        taken += wait == 0
        assert taken <= per_minute + now * per_minute / 60 + 1e-6
        if wait:
            now += wait + 1e-6
            assert buckets.take("ann") == 0, "it is let in when it was told to come back"
            taken += 1
    assert buckets.take("bob") == 0


def test_no_limit() -> None:
    assert all(Buckets(0).take("ann") == 0 for _ in range(1000))


def test_a_client_that_does_not_go_on_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(reply, "SEND_SECONDS", 0.2)
    serving = serve(["x" * 1_000_000] * 30)
    with serving.connection({}, length=100) as mute:
        assert b" 408 " in mute.recv(10_000)
    with serving.connection(asked(stream=True)):
        until(lambda: serving.student.ended == ["cut"])
    until(lambda: serving.answering.endpoint.counts.under_way == 0)
    assert serving.kept() == []


def test_so_many_at_once_and_so_many_a_minute(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "Buckets", partial(Buckets, clock=lambda: 0.0))
    serving = serve(concurrency=2, per_minute=4, keys={"ann": "a", "bob": "b"})
    serving.student.hold = threading.Event()
    counts = serving.answering.endpoint.counts
    with (
        serving.client(serving.key("ann")) as ann,
        serving.client(serving.key("bob")) as bob,
        ThreadPoolExecutor(2) as pool,
    ):
        held = [pool.submit(ann.post, "/v1/chat/completions", json=asked()) for _ in range(2)]
        until(lambda: counts.under_way == 2)
        busy = bob.post("/v1/chat/completions", json=asked())
        assert (said(busy), busy.headers["retry-after"]) == ((503, "overloaded"), "1")
        assert bob.get("/v1/models").status_code == 200
        serving.student.hold.set()
        assert [future.result().status_code for future in held] == [200, 200]
        statuses = [ann.post("/v1/chat/completions", json=asked()).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        late = ann.post("/v1/chat/completions", json=asked())
        assert said(late) == (429, "rate_limit_exceeded")
        assert late.headers["retry-after"] == "15"
        assert bob.post("/v1/chat/completions", json=asked()).status_code == 200
        metrics = bob.get("/metrics").text
    assert 'tutelage_chat_requests_total{status="200"} 5' in metrics
    assert 'tutelage_chat_requests_total{status="429"} 3' in metrics
    assert "tutelage_completion_tokens_total 10" in metrics
    assert {(chat.caller, chat.tenant) for chat, _ in serving.kept()} == {("ann", "a"), ("bob", "b")}


def test_what_is_too_long_for_any_reply_is_refused_before_anything_reads_it(serve: Serve) -> None:
    serving = serve(max_length=64)
    assert serving.chat("x" * CHARACTERS * 64).status_code == 200
    serving.assist.broken = AssertionError("it was read")
    assert said(serving.chat("x" * (CHARACTERS * 64 + 1))) == (400, "context_length_exceeded")


def closed(connection: socket.socket) -> bool:
    """Whether the server ends a connection without another word."""
    try:
        return connection.recv(10_000) == b""
    except ConnectionError:
        return True


def test_a_connection_that_asks_nothing_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    serving = serve()
    with serving.connection() as silent, serving.connection() as slow, serving.connection() as second:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came = b""
        while not came.endswith(b"}"):
            came += (part := second.recv(10_000))
            assert part
        second.sendall(b"GET /hea")
        time.sleep(0.1)
        with suppress(ConnectionError):  # on a busy machine they may be closed already
            slow.sendall(b"al")
            second.sendall(b"l")
        assert [closed(mute) for mute in (silent, slow, second)] == [True, True, True]
    serving.student.hold = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(serving.chat)
        until(lambda: serving.student.prompts)
        time.sleep(0.5)
        serving.student.hold.set()
        assert waiting.result().status_code == 200, "who has asked may wait"


def test_who_waits_for_what_is_being_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a request that may go on with that conversation, and is kept itself; a first one never does."""
    serving, kept = serve(), threading.Event()
    monkeypatch.setattr(app, "KEEPING_SECONDS", 20)

    def keep(prepared: Any, _: Any) -> None:
        if prepared.chat.prompt.messages[0].content == "one":
            kept.wait(20)

    monkeypatch.setattr(serving.assist, "keep", keep)
    further = asked(" one", {"role": "assistant", "content": "one"}, {"role": "user", "content": "go on"})
    with serving.client() as client, ThreadPoolExecutor(1) as pool:
        try:
            assert client.post("/v1/chat/completions", json=asked("one")).status_code == 200
            for other in (asked("two"), asked("one"), {**further, "store": False}):
                assert client.post("/v1/chat/completions", json=other, timeout=5).status_code == 200
            waiting = pool.submit(client.post, "/v1/chat/completions", json=further)
            time.sleep(0.3)
            assert not waiting.done()
        finally:
            kept.set()
        assert waiting.result().status_code == 200

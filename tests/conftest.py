"""Options and fixtures of the whole suite."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest
from misbehaving import Misbehaving

Fault = tuple[int, str, dict[str, str]]
"""Status, body and headers of an answer that is given once."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-counts", action="store_true", help="run the slow suites in full, not on a sample")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for `full_counts` is slow in full; `-m slow` selects those."""
    for item in items:
        if "full_counts" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def full_counts(request: pytest.FixtureRequest) -> bool:
    """Whether slow suites run everything they have."""
    return bool(request.config.getoption("--full-counts"))


class Server:
    """Speaks OpenAI's format: answers with `answer(text of the last message)`, a text or a whole message, after
    the scripted faults are used up."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.answer: Callable[[str], str | dict[str, Any]] = lambda text: f"you said {text}"
        self.requests: list[dict[str, Any]] = []
        self._lock = Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, body, headers = outer.respond(request)
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, request: dict[str, Any]) -> str | dict[str, Any]:
        """What is said to a whole request; `answer` sees its last message only."""
        return self.answer(request["messages"][-1]["content"])

    def respond(self, request: dict[str, Any]) -> Fault:
        with self._lock:
            self.requests.append(request)
            if self.faults:
                return self.faults.pop(0)
        answer = self.reply(request)
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        return 200, json.dumps(body), {}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A local provider that models called ``openai/…`` are asked at."""
    server = Server()
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretindeed1234")
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def expert_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same, answering as the scripted expert would: ``openai/toy-expert`` as the toy's. To those who ask, it is a
    model like any other."""
    from tutelage.agents import provider

    def reply(request: dict[str, Any]) -> str:
        return provider.reply(request["model"].removesuffix("-expert"), request["messages"])

    monkeypatch.setattr(server, "reply", reply)
    return server


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    """A provider that does on demand what providers do wrong; models called ``openai/…``
    and ``anthropic/…`` are asked at it."""
    server = Misbehaving()
    for variable in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.setenv(variable, f"{server.url}/v1")
    monkeypatch.setenv("ANTHROPIC_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretindeed1234")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-verysecretindeed1234")
    yield server
    server.close()

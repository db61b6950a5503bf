"""LLM access against a real local server that speaks OpenAI's format and fails on script."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest
from pydantic import BaseModel

from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent, PolicyFailed
from tutelage.llm import LLM
from tutelage.types import Message
from tutelage.usage import UsageLog

KEY = "sk-verysecretindeed1234"
HELLO = (Message(role="system", content="Be brief."), Message(role="user", content="Hello"))
Fault = tuple[int, str, dict[str, str]]


class Server:
    """Answers `answer(text of the last message)`, after the scripted faults are used up."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.answer: Callable[[str], str] = lambda text: f"you said {text}"
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

    def respond(self, request: dict[str, Any]) -> Fault:
        with self._lock:
            self.requests.append(request)
            if self.faults:
                return self.faults.pop(0)
        text = self.answer(request["messages"][-1]["content"])
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        return 200, json.dumps(body), {}


def fault(status: int, message: str = "no", **headers: str) -> Fault:
    return status, json.dumps({"error": {"message": message, "type": "x", "code": None}}), headers


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield server
    server.http.shutdown()
    server.http.server_close()


def llm(usage: UsageLog | None = None, model: str = "openai/local-model", **options: Any) -> LLM:
    return LLM(model, role="teacher", usage=usage, **{"backoff": 0.01, "timeout": 20.0, **options})


def test_answers_in_order_and_accounts(server: Server) -> None:
    saved: dict[str, dict[str, Any]] = {}
    usage = UsageLog(sink=lambda kind, key, body: saved.update({f"{kind}/{key}": body}))
    answers = llm(usage).complete_many([[Message(role="user", content=str(n))] for n in range(12)])
    assert answers == [f"you said {n}" for n in range(12)]
    total = usage.roles()["teacher"]
    assert (total.calls, total.prompt_tokens, total.completion_tokens) == (12, 120, 60)
    assert (total.dollars, total.unpriced) == (0, 12)
    assert saved == {"usage/teacher": total.model_dump()}
    assert UsageLog(before={"teacher": saved["usage/teacher"]}).total() == total


def test_known_price(server: Server) -> None:
    usage = UsageLog()
    llm(usage, model="openai/gpt-4o-mini").complete(HELLO)
    assert usage.total().dollars > 0
    assert usage.total().unpriced == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_faults_are_retried(server: Server, status: int) -> None:
    server.faults = [fault(status), fault(status)]
    assert llm().complete(HELLO) == "you said Hello"
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    server.faults = [fault(429, **{"retry-after": "7"})]
    assert llm().complete(HELLO) == "you said Hello"
    assert slept == [7.0]


def test_attempts_are_bounded_and_lasting_faults_are_not_retried(server: Server) -> None:
    server.faults = [fault(503)] * 9
    with pytest.raises(PolicyFailed):
        llm(retries=2).complete(HELLO)
    assert len(server.requests) == 3
    server.requests.clear()
    server.faults = [fault(401, f"Incorrect API key provided: {KEY}.\nSee https://example.org")]
    with pytest.raises(PolicyFailed) as failure:
        llm().complete(HELLO)
    message = str(failure.value)
    assert len(server.requests) == 1
    assert "Incorrect API key" in message
    assert KEY not in message
    assert "\n" not in message


@pytest.mark.parametrize("body", ["{not json", "[]", '{"choices": []}', "<html>busy</html>"])
def test_garbage_from_the_provider_is_one_clear_error(server: Server, body: str) -> None:
    server.faults = [(200, body, {})] * 9
    with pytest.raises(PolicyFailed) as failure:
        llm(retries=1).complete(HELLO)
    assert "\n" not in str(failure.value)


def test_no_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    first, second = llm(retries=1).complete_many([HELLO, HELLO])
    assert isinstance(first, PolicyFailed)
    assert isinstance(second, PolicyFailed)


@pytest.mark.parametrize("role", ["budget", "shared"])
def test_call_budget_is_exact_even_in_parallel(server: Server, role: str) -> None:
    usage, budget = UsageLog(), BudgetConfig(calls=5)
    if role == "shared":
        LLM("openai/local-model", role="judge", usage=usage, budget=budget).complete_many([HELLO] * 3)
    answers = llm(usage, budget=budget).complete_many([HELLO] * 9)
    assert usage.total().calls == len(server.requests) == 5
    assert sum(isinstance(answer, BudgetSpent) for answer in answers) == (4 if role == "budget" else 7)


def test_token_budget_stops_before_the_next_call(server: Server) -> None:
    model = llm(budget=BudgetConfig(tokens=20), concurrency=1)
    first, second, third = model.complete_many([HELLO] * 3)
    assert (first, second) == ("you said Hello", "you said Hello")
    assert isinstance(third, BudgetSpent)
    assert "budget.tokens" in str(third)
    with pytest.raises(BudgetSpent):
        model.complete(HELLO)


class Verdict(BaseModel):
    good: bool
    steps: list[int]


def test_structured_is_asked_for_repaired_and_validated(server: Server) -> None:
    answers = iter(["no idea", '{"good": 1.5, "steps": []}', 'So:\n```json\n{"good": true, "steps": [1, 2]}\n```'])
    server.answer = lambda text: next(answers)
    assert llm().structured(HELLO, Verdict) == Verdict(good=True, steps=[1, 2])
    first, second, third = (request["messages"] for request in server.requests)
    assert '"steps"' in first[0]["content"]
    assert first[-1]["content"] == "Hello"
    assert second[-2]["content"] == "no idea"
    assert "good" in third[-1]["content"]


def test_structured_gives_up_after_two_repairs(server: Server) -> None:
    server.answer = lambda text: '{"good": "maybe", "steps": []}'
    with pytest.raises(PolicyFailed, match=r"Verdict.*good"):
        llm().structured(HELLO, Verdict)
    assert len(server.requests) == 3
    results = llm().structured_many([HELLO, HELLO], Verdict)
    assert all(isinstance(result, PolicyFailed) for result in results)

"""LLM access against a real local server that speaks OpenAI's format and fails on script."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep
from typing import Any

import pytest
from pydantic import BaseModel

from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent, PolicyFailed
from tutelage.llm import LLM, Answer, Request
from tutelage.record import Record
from tutelage.types import Message
from tutelage.usage import UsageLog

KEY = "sk-verysecretindeed1234"
HELLO = (Message(role="system", content="Be brief."), Message(role="user", content="Hello"))


ASK = Request([message.model_dump() for message in HELLO])
TOOL = {"type": "function", "function": {"name": "move", "parameters": {"type": "object", "properties": {}}}}
OFFER = Request(ASK.messages, [TOOL])


def fault(status: int, message: str = "no", **headers: str) -> tuple[int, str, dict[str, str]]:
    return status, json.dumps({"error": {"message": message, "type": "x", "code": None}}), headers


def llm(usage: UsageLog | None = None, model: str = "openai/local-model", **options: Any) -> LLM:
    return LLM(model, role="teacher", usage=usage, **{"backoff": 0.01, "timeout": 20.0, **options})


def test_answers_in_order_and_accounts(server: Any) -> None:
    saved: dict[str, dict[str, Any]] = {}
    usage = UsageLog(sink=lambda kind, key, body: saved.update({f"{kind}/{key}": body}))
    answers = llm(usage).answer_many([Request([{"role": "user", "content": str(n)}]) for n in range(12)])
    assert answers == [Answer(f"you said {n}") for n in range(12)]
    total = usage.roles()["teacher"]
    assert (total.calls, total.prompt_tokens, total.completion_tokens) == (12, 120, 60)
    assert (total.dollars, total.unpriced) == (0, 12)
    assert saved == {"usage/teacher": total.model_dump()}
    assert UsageLog(before={"teacher": saved["usage/teacher"]}).total() == total


def test_what_was_paid_for_is_kept_at_once(server: Any, tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    usage = UsageLog(record.put)
    usage.begin_cycle(1)
    before: list[int] = []

    def answer(text: str) -> str:
        before.append((record.get("usage", "teacher") or {"completion_tokens": 0})["completion_tokens"])
        return "yes"

    server.answer = answer
    llm(usage, concurrency=1).answer_many([ASK] * 3)
    assert before == [0, 5, 10], "what a kill would leave, in the middle of a batch"
    llm(usage, concurrency=6).answer_many([ASK] * 30)
    kept = [row["body"]["completion_tokens"] for row in record.fingerprint()["documents"] if row["kind"] == "usage"]
    assert kept == sorted(kept), "from many threads too, never older totals after newer ones"
    assert usage.total().completion_tokens == kept[-1] == 5 * 33
    assert record.items("usage-cycle") == {"1/teacher": usage.total().model_dump()}
    record.close()


def test_known_price(server: Any) -> None:
    usage = UsageLog()
    llm(usage, model="openai/gpt-4o-mini").complete(HELLO)
    assert usage.total().dollars > 0
    assert usage.total().unpriced == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_faults_are_retried(server: Any, status: int) -> None:
    server.faults = [fault(status), fault(status)]
    assert llm().complete(HELLO) == "you said Hello"
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    server.faults = [fault(429, **{"retry-after": "7"})]
    assert llm().complete(HELLO) == "you said Hello"
    assert slept == [7.0]


def test_attempts_are_bounded_and_lasting_faults_are_not_retried(server: Any) -> None:
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
def test_garbage_from_the_provider_is_one_clear_error(server: Any, body: str) -> None:
    server.faults = [(200, body, {})] * 9
    with pytest.raises(PolicyFailed) as failure:
        llm(retries=1).complete(HELLO)
    assert "\n" not in str(failure.value)


def test_no_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    first, second = llm(retries=1).answer_many([ASK, ASK])
    assert isinstance(first, PolicyFailed)
    assert isinstance(second, PolicyFailed)


@pytest.mark.parametrize("role", ["budget", "shared"])
def test_call_budget_is_exact_even_in_parallel(server: Any, role: str) -> None:
    usage, budget = UsageLog(), BudgetConfig(calls=5)
    if role == "shared":
        LLM("openai/local-model", role="judge", usage=usage, budget=budget).answer_many([ASK] * 3)
    answers = llm(usage, budget=budget).answer_many([ASK] * 9)
    assert usage.total().calls == len(server.requests) == 5
    assert sum(isinstance(answer, BudgetSpent) for answer in answers) == (4 if role == "budget" else 7)


def test_token_budget_stops_before_the_next_call(server: Any) -> None:
    model = llm(budget=BudgetConfig(tokens=20), concurrency=1)
    first, second, third = model.answer_many([ASK] * 3)
    assert first == second == Answer("you said Hello")
    assert isinstance(third, BudgetSpent)
    assert "budget.tokens" in str(third)
    with pytest.raises(BudgetSpent):
        model.complete(HELLO)


def calling(*calls: tuple[Any, Any], content: str | None = None) -> dict[str, Any]:
    entries = [
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": content, "tool_calls": entries}


def test_tools_are_offered_and_calls_come_back(server: Any) -> None:
    server.answer = lambda text: calling(("move", '{"a": 1}'), ("look", ""), content="So:")
    assert llm().answer_many([OFFER]) == [Answer("So:", (("move", '{"a": 1}'), ("look", "")))]
    assert server.requests[0]["tools"] == [TOOL]
    assert server.requests[0]["parallel_tool_calls"] is False
    server.answer = lambda text: "plain"
    assert llm().answer_many([ASK]) == [Answer("plain")]
    assert not {"tools", "parallel_tool_calls"} & set(server.requests[1]), "nothing is sent without tools"


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_calls_of_sloppy_servers(server: Any) -> None:
    server.answer = lambda text: calling(("move", {"a": "é"}), (None, None))
    (answer,) = llm().answer_many([OFFER])
    assert isinstance(answer, Answer), answer
    assert json.loads(answer.calls[0][1]) == {"a": "é"}
    assert answer.calls[1:] in ((), (("", ""),))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "unknown field"),
        (422, "extra fields not permitted"),
        (404, "No endpoints found that support tool use"),
        (500, "tools param requires --jinja flag"),
    ],
)
def test_a_server_that_takes_no_tools_is_one_error_that_names_the_setting(
    server: Any, status: int, message: str
) -> None:
    server.faults = [fault(status, message)] * 9
    offered, plain = (llm(retries=1).answer_many([request])[0] for request in (OFFER, ASK))
    assert isinstance(offered, PolicyFailed)
    assert message in str(offered)
    assert 'teacher.tools = "text"' in str(offered)
    assert "\n" not in str(offered)
    assert "teacher.tools" not in str(plain), "a call without tools has another problem"


def test_a_full_context_is_not_blamed_on_tools(server: Any) -> None:
    server.faults = [fault(400, "This model's maximum context length is 4096 tokens.")] * 9
    (answer,) = llm().answer_many([OFFER])
    assert "maximum context length" in str(answer)
    assert "teacher.tools" not in str(answer)


class Verdict(BaseModel):
    good: bool
    steps: list[int]


def test_structured_is_asked_for_repaired_and_validated(server: Any) -> None:
    answers = iter(["no idea", '{"good": 1.5, "steps": []}', 'So:\n```json\n{"good": true, "steps": [1, 2]}\n```'])
    server.answer = lambda text: next(answers)
    assert llm().structured(HELLO, Verdict) == Verdict(good=True, steps=[1, 2])
    first, second, third = (request["messages"] for request in server.requests)
    assert '"steps"' in first[0]["content"]
    assert first[-1]["content"] == "Hello"
    assert second[-2]["content"] == "no idea"
    assert "good" in third[-1]["content"]


def test_structured_gives_up_after_two_repairs(server: Any) -> None:
    server.answer = lambda text: '{"good": "maybe", "steps": []}'
    with pytest.raises(PolicyFailed, match=r"Verdict.*good"):
        llm().structured(HELLO, Verdict)
    assert len(server.requests) == 3
    results = llm().structured_many([HELLO, HELLO], Verdict)
    assert all(isinstance(result, PolicyFailed) for result in results)


def test_structured_finds_the_object_in_chatter_at_once(server: Any) -> None:
    server.answer = lambda text: 'Let me {think}. {"good": true, "steps": [1]} Does that help?'
    assert llm().structured(HELLO, Verdict) == Verdict(good=True, steps=[1])
    assert len(server.requests) == 1


def test_a_schema_goes_along_where_the_provider_takes_one(misbehaving: Any) -> None:
    misbehaving.say = lambda text: '{"good": true, "steps": []}'
    usage = UsageLog()
    misbehaving.play(["400"])
    for _ in range(2):
        assert llm(usage, model="openai/gpt-4o").structured(HELLO, Verdict).good
    sent = ["response_format" in body for _, body in misbehaving.seen]
    assert sent == [True, False, False], "one that refuses it is asked once"
    assert usage.total().calls == 3
    misbehaving.play()
    llm(model="anthropic/claude-sonnet-4-5").structured(HELLO, Verdict)
    llm(model="openai/local-model").structured(HELLO, Verdict)
    assert [bool({"output_format", "response_format"} & set(body)) for _, body in misbehaving.seen] == [True, False]


def test_a_call_that_fails_either_way_says_nothing_about_schemas(misbehaving: Any) -> None:
    misbehaving.say = lambda text: '{"good": true, "steps": []}'
    misbehaving.play(["400", "400"])
    model = llm(model="openai/gpt-4o-mini")
    with pytest.raises(PolicyFailed, match="unknown parameter"):
        model.structured(HELLO, Verdict)
    assert model.structured(HELLO, Verdict).good
    assert "response_format" in misbehaving.seen[-1][1]


def test_caching_is_asked_for_where_it_has_to_be(misbehaving: Any) -> None:
    for model in ("anthropic/claude-sonnet-4-5", "openai/gpt-4o"):
        for wanted in (True, False):
            usage = UsageLog()
            llm(usage, model=model, prompt_cache=wanted).complete(HELLO)
            assert usage.total().cached_tokens == 6
    asked = ["cache_control" in json.dumps(body) for _, body in misbehaving.seen]
    assert asked == [True, False, False, False]
    (system,) = misbehaving.seen[0][1]["system"]
    assert system["cache_control"] == {"type": "ephemeral"}


def test_all_models_of_a_provider_share_its_places(misbehaving: Any) -> None:
    lock, inside, most = Lock(), Counter[str](), Counter[str]()

    def say(text: str) -> str:
        with lock:
            inside[text] += 1
            most[text] = max(most[text], inside[text])
            most["all"] = max(most["all"], sum(inside.values()))
        sleep(0.05)
        with lock:
            inside[text] -= 1
        return "yes"

    misbehaving.say = say

    def many(model: str, text: str) -> list[Any]:
        asked = Request([{"role": "user", "content": text}])
        return llm(model=model, concurrency=2).answer_many([asked] * 6)

    models = ("openai/one", "openai/two", "anthropic/claude-sonnet-4-5")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(many, models, ("openai", "openai", "anthropic")))
    assert answers == [[Answer("yes")] * 6] * 3
    assert most["openai"] <= 2
    assert most["anthropic"] <= 2
    assert most["all"] > 2, "providers do not wait for each other"

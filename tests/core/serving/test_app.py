"""Over HTTP the student answers in OpenAI's form, streamed or at once, with its calls read and held to guardrails;
what cannot be answered is refused in that form too."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fuzzed import generated
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tiny_students import settings, varied
from waiting import until

from tutelage.errors import MemoryBusy, RequestRefused, RequestTooLong
from tutelage.serving.assist import Assistance
from tutelage.serving.engine_transformers import TransformersEngine
from tutelage.serving.sessions import open_turns
from tutelage.serving.types import ChatMessage, Piece, TokenCount, ToolCall
from tutelage.workspace import Workspace

Serve = Callable[..., Any]

LOOK = {
    "type": "function",
    "function": {
        "name": "look-up",
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
WIPE = {"type": "function", "function": {"name": "wipe"}}


def asked(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": "student", "messages": [{"role": "user", "content": text}], **more}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The data of a whole stream."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    found = [json.loads(line) for line in lines]
    for event in found:
        ChatCompletionChunk.model_validate(event, strict=True)
    return found


def message(answer: httpx.Response) -> tuple[dict[str, Any], str]:
    """What was said, and how it ended."""
    assert answer.status_code == 200, answer.text
    ChatCompletion.model_validate(answer.json(), strict=True)
    (choice,) = answer.json()["choices"]
    return choice["message"], choice["finish_reason"]


def said(answer: httpx.Response) -> tuple[int, str | None]:
    """Status and code of an answer that is no success; its body has OpenAI's form."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"]


def test_a_reply_at_once_and_streamed(serve: Serve) -> None:
    serving = serve()
    whole = serving.chat("héllo 😀 you", tutelage={"memory": True})
    assert message(whole) == ({"role": "assistant", "content": "héllo😀you", "refusal": None}, "stop")
    body = whole.json()
    assert body["model"] == "student@3"
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    assert body["tutelage"] == {"student": "student@3", "shown": [{"id": "exp_1", "version": 2}], "blocked": []}
    streamed = events(serving.chat("one two three", stream=True, stream_options={"include_usage": True}))
    assert [event["choices"][0]["delta"] for event in streamed[:-1]] == [
        {"role": "assistant", "content": ""},
        *({"content": word} for word in ("one", "two", "three")),
        {},
    ]
    assert (streamed[-1]["choices"], streamed[-1]["usage"]["completion_tokens"]) == ([], 3)
    assert streamed[-2]["choices"][0]["finish_reason"] == "stop"
    assert streamed[-2]["tutelage"]["student"] == "student@3"
    assert len({(event["id"], event["model"], event["created"]) for event in streamed}) == 1
    bare = events(serving.chat(stream=True))
    assert all("usage" not in event for event in bare)
    assert [chat.options.memory for chat, _ in serving.kept()] == [True, None, None]


def test_what_is_asked_reaches_the_student(serve: Serve) -> None:
    serving = serve()
    call = {"id": "c1", "type": "function", "function": {"name": "look-up", "arguments": '{"word": "x"}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": [], "audio": None},
        {"role": "tool", "content": "found", "tool_call_id": "c1"},
    ]
    wanted = {"temperature": 0.5, "top_p": 0.9, "stop": "\n", "seed": -5, "max_completion_tokens": 7, "n": 1}
    neutral = {"logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}, "logit_bias": {}}
    ignored = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    sent = {"model": "student@3", "messages": messages, "tools": [LOOK], **wanted, **neutral, **ignored}
    with serving.client() as client:
        assert client.post("/v1/chat/completions", json=sent).status_code == 200
    (prompt,) = serving.student.prompts
    assert prompt.messages == (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "a\nb"),
        ChatMessage("assistant", "", (ToolCall("c1", "look_up", '{"word": "x"}'),)),
        ChatMessage("tool", "found", call_id="c1"),
    )
    sampling = prompt.sampling
    assert (sampling.temperature, sampling.top_p, sampling.stop, sampling.seed) == (0.5, 0.9, ("\n",), -5)
    assert (sampling.max_new_tokens, [tool.name for tool in prompt.tools]) == (7, ["look_up"])
    assert serving.kept() == [], "store = false is a way to opt out"


CALL = 'I look.\nlook_up({"word": "a"})'


@pytest.mark.parametrize("stream", [False, True])
def test_calls_are_read_and_checked(serve: Serve, stream: bool) -> None:
    serving = serve([CALL[:9], CALL[9:]], ['look_up({"word": 5})'], ["print(1)"], [CALL])

    def ask(**more: Any) -> tuple[Any, Any, str]:
        answer = serving.chat(tools=[LOOK, WIPE], stream=stream, **more)
        if not stream:
            found, finish = message(answer)
            return found["content"], found.get("tool_calls"), finish
        deltas = [event["choices"][0]["delta"] for event in events(answer)]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())] or None
        text = "".join(delta.get("content") or "" for delta in deltas)
        return text or None, calls, events(answer)[-1]["choices"][0]["finish_reason"]

    text, [call], finish = ask()
    assert (text, finish, call["function"]) == (
        "I look.",
        "tool_calls",
        {"name": "look-up", "arguments": '{"word": "a"}'},
    )
    assert call["id"].startswith("call_")
    assert ask() == ('look_up({"word": 5})', None, "stop"), "a call that does not fit its tool stays text"
    assert ask() == ("print(1)", None, "stop")
    assert ask(tool_choice="none") == (CALL, None, "stop")


def test_a_call_that_must_be_made_is_asked_for_again(serve: Serve) -> None:
    named = {"type": "function", "function": {"name": "wipe"}}
    serving = serve(["Hm."], [CALL], ["no"], [CALL], ["still no"], ["never"])
    found, finish = message(serving.chat(tools=[LOOK], tool_choice="required"))
    assert (found["tool_calls"][0]["function"]["name"], finish) == ("look-up", "tool_calls")
    said_again = serving.student.prompts[1].messages[1:]
    assert said_again[0] == ChatMessage("assistant", "Hm.")
    assert said_again[1].content.startswith("Call one of the tools.")
    found, finish = message(serving.chat(tools=[LOOK, WIPE], tool_choice=named))
    assert (found["content"], finish) == (CALL, "stop"), "another tool than the one named is no answer"
    assert message(serving.chat(tools=[LOOK], tool_choice="required"))[0]["content"] == "never"


def test_calls_that_the_engine_reads_itself_are_held_to_the_same(serve: Serve) -> None:
    two = (ToolCall("a", "look_up", '{"word": "a"}'), ToolCall("b", "wipe", "{}"))
    serving = serve(["both", two], [two], [(ToolCall("a", "wipe", '{"word'),)])
    found, finish = message(serving.chat(tools=[LOOK, WIPE]))
    assert ([call["id"] for call in found["tool_calls"]], found["content"], finish) == (
        ["a", "b"],
        "both",
        "tool_calls",
    )
    found, _ = message(serving.chat(tools=[LOOK, WIPE], parallel_tool_calls=False))
    assert ([call["id"] for call in found["tool_calls"]], found["content"]) == (["a"], None)
    found, finish = message(serving.chat(tools=[LOOK, WIPE]))
    assert (found["content"], "tool_calls" in found, finish) == ('wipe({"word)', False, "stop")


def test_calls_that_nobody_asked_for_are_not_told_of(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wants_a_call(_: Any) -> AsyncIterator[Piece]:
        yield Piece("Hm.")
        yield Piece(calls=(ToolCall("a", "wipe", "{}"),))
        yield Piece(finish="tool_calls", tokens=TokenCount(1, 1))

    serving = serve()
    monkeypatch.setattr(serving.student, "generate", wants_a_call)
    for more in ({}, {"tools": [WIPE], "tool_choice": "none"}):
        found, finish = message(serving.chat(**more))
        assert (found["content"], "tool_calls" in found, finish) == ("Hm.", False, "stop")


def test_a_forbidden_call_is_held_back(serve: Serve) -> None:
    serving = serve(["wipe()"], [CALL], ["wipe()"], ["wipe()"])
    serving.assist.forbidden = "wipe"
    better = serving.chat(tools=[LOOK, WIPE])
    assert message(better)[0]["tool_calls"][0]["function"]["name"] == "look-up"
    assert better.json()["tutelage"]["blocked"] == ["exp_9"]
    assert better.json()["usage"]["total_tokens"] == 22, "what was held back has cost something too"
    asking, note = serving.student.prompts[1].messages[1:]
    assert (asking.calls[0].name, note.role, note.content) == ("wipe", "tool", "Blocked: ask first.")
    assert note.call_id == asking.calls[0].id
    refused = serving.chat(tools=[LOOK, WIPE], stream=True)
    assert "wipe" not in refused.text
    assert [event["choices"][0]["delta"].get("content") for event in events(refused)][1] == "This is not allowed."
    assert events(refused)[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert events(refused)[-1]["tutelage"]["blocked"] == ["exp_9", "exp_9"]


CONTENT = {"role": "user", "content": "x"}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASSISTANT = {"role": "assistant", "tool_calls": [CALLED]}
TOOL = {"role": "tool", "content": "x", "tool_call_id": "c"}


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **changes}}


def parameters(**schema: Any) -> dict[str, Any]:
    return {"tools": [tool(parameters=schema)]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"nonsense": 1}, "nonsense"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "cook", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALLED]}]}, "messages.0"),
        ({"messages": [CONTENT, TOOL]}, "messages.1"),
        ({"messages": [CONTENT, ASSISTANT, CONTENT]}, "messages.2"),
        ({"messages": [CONTENT, ASSISTANT, {**TOOL, "tool_call_id": "d"}]}, "messages.2"),
        ({"messages": [CONTENT, {**ASSISTANT, "tool_calls": [CALLED, CALLED]}, TOOL]}, "messages.1"),
        ({"messages": [CONTENT, ASSISTANT]}, "messages"),
        ({"messages": [CONTENT, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"max_tokens": 257}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, None),
        ({"stop": ["a"] * 5}, None),
        ({"stop": ""}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"logprobs": True}, "logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool(), tool()]}, "tools"),
        ({"tools": [tool(name="a b")]}, "tools.0.function.name"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        (parameters(type="string"), None),
        (parameters(type="object", properties={"a": {"type": "nonsense"}}), None),
        ({"tutelage": {"memory": "yes"}}, "tutelage.memory"),
        ({"tutelage": {"session": "a b"}}, "tutelage.session"),
        ({"tutelage": {"environment": "../x"}}, "tutelage.environment"),
    ],
)
def test_what_makes_no_sense_or_is_not_done_is_said_clearly(serve: Serve, change: dict[str, Any], param: str) -> None:
    serving = serve()
    answer = serving.chat(**change)
    assert said(answer)[0] == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    if param:
        assert answer.json()["error"]["param"] == param
    assert serving.student.prompts == []


@pytest.mark.parametrize(
    ("method", "path", "sent", "expected"),
    [
        ("POST", "/v1/chat/completions", {"json": asked(model="student@2")}, (404, "model_not_found")),
        ("GET", "/v1/models/gpt-5", {}, (404, "model_not_found")),
        ("GET", "/v1/nowhere", {}, (404, None)),
        ("GET", "/v1/chat/completions", {}, (405, None)),
        ("POST", "/v1/chat/completions", {"content": b'{"model": '}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": b"[" * 9_000}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": b"\xff\xfe"}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": json.dumps(asked("\ud800")).encode()}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": b'{"temperature": NaN}'}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": b'{"seed": ' + b"9" * 5000 + b"}"}, (400, None)),
        ("POST", "/v1/chat/completions", {"content": b"x" * 10_001}, (413, "too_large")),
        (
            "POST",
            "/v1/chat/completions",
            {"content": b"{}", "headers": {"content-type": "text/plain"}},
            (415, "unsupported"),
        ),
        ("GET", "/v1/models", {"headers": {"host": "evil.example"}}, (421, "misdirected")),
        ("GET", "/v1/models", {"headers": {"origin": "http://evil.example"}}, (421, "misdirected")),
    ],
)
def test_every_refusal_has_its_status_and_the_one_form(
    serve: Serve, method: str, path: str, sent: dict[str, Any], expected: tuple[int, str]
) -> None:
    serving = serve(body_bytes=10_000)
    with serving.client(**{"content-type": "application/json"}) as client:
        assert said(client.request(method, path, **sent)) == expected
        assert client.get("/health").json() == {"status": "ok"}


def test_what_goes_wrong_inside_is_told_apart_and_quotes_nobody(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    secret = "my card is 4111"
    trouble = [RequestRefused("too long"), MemoryBusy("held by 7"), ValueError(secret)]
    serving = serve(*([error] for error in trouble), ["one", ValueError(secret)])
    with caplog.at_level(logging.INFO):
        assert said(serving.chat()) == (400, None)
        busy = serving.chat(stream=True)
        assert (said(busy), busy.headers["retry-after"]) == ((503, "unavailable"), "5")
        assert said(serving.chat(secret)) == (500, "internal")
        broken = serving.chat(stream=True).text.strip().split("\n\n")
        serving.assist.broken = RequestTooLong("no such session")
        assert said(serving.chat()) == (400, "context_length_exceeded")
    assert json.loads(broken[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in "".join(broken)
    assert "ValueError" in caplog.text
    assert "held by 7" in caplog.text
    assert secret not in caplog.text
    assert serving.kept() == []
    assert serving.students.under_way == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_generation(serve: Serve, stream: bool) -> None:
    serving = serve()
    serving.student.hold = threading.Event()
    if stream:
        sent = asked(stream=True)
        with serving.client() as client, client.stream("POST", "/v1/chat/completions", json=sent) as answer:
            assert next(answer.iter_text())
    else:
        with serving.connection(asked()):
            until(lambda: serving.student.prompts)
    until(lambda: serving.students.under_way == 0)
    assert serving.student.ended == ["cut"]
    assert serving.kept() == []
    until(lambda: serving.answering.endpoint.counts.given_up == 1)
    assert serving.answering.endpoint.counts.under_way == 0


def test_without_a_valid_key_nobody_gets_in(serve: Serve) -> None:
    serving = serve(keys={"ann": "a"})
    for wrong in ("", "tut_wrong", serving.key("ann") + "x"):
        with serving.client(wrong) as client:
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/metrics")):
                answer = client.request(method, path)
                assert said(answer) == (401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/health").status_code == 200
    with serving.client(serving.key("ann")) as client:
        listed = client.get("/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["student", "student@3"]
        assert client.get("/v1/models/student@3").json() == listed[1]


def test_every_request_gets_an_answer_as_described(serve: Serve, full_counts: bool) -> None:
    serving = serve()
    generated(serving, full_counts, 200 if full_counts else 15)
    assert serving.student.prompts, "some reached the student"


def test_every_request_gets_one_from_a_model_with_memory_and_a_record_too(
    serve: Serve, tmp_path: Path, full_counts: bool
) -> None:
    serving, workspace = serve(max_new_tokens=8, memory=True), Workspace(settings(tmp_path / "real", memory=True))
    engine = TransformersEngine("student@3", *varied(1), batch=4, max_length=2000)
    assist = Assistance(workspace)
    serving.students.student, serving.answering.endpoint._assist = engine, assist
    try:
        generated(serving, full_counts, 50 if full_counts else 2)
        assert serving.answering.endpoint.counts.requests[200], "some reached the model"
        assert serving.chat().json()["choices"][0]["message"]["content"]
        asyncio.run_coroutine_threadsafe(serving.answering.endpoint.settle(), serving.loop).result(30)
        assert open_turns(workspace.record)
    finally:
        asyncio.run(engine.close())
        assist.close()
        workspace.close()

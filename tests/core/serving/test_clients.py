"""The official OpenAI client and LiteLLM drive the endpoint: chat, streams, tools, errors."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tutelage.completion import litellm
from tutelage.errors import RequestRefused, RequestTooLong
from tutelage.serving import limits

Serve = Callable[..., Any]

ASKED: Any = [{"role": "user", "content": "one two three"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get-weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = 'I look.\nget_weather({"city": "Bonn"})'


class Weather(BaseModel):
    """The weather in a city."""

    city: str


def client(serving: Any, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{serving.url}/v1", api_key=key, max_retries=0)


def test_openai_chat_and_streams(serve: Serve) -> None:
    serving = serve()
    with client(serving) as ai:
        assert [model.id for model in ai.models.list()] == ["student", "student@3"]
        assert ai.models.retrieve("student").owned_by == "tutelage"
        extra = {"tutelage": {"memory": True, "session": "visit-7"}}
        whole = ai.chat.completions.create(model="student", messages=ASKED, extra_body=extra)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("onetwothree", "stop")
        assert whole.usage
        assert whole.usage.total_tokens == 13
        assert whole.model_extra
        assert whole.model_extra["tutelage"]["shown"] == [{"id": "exp_1", "version": 2}]
        stream = ai.chat.completions.create(
            model="student@3", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "onetwothree"
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 3
        with ai.chat.completions.stream(model="student", messages=ASKED) as helper:
            deltas = [event.delta for event in helper if event.type == "content.delta"]
            assert [delta for delta in deltas if delta] == ["one", "two", "three"]
            assert helper.get_final_completion().choices[0].message.content == "onetwothree"
    chats = [chat for chat, _ in serving.kept()]
    assert [(chat.model, chat.options.session) for chat in chats[:2]] == [("student", "visit-7"), ("student@3", "")]


@pytest.mark.parametrize("stream", [False, True])
def test_openai_tools(serve: Serve, stream: bool) -> None:
    """A whole round: the call, its result sent back as the client keeps it, the reply."""
    serving = serve([CALL], ["It rains."], ['Weather({"city": "Bonn"})'])
    with client(serving) as ai:
        messages: Any = list(ASKED)
        if stream:
            with ai.chat.completions.stream(model="student", messages=messages, tools=[WEATHER]) as helper:
                answer = helper.get_final_completion().choices[0]
        else:
            answer = ai.chat.completions.create(model="student", messages=messages, tools=[WEATHER]).choices[0]
        assert (answer.finish_reason, answer.message.content) == ("tool_calls", "I look.")
        (call,) = answer.message.tool_calls or ()
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("get-weather", {"city": "Bonn"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        messages += [answer.message.model_dump()]
        last = ai.chat.completions.create(model="student", messages=[*messages, result], tools=[WEATHER])
        assert last.choices[0].message.content == "It rains."
        parsed = ai.chat.completions.parse(
            model="student", messages=ASKED, tools=[openai.pydantic_function_tool(Weather)]
        )
        (typed,) = parsed.choices[0].message.tool_calls or ()
        assert typed.function.parsed_arguments == Weather(city="Bonn")
    assert serving.student.prompts[1].messages[1].calls[0].name == "get_weather"


def test_openai_errors(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "Buckets", partial(limits.Buckets, clock=lambda: 0.0))
    serving = serve([RequestRefused("the messages are too long")], per_minute=6, keys={"ann": "a"})

    def ask(key: str = serving.key("ann"), **more: Any) -> None:
        with client(serving, key) as ai:
            ai.chat.completions.create(**{"model": "student", "messages": ASKED, **more})

    with pytest.raises(openai.BadRequestError, match="too long"):
        ask()
    with pytest.raises(openai.AuthenticationError) as nobody:
        ask("wrong")
    assert nobody.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(model="gpt-5")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        ask(response_format={"type": "json_object"})
    assert refused.value.param == "response_format.type"
    with pytest.raises(openai.APIStatusError, match="bytes at most"):
        ask(user="x" * 1_000_001)
    ask()
    ask()
    with pytest.raises(openai.BadRequestError):
        ask(n=2)
    with pytest.raises(openai.RateLimitError, match="used up"):
        ask()


def test_openai_many_at_once(serve: Serve) -> None:
    serving = serve()

    async def ask(number: int, ai: AsyncOpenAI) -> str:
        messages: Any = [{"role": "user", "content": f"number {number}"}]
        stream = await ai.chat.completions.create(model="student", messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=f"{serving.url}/v1", api_key="none") as ai:
            return await asyncio.gather(*(ask(number, ai) for number in range(40)))

    assert asyncio.run(all_of_them()) == [f"number{number}" for number in range(40)]


def test_litellm(serve: Serve) -> None:
    too_long = RequestTooLong("this model's maximum context length is 7 tokens; the messages have 9")
    serving = serve(["hello"], ["one", " two"], [CALL], [too_long], keys={"ann": "a"})
    ask: Any = litellm().completion
    given = {"model": "openai/student", "api_base": f"{serving.url}/v1", "messages": ASKED, "max_retries": 0}
    given["api_key"] = serving.key("ann")
    assert ask(**given).choices[0].message.content == "hello"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(**given, stream=True)) == "one two"
    (call,) = ask(**given, tools=[WEATHER]).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get-weather", {"city": "Bonn"})
    errors = litellm().exceptions
    for change, kind in (
        ({}, errors.ContextWindowExceededError),
        ({"api_key": "wrong"}, errors.AuthenticationError),
        ({"model": "openai/none"}, errors.NotFoundError),
        ({"n": 2}, errors.BadRequestError),
    ):
        with pytest.raises(kind):
            ask(**{**given, **change})

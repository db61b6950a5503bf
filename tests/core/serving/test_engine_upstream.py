"""What an upstream is asked for, and how calls that it sends in pieces become whole."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.types.utils import ChatCompletionDeltaToolCall, Function

from tutelage.errors import ConfigError, PolicyFailed
from tutelage.serving.engine_upstream import Calls, UpstreamEngine, request
from tutelage.serving.errors import as_answer
from tutelage.serving.types import ChatMessage, Prompt, Sampling, ToolCall
from tutelage.types import Tool


def delta(index: int, arguments: str, id: str | None = None, name: str | None = None) -> Any:
    return ChatCompletionDeltaToolCall(
        id=id, function=Function(arguments=arguments, name=name), type="function", index=index
    )


@given(st.lists(st.text('{}"a:1 ', max_size=12), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_calls_in_pieces_become_whole(arguments: list[str], random: Any) -> None:
    """However the pieces of several calls are mixed, each in its own order."""
    pieces = [
        [delta(place, "", f"c{place}", f"tool{place}"), *(delta(place, letter) for letter in text)]
        for place, text in enumerate(arguments)
    ]
    calls, added = Calls(), 0
    while pieces:
        mine = random.choice(pieces)
        added += calls.add([mine.pop(0)])
        pieces = [rest for rest in pieces if rest]
    assert calls.whole() == tuple(
        ToolCall(f"c{place}", f"tool{place}", text or "{}") for place, text in enumerate(arguments)
    )
    assert added == sum(len(text) + len("c0tool0") for text in arguments)


def test_a_request_arrives_as_it_was_meant() -> None:
    call = ToolCall("c1", "look", '{"at": "x"}')
    messages = (
        ChatMessage("user", "Go"),
        ChatMessage("assistant", calls=(call,)),
        ChatMessage("tool", "seen", call_id="c1"),
    )
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, stop=("\n",), seed=4)
    asked = request(Prompt(messages, sampling, (Tool(name="look"),), "look"))
    assert asked["messages"][1]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": "x"}'}
    assert asked["messages"][2] == {"role": "tool", "content": "seen", "tool_call_id": "c1"}
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["stop"], asked["seed"]) == (
        7,
        0.5,
        0.9,
        ["\n"],
        4,
    )
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    bare = request(Prompt(messages[:1], Sampling(max_new_tokens=7)))
    assert not {"tools", "tool_choice", "seed", "stop"} & set(bare)


def test_a_rule_is_no_upstream() -> None:
    with pytest.raises(ConfigError, match="rule"):
        UpstreamEngine("expert/toy", timeout=1)


class ServerError(Exception):
    status_code = 500


@pytest.mark.parametrize("error", [ServerError, ValueError])
def test_a_failing_upstream_quotes_nothing_of_a_request_into_the_log(
    error: type[Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the set-up is told in full, by a check that sends nothing of a caller's."""

    async def broken(prompt: Prompt) -> Any:
        raise error(f"while handling {prompt.messages[0].content!r}")

    async def answered() -> None:
        with pytest.raises(PolicyFailed) as failed:
            await anext(engine.generate(Prompt((ChatMessage("user", "my diagnosis"),), Sampling(max_new_tokens=1))))
        as_answer(failed.value, "student")
        with pytest.raises(PolicyFailed, match="while handling 'Hello'"):
            await engine.check()

    engine = UpstreamEngine("openai/x", timeout=1)
    monkeypatch.setattr(engine, "_send", broken)
    asyncio.run(answered())

    assert "openai/x" in caplog.text
    assert error.__name__ in caplog.text
    assert "diagnosis" not in caplog.text

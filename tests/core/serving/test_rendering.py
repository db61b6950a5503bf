"""Whatever a client sends becomes the conversation that students know, and nothing of it is lost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.calls import parse_call
from tutelage.conversation import split_reply
from tutelage.errors import RequestRefused
from tutelage.serving.rendering import conversation
from tutelage.serving.types import ChatMessage, ToolCall
from tutelage.types import Tool

TOOL = Tool(name="look", description="See it", parameters={"type": "object", "properties": {"at": {"type": "string"}}})


def messages_of() -> st.SearchStrategy[list[ChatMessage]]:
    content = st.integers(0, 999).map(lambda number: f"<{number}>")
    role = st.sampled_from(["system", "user", "assistant", "tool"])
    return st.lists(st.builds(ChatMessage, role=role, content=content), min_size=1, max_size=8)


@given(messages_of())
def test_sides_alternate_and_every_word_is_kept_in_order(messages: list[ChatMessage]) -> None:
    if messages[-1].role in ("assistant",) or all(message.role == "system" for message in messages):
        with pytest.raises(RequestRefused):
            conversation(messages)
        return
    spoken = conversation(messages)
    assert [message.role for message in spoken] == ["system", *(["user", "assistant"] * len(spoken))[: len(spoken) - 1]]
    text, place = "\n".join(message.content for message in spoken), 0
    for message in messages:
        place = text.index(message.content, place) + len(message.content)


def test_a_tool_call_and_its_result_are_an_action_and_an_observation() -> None:
    call = ToolCall("call_1", "look", '{"at": "the (door)"}')
    spoken = conversation(
        [
            ChatMessage("system", "You help."),
            ChatMessage("user", "What is there?"),
            ChatMessage("assistant", "I look.", (call,)),
            ChatMessage("tool", "a red door", call_id="call_1"),
        ],
        [TOOL],
    )
    system, user, assistant, result = (message.content for message in spoken)
    assert system == "You help.\nTools:\nlook(at?: string) - See it"
    assert user == "What is there?"
    assert split_reply(assistant)[0] == "I look."
    assert parse_call(split_reply(assistant)[1]).args == ({"at": "the (door)"},)
    assert result == "Observation:\na red door"


@pytest.mark.parametrize("arguments", ["", "{}", "no json", '{"at": "two\\nlines"}'])
def test_calls_stay_on_one_line(arguments: str) -> None:
    said: Any = [
        ChatMessage("user", "Go"),
        ChatMessage("assistant", calls=(ToolCall("a", "look", arguments),)),
        ChatMessage("tool", "x", call_id="a"),
    ]
    assert "\n" not in conversation(said)[2].content

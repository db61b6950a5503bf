"""Tool calls towards a provider: OpenAI's format out and back, over a real local server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage import tools as tooling
from tutelage.agents.llm_policy import LLMPolicy, from_answer, to_request
from tutelage.conversation import join_reply
from tutelage.llm import LLM, Answer
from tutelage.types import Context, Message, Tool

MOVE = Tool(
    name="move",
    description="Move a file.",
    parameters={"type": "object", "properties": {"source": {"type": "string"}}, "required": ["source"]},
)
LOOK = Tool(name="fs.look")
TOOLS = (MOVE, LOOK)
SYSTEM = tooling.with_listing("You have files.", TOOLS)
GOAL = "Goal: move a\nObservation:\na b"


def context(*contents: str, tools: tuple[Tool, ...] = TOOLS, system: str = SYSTEM) -> Context:
    roles = ("user", "assistant") * len(contents)
    said = [Message(role=role, content=content) for role, content in zip(roles, contents, strict=False)]
    return Context("k", (Message(role="system", content=system), *said), 0, "files", tools)


def policy(native_tools: bool = True) -> LLMPolicy:
    llm = LLM("openai/local-model", role="teacher", backoff=0.01, retries=0, timeout=20.0)
    return LLMPolicy(llm, native_tools=native_tools)


def calling(*calls: tuple[str, str], content: str | None = None) -> dict[str, Any]:
    entries = [
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": content, "tool_calls": entries}


def test_an_episode_goes_out_and_comes_back_in_openais_format(server: Any) -> None:
    server.answer = lambda text: calling(("fs_look", ""), content="Is it there?")
    (reply,) = policy().act(
        [context(GOAL, 'I move it.\nmove({"source": "x"})', "Note: no x\nObservation:\na b", "Hm.", "Note: act")]
    )
    assert reply.text == "Is it there?\nfs.look({})"
    (request,) = server.requests
    system, goal, call, result, *rest = request["messages"]
    assert system["content"] == "You have files.\nAct by calling exactly one tool in every reply."
    assert goal == {"role": "user", "content": GOAL}
    (made,) = call.pop("tool_calls")
    assert call == {"role": "assistant", "content": "I move it."}
    assert made == {
        "id": result["tool_call_id"],
        "type": "function",
        "function": {"name": "move", "arguments": '{"source": "x"}'},
    }
    assert (result["role"], result["content"]) == ("tool", "Note: no x\nObservation:\na b")
    assert rest == [{"role": "assistant", "content": "Hm."}, {"role": "user", "content": "Note: act"}]
    assert [tool["function"]["name"] for tool in request["tools"]] == ["move", "fs_look"], "providers take no dots"
    assert request["tools"][0]["function"]["parameters"] == MOVE.parameters


def test_the_first_of_several_calls_counts(server: Any) -> None:
    server.answer = lambda text: calling(("move", '{"source": "a"}'), ("move", '{"source": "b"}'))
    assert policy().act([context(GOAL)])[0].text == 'move({"source": "a"})'


def test_a_call_in_our_grammar_stays_valid(server: Any) -> None:
    server.answer = lambda text: 'By hand.\nmove({"source": "a"})'
    assert policy().act([context(GOAL)])[0].text == 'By hand.\nmove({"source": "a"})'


def test_arguments_that_are_no_json_are_left_to_the_grammar(server: Any) -> None:
    server.answer = lambda text: calling(("move", '{"source": "a'), content="So:\n")
    assert policy().act([context(GOAL)])[0].text == 'So:\nmove({"source": "a)'


@pytest.mark.parametrize(
    ("native", "asked"),
    [
        (False, context(GOAL, "fs.look({})", "Observation:\na")),
        (True, context(GOAL, 'click("r1")', "Observation:\na", tools=(), system="You act.")),
    ],
)
def test_text_only_is_sent_as_it_is(server: Any, native: bool, asked: Context) -> None:
    """By setting, and in environments without tools."""
    policy(native_tools=native).act([asked])
    (request,) = server.requests
    assert "tools" not in request
    assert request["messages"] == [message.model_dump() for message in asked.messages]


def test_a_batch_of_pages_and_tools(server: Any) -> None:
    server.answer = lambda text: "fs.look()"
    replies = policy().act([context(GOAL), context(GOAL, tools=(), system="You act.")])
    assert [reply.text for reply in replies] == ["fs.look()"] * 2
    assert sorted("tools" in request for request in server.requests) == [False, True]


def test_a_server_without_tools_ends_the_episode_with_the_setting_to_change(server: Any) -> None:
    body = json.dumps({"error": {"message": "local-model does not support tools", "type": "api_error"}})
    server.faults = [(400, body, {})]
    (reply,) = policy().act([context(GOAL)])
    assert 'teacher.tools = "text"' in reply.error


def test_names_that_providers_refuse_stay_apart() -> None:
    tools = tuple(Tool(name=name) for name in ("a.b", "a_b", "x" * 70 + "1", "x" * 70 + "2"))
    request = to_request(context(GOAL, "a_b({})", GOAL, tools=tools, system="s"))
    wire = [entry["function"]["name"] for entry in request.tools]
    assert len(set(wire)) == len(tools)
    assert all(len(name) <= 64 and "." not in name for name in wire)
    assert request.messages[2]["tool_calls"][0]["function"]["name"] == wire[1]
    assert [from_answer(Answer("", ((name, "{}"),)), tools) for name in wire] == [
        f"{tool.name}({{}})" for tool in tools
    ]


LINES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(LINES | st.just(""), st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_round_trip(thought: str, arguments: dict[str, Any]) -> None:
    """What a provider said reads in the next request as it said it."""
    name = "move"
    text = from_answer(Answer(thought, ((name, json.dumps(arguments)),)), TOOLS)
    assert text == join_reply(thought, tooling.write_call(name, arguments))
    message = to_request(context(GOAL, text, "Observation:\nb")).messages[2]
    assert message["content"] == (thought or None)
    function = message["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == (name, arguments)

"""A first thought is asked for once per episode, becomes part of the reply, and leaves later turns alone."""

from typing import Any

from tutelage.agents.first_thought import THINK, FirstThought
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.llm import LLM
from tutelage.types import Context, Message


def context(*texts: str) -> Context:
    roles = ["system", *["user", "assistant"] * len(texts)]
    messages = [Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[arg-type]
    return Context("files/x@1#0", tuple(messages), seed=0, environment="files")


def policy(server: Any) -> FirstThought:
    llm = LLM("openai/local-model", role="teacher", backoff=0.01)
    return FirstThought(LLMPolicy(llm, native_tools=False), llm)


def test_the_thought_comes_before_the_first_action(server: Any) -> None:
    server.answer = lambda text: "done()" if "began with" in text else "Look first.\n\nThen act."
    first = context("You look after files.", "Goal: tidy\nObservation:\nTop folder:")
    later = context("You look after files.", "Goal: tidy\nObservation:\nTop folder:", "list()", "Observation:\na")
    server_calls = len(server.requests)
    replies = policy(server).act([first])
    assert replies[0].text == "Look first.\ndone()"
    asked, acted = [request["messages"] for request in server.requests[server_calls:]]
    assert asked[0]["content"] == THINK
    assert "You began with this thought: Look first." in acted[-1]["content"]
    server.answer = lambda text: "done()"
    assert policy(server).act([later])[0].text == "done()"
    assert len(server.requests) == server_calls + 3


def test_without_a_thought_the_reply_is_the_plain_one(server: Any) -> None:
    server.faults = [(400, "{}", {})]
    server.answer = lambda text: "done()"
    reply = policy(server).act([context("s", "Goal: tidy\nObservation:\nTop folder:")])[0]
    assert reply.text == "done()"
    assert not reply.error

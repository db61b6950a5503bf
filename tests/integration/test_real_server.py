"""The LLM path with a real model over real HTTP: the OpenAI client, LiteLLM, structured answers, episodes.

So small a model answers poorly, and nothing here rests on its answers being right.
"""

from typing import Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import ActConfig
from tutelage.environments.files import Files
from tutelage.errors import PolicyFailed
from tutelage.llm import LLM, REPAIRS, Request
from tutelage.types import Ending, Message, Split
from tutelage.usage import UsageLog

CAPITAL = (Message(role="user", content="What is the capital of France?"),)


class Opinion(BaseModel):
    """Asked for below."""

    answer: Literal["yes", "no"]


def llm(model: str, usage: UsageLog, max_tokens: int = 12) -> LLM:
    return LLM(model, role="teacher", usage=usage, max_tokens=max_tokens, retries=0, timeout=300.0)


def test_the_openai_client_is_answered_and_what_the_server_cannot_do_is_ignored(served: Any, local_model: str) -> None:
    """It says 200 to requests for JSON, several answers, probabilities and a certain tool, and does none of it."""
    client = OpenAI()
    asked: Any = {"model": served.name, "messages": [CAPITAL[0].model_dump()], "max_tokens": 12, "temperature": 0}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    wanted: Any = {"n": 2, "logprobs": True, "tools": [tool], "tool_choice": "required"}
    plain = client.chat.completions.create(**asked)
    whole = client.chat.completions.create(**asked, **wanted, response_format={"type": "json_object"})
    stream = client.chat.completions.create(**asked, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    (choice,) = whole.choices
    assert (choice.logprobs, choice.message.tool_calls) == (None, None)
    assert "Paris" in (choice.message.content or "")
    assert not (choice.message.content or "").startswith("{")
    assert streamed == plain.choices[0].message.content == choice.message.content


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_is_answered_and_the_tokens_are_counted(served: Any, local_model: str, provider: str) -> None:
    usage = UsageLog()
    model = llm(f"{provider}/{served.name}", usage)
    assert "Paris" in model.complete(CAPITAL)
    words = ("Say yes.", "Count to three.", "What is water?")
    answers = model.answer_many([Request([{"role": "user", "content": text}]) for text in words])
    assert all(not isinstance(answer, Exception) and answer.text for answer in answers)
    total = usage.roles()["teacher"]
    assert (total.calls, total.unpriced, total.dollars) == (4, 4, 0)
    assert total.prompt_tokens > 4 * 10
    assert 4 <= total.completion_tokens <= 4 * 12


def test_a_structured_answer_fits_or_fails_once_after_bounded_repairs(local_model: str) -> None:
    usage = UsageLog()
    model = llm(local_model, usage, max_tokens=20)
    (answer,) = model.structured_many([(Message(role="user", content="Is water wet?"),)], Opinion)
    assert isinstance(answer, Opinion | PolicyFailed)
    assert 1 <= usage.total().calls <= 1 + REPAIRS
    if isinstance(answer, PolicyFailed):
        assert "fits Opinion" in str(answer)


@pytest.mark.parametrize("native", [True, False])
def test_episodes_come_to_an_end(local_model: str, native: bool) -> None:
    """Tools as data and tools as text; the model plays badly, and its mistakes are diagnoses."""
    policy = LLMPolicy(llm(local_model, UsageLog(), max_tokens=20), native_tools=native)
    episodes = run_episodes(
        Files.tasks(Split.TRAIN)[:2],
        policy,
        lambda _: Files(),
        act=ActConfig(width=2, max_steps=2),
    )
    assert len(episodes) == 2
    assert not {episode.ending for episode in episodes} & {Ending.POLICY_ERROR, Ending.ENVIRONMENT_ERROR}
    assert all(step.reply for episode in episodes for step in episode.steps)


def test_another_models_name_is_one_clear_error(local_model: str) -> None:
    usage = UsageLog()
    with pytest.raises(PolicyFailed, match="pinned to"):
        llm("openai/some-other-model", usage).complete(CAPITAL)
    assert usage.total().calls == 1

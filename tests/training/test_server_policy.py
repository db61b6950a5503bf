"""A student behind a server says what it says here, token for token, and a server that cannot be trusted is refused."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from token_server import TokenServer, token_server
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tutelage.errors import ConfigError
from tutelage.training.policy import StudentPolicy
from tutelage.training.server_policy import KEY, ServerPolicy, read
from tutelage.training.token_policy import Sampled
from tutelage.types import Context, Message, Policy, Reply, Tool

TURNS, LIMIT = 3, 8
TOOLS = (Tool(name="press", description="Press a key.", parameters={"type": "object", "properties": {}}),)


@pytest.fixture
def server(varied: tuple) -> Iterator[TokenServer]:
    with token_server(*varied) as served:
        yield served


def remote(server: TokenServer, temperature: float = 0.0, **settings: Any) -> ServerPolicy:
    settings = {"max_new_tokens": LIMIT, "backoff": 0.01, "names": ("student@0", "tiny"), **settings}
    return ServerPolicy(server.url, server.tokenizer, label="student@0", temperature=temperature, **settings)


def message(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


def opening(number: int) -> tuple[Message, ...]:
    return message("system", "You act."), message("user", f"Goal {number}: " + "do this " * (3 * number + 1))


def play(policy: Policy, tools: tuple[Tool, ...] = ()) -> list[list[Reply]]:
    """Four episodes of three turns each, side by side."""
    history = [opening(number) for number in range(4)]
    replies: list[list[Reply]] = [[] for _ in history]
    for turn in range(TURNS):
        contexts = [Context(f"e{n}", history[n], seed=100 * n + turn, tools=tools) for n in range(4)]
        for number, reply in enumerate(policy.act(contexts)):
            replies[number].append(reply)
            later = message("user", f"Observation {turn}: <|im_end|> " + "word " * (5 * number))
            history[number] += (message("assistant", reply.text), later)
    return replies


@pytest.mark.parametrize("tools", [(), TOOLS])
def test_greedy_equals_the_student_here(varied: tuple, server: TokenServer, tools: tuple[Tool, ...]) -> None:
    here = play(StudentPolicy(*varied, label="student@0", max_new_tokens=LIMIT), tools)
    there = play(remote(server), tools)
    ended = set()
    for one, other in zip(chain(*there), chain(*here), strict=True):
        assert one.tokens
        assert other.tokens
        assert (one.text, one.tokens.prompt, one.tokens.sampled) == (
            other.text,
            other.tokens.prompt,
            other.tokens.sampled,
        )
        assert one.tokens.logprobs == pytest.approx(other.tokens.logprobs, abs=1e-5)
        ended.add(one.tokens.sampled[-1] == server.tokenizer.eos_token_id)
    assert ended == {True, False}, "replies must end both ways"


def test_sampled_tokens_have_the_probabilities_of_their_temperature(varied: tuple, server: TokenServer) -> None:
    model, _ = varied
    replies = play(remote(server, 0.8))
    assert [[reply.text for reply in turns] for turns in replies] == [
        [reply.text for reply in turns] for turns in play(remote(server, 0.8))
    ], "the same seeds give the same replies"
    for turns in replies:
        ids: list[int] = []
        for reply in turns:
            assert reply.tokens
            ids += [*reply.tokens.prompt, *reply.tokens.sampled]
            scores = torch.log_softmax(model(torch.tensor([ids])).logits[0] / 0.8, -1)[
                -len(reply.tokens.sampled) - 1 : -1
            ]
            expected = [row[token].item() for row, token in zip(scores, reply.tokens.sampled, strict=True)]
            assert reply.tokens.logprobs == pytest.approx(expected, abs=1e-5)


def test_what_follows_the_end_of_turn_is_cut() -> None:
    """As from a server that went on sampling."""
    choice = {"token_ids": [5, 2, 7], "prompt_token_ids": [1], "logprobs": {"token_logprobs": [-1.0, -2.0, -3.0]}}
    assert read(choice, [1], end=2, specials=[]) == Sampled(ids=(5, 2), logprobs=(-1.0, -2.0))


def test_a_busy_server_is_asked_again(server: TokenServer) -> None:
    policy = remote(server)
    server.faults, server.busy = {"busy"}, 3
    (reply,) = policy.act([Context("k", opening(0), 0)])
    assert reply.tokens
    assert server.busy == 0


@pytest.mark.parametrize(
    ("fault", "said"), [("down", "400.*maximum context"), ("hung", "nothing answers"), ("no json", "JSON")]
)
def test_a_request_that_fails_for_good_costs_its_episode(server: TokenServer, fault: str, said: str) -> None:
    policy = remote(server, retries=1, timeout=0.5)
    server.faults = {fault}
    (reply,) = policy.act([Context("k", opening(0), 0)])
    assert reply.tokens is None
    assert re.search(said, reply.error)
    server.faults = set()
    assert policy.act([Context("other", opening(0), 0)])[0].tokens


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no ids", "gives no token ids"),
        ("no logprobs", "no log-probability"),
        ("raw logprobs", "before the temperature"),
        ("no top logprobs", "gives no top_logprobs"),
        ("another prompt", "another tokenizer"),
        ("down", "400"),
    ],
)
def test_a_server_that_cannot_do_it_is_refused_at_the_start(server: TokenServer, fault: str, said: str) -> None:
    server.faults = {fault}
    with pytest.raises(ConfigError, match=said):
        remote(server, 0.7, retries=0)


@pytest.mark.parametrize(("fault", "said"), [("another prompt", "changes the prompt"), ("hidden end", "leaves out")])
def test_a_server_that_changes_its_ways_ends_the_run(server: TokenServer, fault: str, said: str) -> None:
    policy = remote(server, max_new_tokens=200)
    server.faults = {fault}
    with pytest.raises(ConfigError, match=said):
        policy.act([Context(f"k{number}", opening(number), 0) for number in range(4)])


def test_another_tokenizer_is_refused(varied: tuple) -> None:
    model, tokenizer = varied
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["merges"] = content["model"]["merges"][:500]
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token="<|im_end|>")
    with token_server(model, other) as served, pytest.raises(ConfigError, match="another tokenizer"):
        ServerPolicy(served.url, tokenizer, names=["student@0"], label="student@0")


def test_other_weights_are_refused_by_name(server: TokenServer) -> None:
    with pytest.raises(ConfigError, match=r"serves student@0, not student@3.*--served-model-name student@3"):
        remote(server, names=("student@3", "/w/students/3"))
    assert remote(server, names=("student@3", "/weights/student@0")), "known by the folder it was read from"


def test_nothing_there_is_one_clear_error(varied: tuple) -> None:
    with pytest.raises(ConfigError, match=r"student.server: nothing answers at http://127.0.0.1:9/v1/models"):
        ServerPolicy("http://127.0.0.1:9", varied[1], names=["tiny"], label="s", retries=1, backoff=0.01)


def test_too_long_an_episode_is_not_sent(server: TokenServer) -> None:
    policy = remote(server, max_length=64)
    sent = len(server.requests)
    long, short = policy.act([Context("long", opening(30), 0), Context("short", opening(0), 0)])
    assert "too long" in long.error
    assert short.tokens
    assert len(server.requests) == sent + 1


def test_a_changed_history_and_a_forgotten_one_are_read_anew(server: TokenServer) -> None:
    policy = remote(server)
    policy.act([Context("k", opening(1), 0)])
    other = (*opening(1), message("assistant", "something else"), message("user", "What now?"))
    first = policy.act([Context("k", other, 0)])[0]
    policy.forget(["k", "never seen"])
    assert policy.act([Context("k", other, 0)])[0] == first
    assert first.tokens
    assert policy.encoder.conversation(other) == list(first.tokens.prompt)


def test_the_key_is_its_own(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for strangers")
    assert "authorization" not in remote(server)._client.headers
    monkeypatch.setenv(KEY, "for this server")
    assert remote(server)._client.headers["authorization"] == "Bearer for this server"

"""One attempt at a call, against a real server that does everything wrong that providers do."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tutelage import completion
from tutelage.completion import MAX_REPLY, AttemptFailed, Call, Response, attempt, clean

OPENAI, ANTHROPIC = "openai/local-model", "anthropic/claude-sonnet-4-5"
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"})
TOOL = {"type": "function", "function": {"name": "read", "parameters": {"type": "object", "properties": {}}}}
PATIENT, HASTY = 60.0, 0.5

AGAIN, NEVER = "may succeed later", "will not"
OUTCOMES: dict[str, str | None] = {
    "fine": None,
    "400": NEVER,
    "429": AGAIN,
    "429 for seconds": AGAIN,
    "429 until a date": AGAIN,
    "429 for nonsense": AGAIN,
    "500": AGAIN,
    "503": AGAIN,
    "529": AGAIN,
    "502 page": AGAIN,
    "reset": AGAIN,
    "reset midway": AGAIN,
    "hang": AGAIN,
    "slow drip": AGAIN,
    "slow headers": AGAIN,
    "truncated": AGAIN,
    "short": AGAIN,
    "wrong schema": AGAIN,
    "not an object": AGAIN,
    "deep": AGAIN,
    "refusal": NEVER,
    "filtered": NEVER,
    "wrong tool": None,
    "broken arguments": None,
    "10 MB": NEVER,
    "endless": NEVER,
    "invalid UTF-8": AGAIN,
    "lone surrogate": None,
    "wrong type": None,
    "page": AGAIN,
    "roles must alternate": NEVER,
}
DIFFERENT: dict[tuple[str, str], str | None] = {
    (OPENAI, "no usage"): None,
    (ANTHROPIC, "no usage"): AGAIN,
    (OPENAI, "empty choice"): AGAIN,
    (OPENAI, "null content"): None,
    (ANTHROPIC, "empty choice"): None,
    (ANTHROPIC, "null content"): AGAIN,
}
"""Where the two formats mean different things."""
SLOW = ("hang", "slow drip", "slow headers")


@pytest.fixture(autouse=True)
def ready(misbehaving: Any) -> None:
    """LiteLLM loads parts of itself with the first calls, which takes longer than the hasty ones wait."""
    for model in (OPENAI, ANTHROPIC):
        attempt(call(model, tools=(TOOL,)), timeout=PATIENT)


def call(model: str, *, tools: Any = (), **options: Any) -> Call:
    return Call(model=model, messages=MESSAGES, tools=tools, options={"max_tokens": 100, **options})


def failing(misbehaving: Any, fault: str, model: str = OPENAI, timeout: float = PATIENT) -> completion.Failure:
    misbehaving.play([fault])
    with pytest.raises(AttemptFailed) as failed:
        attempt(call(model), timeout=timeout)
    return failed.value.failure


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def outcome(misbehaving: Any, fault: str, model: str) -> str | None:
    """None for a fit answer, else what the failure says about another attempt; its line is checked here."""
    misbehaving.play([fault])
    try:
        response = attempt(call(model), timeout=HASTY if fault in SLOW else PATIENT)
    except AttemptFailed as error:
        line, transient = str(error), error.failure.transient
    else:
        response.model_dump_json().encode()
        return None
    assert line.startswith(f"{model}: ")
    assert len(line) < 400
    assert "\n" not in line
    assert "verysecret" not in line
    return AGAIN if transient else NEVER


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
def test_whatever_goes_wrong_is_one_request_and_an_answer_or_a_line(misbehaving: Any, model: str) -> None:
    expected = OUTCOMES | {fault: said for (asked, fault), said in DIFFERENT.items() if asked == model}
    assert set(expected) == set(misbehaving.faults)
    for fault, said in expected.items():
        assert outcome(misbehaving, fault, model) == said, fault
        wait_for(lambda: misbehaving.seen)
        assert len(misbehaving.seen) == 1, fault


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
def test_an_answer_with_what_it_cost(misbehaving: Any, model: str) -> None:
    response = attempt(call(model), timeout=PATIENT)
    assert (response.text, response.finish) == ("you said Hello", "stop")
    used = response.usage
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens) == (10, 5, 6)
    assert (used.dollars is None) is (model == OPENAI), "the local model has no price"
    assert Response.model_validate_json(response.model_dump_json()) == response


def test_how_long_to_wait(misbehaving: Any) -> None:
    assert failing(misbehaving, "429").wait == 0
    assert failing(misbehaving, "429 for seconds").wait == 0.2
    assert failing(misbehaving, "429 for nonsense").wait == 0
    misbehaving.busy = 1000.0
    assert 500 < failing(misbehaving, "429 until a date").wait <= 1000
    assert failing(misbehaving, "429 for seconds", ANTHROPIC).wait == 0.2


def test_the_deadline_holds_while_bytes_still_come(misbehaving: Any) -> None:
    for fault in ("slow drip", "slow headers"):
        failure = failing(misbehaving, fault, timeout=HASTY)
        assert "no whole answer within 0.5 s" in failure.line


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
def test_refusals_and_endless_replies_say_so_and_are_paid_for(misbehaving: Any, model: str) -> None:
    refused = failing(misbehaving, "refusal", model)
    assert "refused: I will not." in refused.line
    endless = failing(misbehaving, "10 MB", model)
    assert str(MAX_REPLY) in endless.line
    assert "more than" in failing(misbehaving, "endless", model).line
    for failure in (refused, endless):
        assert failure.usage is not None
        assert failure.usage.completion_tokens == 5


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
def test_calls_of_tools_come_as_they_are(misbehaving: Any, model: str) -> None:
    misbehaving.play(["wrong tool", "broken arguments"])
    (wrong,), (broken,) = (attempt(call(model, tools=(TOOL,)), timeout=PATIENT).calls for _ in range(2))
    assert wrong[0] == "launch_rocket"
    assert "moon" in wrong[1]
    assert broken[0] == "read"
    with pytest.raises(AttributeError):  # text where an object belongs; what to do about it is not decided here
        json.loads(broken[1] if model == ANTHROPIC else json.dumps(broken[1])).items()


def test_tokens_are_counted_where_the_provider_does_not(misbehaving: Any) -> None:
    misbehaving.play(["no usage"])
    used = attempt(call("openai/gpt-4o"), timeout=PATIENT).usage
    assert used.prompt_tokens > 5
    assert used.completion_tokens > 2
    assert used.dollars is not None
    assert 0 < used.dollars < 0.01


def test_secrets_and_doubled_prefixes_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    assert clean("litellm.AError: AError: bad\nkey hunter2hunter2") == "AError: bad key [secret]"
    assert clean("bad \ud800") == "bad ?"


def test_nothing_is_fetched_and_nothing_loaded_too_early() -> None:
    """LiteLLM would fetch prices when imported, and Anthropic's beta headers with the first call."""
    script = (
        "import os, sys, socket\n"
        "asked, real = [], socket.getaddrinfo\n"
        "def listening(host, *rest, **more):\n"
        "    asked.append(str(host))\n"
        "    return real(host, *rest, **more)\n"
        "socket.getaddrinfo = listening\n"
        "from tutelage.completion import Call, attempt, AttemptFailed\n"
        "import tutelage.llm\n"
        "print('EARLY', 'litellm' in sys.modules)\n"
        "os.environ.update(ANTHROPIC_API_BASE='http://127.0.0.1:9', ANTHROPIC_API_KEY='x')\n"
        "form = {'name': 'x', 'schema': {'type': 'object', 'properties': {}}}\n"
        "options = {'max_tokens': 5, 'response_format': {'type': 'json_schema', 'json_schema': form}}\n"
        "messages = ({'role': 'user', 'content': 'x'},)\n"
        "try: attempt(Call(model='anthropic/claude-sonnet-4-5', messages=messages, options=options))\n"
        "except AttemptFailed as error: print('FAILED', error)\n"
        "print('HOSTS', sorted(set(asked)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "EARLY False" in done.stdout
    assert "FAILED anthropic" in done.stdout
    assert "HOSTS ['127.0.0.1']" in done.stdout, done.stdout + done.stderr

"""Recording against a real local server, replay without it."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tutelage.agents.llm_policy import LLMPolicy
from tutelage.cassette import Cassette, NotRecorded, hash_of
from tutelage.completion import AttemptFailed, Call, Failure, Response, Spent
from tutelage.config import BudgetConfig
from tutelage.errors import BudgetSpent, ConfigError, TutelageError
from tutelage.llm import LLM, Request
from tutelage.types import Context, Message
from tutelage.usage import Usage, UsageLog

KEY = "sk-verysecretindeed1234"
PASSWORD = "correct horse battery"


class Verdict(BaseModel):
    good: bool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exchanges" / "run.jsonl"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[str], Cassette]]:
    """Opens the cassette in a mode, closing the one before."""
    cassettes: list[Cassette] = []

    def reopened(mode: Any) -> Cassette:
        for cassette in cassettes:
            cassette.close()
        cassettes.append(Cassette(path, mode))
        return cassettes[-1]

    yield reopened
    for cassette in cassettes:
        cassette.close()


def said(text: str, **options: Any) -> Call:
    return Call(model="openai/x", messages=({"role": "user", "content": text},), options=options)


def numbered() -> Callable[[Call], Response]:
    """Answers with the number of times it was called."""
    numbers = count(1)
    return lambda call: Response(text=f"answer {next(numbers)}", usage=Spent(prompt_tokens=3, dollars=0.25))


def never(call: Call) -> Response:
    raise AssertionError("a provider was called")


def conversation(cassette: Cassette, usage: UsageLog, budget: BudgetConfig | None = None) -> list[Any]:
    """Several calls, one of them refused twice at first, one repaired, two the same, one that fails for good."""
    llm = LLM(
        "openai/local-model", role="teacher", usage=usage, budget=budget, cassette=cassette, concurrency=1, backoff=0.01
    )
    plain = [Request([{"role": "user", "content": text}]) for text in ("one", "two", "same", "same")]
    answers: list[Any] = llm.answer_many(plain)
    answers.append(llm.structured([Message(role="user", content="judge")], Verdict))
    answers.append(str(llm.answer_many([Request([{"role": "user", "content": "refused"}])])[0]))
    return answers


def test_a_recorded_run_plays_again_without_the_server(
    server: Any, opened: Callable[[str], Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(status: int) -> tuple[int, str, dict[str, str]]:
        return status, json.dumps({"error": {"message": "no"}}), {"retry-after": "1"}

    numbers, plain = count(), server.respond

    def respond(request: dict[str, Any]) -> tuple[int, str, dict[str, str]]:
        if request["messages"][-1]["content"] == "refused":
            server.faults = [fault(400)]
        answer: tuple[int, str, dict[str, str]] = plain(request)
        return answer

    def answer(text: str) -> str:
        return '{"good": true}' if text.startswith("That does not fit") else f"{text} {next(numbers)}"

    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    server.faults, server.answer, server.respond = [fault(503), fault(503)], answer, respond
    live = UsageLog()
    recorded = conversation(opened("record"), live)
    assert [item.text for item in recorded[:4]] == ["one 0", "two 1", "same 2", "same 3"]
    assert recorded[4] == Verdict(good=True)
    assert len(slept) == 2
    assert live.total() == Usage(calls=9, prompt_tokens=60, completion_tokens=30, unpriced=6), (
        "3 refusals, 4 plain answers, an answer and its repair"
    )

    server.http.shutdown()
    server.http.server_close()
    slept.clear()
    usage = UsageLog()
    assert conversation(opened("replay"), usage, BudgetConfig(calls=1)) == recorded
    assert usage.total() == Usage(replayed=9), "free, and no budget stands in the way"
    assert sum(slept) == 0


def test_an_interrupted_recording_goes_on_with_what_is_missing(path: Path, opened: Callable[[str], Cassette]) -> None:
    make = numbered()
    first = opened("record")
    before = [first.attempt(said(text), make) for text in ("a", "b", "a")]
    assert [item.text for item in before] == ["answer 1", "answer 2", "answer 3"]
    again = opened("record")
    after = [again.attempt(said(text), make) for text in ("a", "a", "b", "b", "c")]
    assert [item.text for item in after] == ["answer 1", "answer 3", "answer 2", "answer 4", "answer 5"]
    assert [item.replayed for item in after] == [True, True, True, False, False]
    assert after[0].usage == before[0].usage
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert all(entry["hash"] == hash_of(entry["request"]) for entry in entries), "readers can check it"
    replay = opened("replay")
    assert [replay.attempt(said("b"), never).text for _ in range(3)] == ["answer 2", "answer 4", "answer 4"]


def test_what_failed_for_good_is_asked_again_by_the_next_recording(opened: Callable[[str], Cassette]) -> None:
    def refuse(call: Call) -> Response:
        raise AttemptFailed(Failure(line="no such key", status=401))

    def busy(call: Call) -> Response:
        raise AttemptFailed(Failure(line="busy", status=503, transient=True))

    def failing(cassette: Cassette, text: str, make: Callable[[Call], Response]) -> None:
        with pytest.raises(AttemptFailed):
            cassette.attempt(said(text), make)

    first, make = opened("record"), numbered()
    failing(first, "wrong key", refuse)
    failing(first, "wrong key", refuse)
    failing(first, "outage", busy)
    failing(first, "retried", busy)
    assert first.attempt(said("retried"), make).text == "answer 1"
    failing(opened("replay"), "wrong key", never)

    again = opened("record")
    failing(again, "retried", never)
    assert again.attempt(said("retried"), never).text == "answer 1", "paid for once"
    assert again.attempt(said("wrong key"), make).text == "answer 2"
    assert again.attempt(said("outage"), make).text == "answer 3"
    failing(again, "wrong key", refuse)
    replay = opened("replay")
    assert [replay.attempt(said(text), never).text for text in ("wrong key", "outage")] == ["answer 2", "answer 3"]
    failing(replay, "wrong key", never)


def test_with_a_schema_and_without_are_two_requests(
    misbehaving: Any, opened: Callable[[str], Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider refuses the schema: several threads may have asked with it before the first one hears of that."""

    def refuse(call: Call) -> Response:
        raise AttemptFailed(Failure(line="unknown parameter", status=400))

    recording, make = opened("record"), numbered()
    native, other = (said("same", response_format={"type": kind}) for kind in ("a", "b"))
    for _ in range(2):
        with pytest.raises(AttemptFailed):
            recording.attempt(native, refuse)
    assert [recording.attempt(said("same"), make).text for _ in range(2)] == ["answer 1", "answer 2"]
    replay = opened("replay")
    for answer in ("answer 1", "answer 2"):
        with pytest.raises(AttemptFailed):
            replay.attempt(other, never)
        assert replay.attempt(said("same"), never).text == answer

    def verdicts(mode: str, *texts: str) -> list[Any]:
        llm = LLM("openai/gpt-4o", role="judge", cassette=opened(mode), concurrency=1)
        return llm.structured_many([[Message(role="user", content=text)] for text in texts], Verdict)

    misbehaving.say = lambda text: json.dumps({"good": text == "one"})
    misbehaving.play(["400"])
    assert verdicts("record", "one", "two") == [Verdict(good=True), Verdict(good=False)]
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")  # of which nothing is known yet
    assert verdicts("replay", "two", "one") == [Verdict(good=False), Verdict(good=True)]


@pytest.mark.parametrize("lost", ["line end", "half a line", "all but a byte", "half the header"])
def test_a_kill_while_writing_costs_one_line_at_most(path: Path, opened: Callable[[str], Cassette], lost: str) -> None:
    make = numbered()
    cassette = opened("record")
    for text in ("a", "é", "b"):
        cassette.attempt(said(text), make)
    cassette.close()
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    cut = {"line end": -1, "half a line": (last + len(whole)) // 2, "all but a byte": last + 1, "half the header": 9}
    path.write_bytes(whole[: cut[lost]])
    kept = 0 if lost == "half the header" else 2
    assert len(opened("replay")) == kept
    again = opened("record")
    assert len(again) == kept
    again.attempt(said("c"), make)
    assert len(opened("replay")) == kept + 1


def test_secrets_do_not_reach_the_file_and_both_runs_see_the_same(
    path: Path, opened: Callable[[str], Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    planted = f"the key is {KEY}, the password {PASSWORD}, see https://me:pass1word@host/, key_columns of the bearer of"
    call = Call(
        model="openai/x",
        messages=({"role": "user", "content": planted},),
        tools=({"type": "function", "function": {"name": "f", "description": planted}},),
        options={
            "api_key": KEY,
            "extra_headers": {"Authorization": PASSWORD},
            "user": planted,
            "session_token": "xyzzy",
        },
    )

    def answer(call: Call) -> Response:
        assert call.messages[0]["content"] == planted, "only what is kept is cleaned"
        return Response(text=planted, calls=(("f", json.dumps({"x": planted})),))

    def refuse(call: Call) -> Response:
        raise AttemptFailed(Failure(line=planted, status=401))

    cassette = opened("record")
    live = cassette.attempt(call, answer)
    with pytest.raises(AttemptFailed) as failure:
        cassette.attempt(call, refuse)
    text = path.read_text()
    for secret in (KEY, PASSWORD, "pass1word", "xyzzy"):
        assert secret not in text
    replay = opened("replay")
    assert replay.attempt(call, never) == live.model_copy(update={"replayed": True})
    with pytest.raises(AttemptFailed, match="the key is") as again:
        replay.attempt(call, never)
    assert str(again.value) == str(failure.value)
    assert "key_columns of the bearer of" in live.text, "plain words stay"
    assert json.loads(live.calls[0][1])["x"] == live.text


def test_a_model_is_asked_for_and_kept_under_its_own_name(
    opened: Callable[[str], Cassette], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "my-model-2b")
    one, other = (said("a").model_copy(update={"model": f"openai/{name}"}) for name in ("my-model-2b", "[secret]"))
    opened("record").attempt(one, numbered())
    with pytest.raises(NotRecorded, match='in its model: recorded "openai/my-model-2b"'):
        opened("replay").attempt(other, never)


def test_what_does_not_matter_for_the_answer_does_not_count(opened: Callable[[str], Cassette]) -> None:
    opened("record").attempt(said("a", temperature=0, api_base="http://here", timeout=3), numbered())
    replay = opened("replay")
    assert replay.attempt(said("a", timeout=9, temperature=0), never).text == "answer 1"
    with pytest.raises(NotRecorded, match=r"in its options: recorded .*0.*asked .*1"):
        replay.attempt(said("a", temperature=1), never)


def test_a_missing_answer_says_where_the_runs_part(opened: Callable[[str], Cassette]) -> None:
    def talk(*contents: str, model: str = "openai/x") -> Call:
        roles = ("system", "user", "assistant", "user")
        messages = tuple({"role": role, "content": text} for role, text in zip(roles, contents, strict=False))
        return Call(model=model, messages=messages)

    cassette, make = opened("record"), numbered()
    for call in (talk("s", "goal: a door", "open"), talk("t", "goal: a window"), talk("s", "goal: a gate", "open")):
        cassette.attempt(call, make)
    replay = opened("replay")
    for asked, told in (
        (talk("s", "goal: a dog"), "message 1 (user), at character 10: recorded 'goal: a door', asked 'goal: a dog'"),
        (talk("s", "goal: a gate", "open", "more"), "in length: 3 messages recorded, 4 asked"),
        (talk("t", "goal: a window", model="openai/y"), 'in its model: recorded "openai/x", asked "openai/y"'),
    ):
        with pytest.raises(NotRecorded) as missing:
            replay.attempt(asked, never)
        assert told in str(missing.value)
        assert 'cassette.mode = "record"' in str(missing.value)
    llm = LLM("openai/x", role="teacher", usage=(usage := UsageLog()), cassette=replay)
    context = Context(key="k", messages=(Message(role="user", content="hello"),), seed=0)
    with pytest.raises(BudgetSpent):  # a run stops, rather than counting a broken episode
        LLMPolicy(llm).act([context])
    assert usage.total() == Usage()


def test_embedded_models_are_not_recorded(opened: Callable[[str], Cassette]) -> None:
    cassette = opened("record")
    llm = LLM("expert/toy", role="teacher", cassette=cassette)
    assert isinstance(llm.answer_many([Request([{"role": "user", "content": "hello"}])])[0], TutelageError)
    assert len(cassette) == 0


def test_one_process_records(path: Path) -> None:
    cassette = Cassette(path, "record")
    for mode in ("record", "replay"):
        with pytest.raises(ConfigError, match="only one may record"):
            Cassette(path, mode)
    cassette.close()
    readers = [Cassette(path, "replay"), Cassette(path, "replay")]
    with pytest.raises(ConfigError, match="in use"):
        Cassette(path, "record")
    for reader in readers:
        reader.close()
    Cassette(path, "record").close()


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (None, "replay", "there is no cassette"),
        (b"my only diary", "record", "no cassette; nothing was changed"),
        (b'{"a": 1}\n', "record", "no cassette; nothing was changed"),
        (b'{"cassette": 7, "tutelage": "9.9"}\n', "record", "format 7, made by Tutelage 9.9"),
        (b'{"cassette": 1}\nnot an entry\n', "replay", "line 2 of the cassette .* is damaged"),
    ],
)
def test_other_files_are_left_alone(path: Path, content: bytes | None, mode: Any, problem: str) -> None:
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        Cassette(path, mode)
    assert (path.read_bytes() if path.exists() else None) == content

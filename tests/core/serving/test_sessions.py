"""Which request belongs to which conversation, and what of it is in the record."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.record import Record
from tutelage.redaction import Redactor
from tutelage.serving.sessions import KEY_FILE, Sessions, Turn, drop_turns, open_turns
from tutelage.serving.types import Answer, Chat, ChatMessage, Options, Prepared, Prompt, Sampling, TokenCount, ToolCall
from tutelage.types import Tool

IDLE = 100.0
Talk = Callable[..., str]


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def said(text: str, *calls: ToolCall) -> ChatMessage:
    return ChatMessage("assistant", text, calls)


def chat(*messages: ChatMessage, caller: str = "ann", session: str = "", tools: tuple[Tool, ...] = ()) -> Chat:
    prompt = Prompt(messages, Sampling(10), tools)
    return Chat("req_1", caller, f"of-{caller}", prompt, Options(session=session))


def answer(text: str, *calls: ToolCall, student: str = "student@1") -> Answer:
    return Answer(student, text, calls, "tool_calls" if calls else "stop", TokenCount(1, 1))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.open(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(record: Record, clock: Clock) -> Sessions:
    return Sessions(record, Redactor(), idle=IDLE, clock=clock)


def keep(sessions: Sessions, asked: Chat, reply: Answer) -> str:
    """Keep an exchange; returns the conversation that it is a turn of now, or empty if it is of none."""
    before = sessions._record.items("turn")
    sessions.keep(Prepared(asked, asked.prompt, record=True), reply)
    changed = [key for key, body in sessions._record.items("turn").items() if before.get(key) != body]
    assert len(changed) < 2
    return changed[0].partition("/")[0] if changed else ""


def in_v7(*messages: ChatMessage) -> Chat:
    return chat(*messages, session="v7")


def turns_of(record: Record, session: str) -> list[Turn]:
    return open_turns(record)[session]


def test_a_request_that_continues_a_conversation_is_its_next_turn_also_after_a_restart(
    record: Record, sessions: Sessions, clock: Clock
) -> None:
    first = keep(sessions, chat(ChatMessage("system", "Be brief."), user("Hi")), answer(" Hello "))
    again = Sessions(record, Redactor(), idle=IDLE, clock=clock)
    further = (ChatMessage("system", "Be brief."), user("Hi"), said("Hello"), user("Thanks"))

    second = keep(again, chat(*further), answer("Welcome", student="student@2"))

    assert first == second
    one, two = turns_of(record, first)
    assert [message.content for message in one.came] == ["Be brief.", "Hi"]
    assert [message.content for message in two.came] == ["Thanks"]
    assert [turn.student for turn in (one, two)] == ["student@1", "student@2"]
    assert two.tenant == "of-ann"


def test_only_what_was_kept_from_its_beginning_is_known(record: Record, sessions: Sessions) -> None:
    unknown = chat(user("Hi"), said("Something this server never said"), user("Go on"))

    assert sessions.find(unknown) is None
    assert keep(sessions, unknown, answer("Well")) == ""
    first = keep(sessions, chat(user("Hi")), answer("Hello"))
    follow_up = (user("Hi"), said("Hello"), user("Go on"))
    assert keep(sessions, chat(*follow_up, caller="bob"), answer("No")) == "", "another key's"
    assert keep(sessions, chat(user("Hi"), said("Hello?"), user("Go on")), answer("No")) == "", "another reply"
    assert keep(sessions, chat(*follow_up), answer("Yes")) == first
    assert keep(sessions, chat(user("Hi")), answer("Hello")) != first, "every beginning is a conversation of its own"
    assert {session: len(turns) for session, turns in open_turns(record).items()}[first] == 2


def test_a_reply_that_is_asked_for_again_replaces_the_last_one(record: Record, sessions: Sessions) -> None:
    session = keep(sessions, chat(user("Hi")), answer("Hello"))
    asked = (user("Hi"), said("Hello"), user("Tell me a joke"))
    keep(sessions, chat(*asked), answer("A bad one"))
    keep(sessions, chat(*asked), answer("A good one"))
    keep(sessions, chat(*asked, said("A good one"), user("Haha")), answer("Glad"))

    assert [turn.reply.content for turn in turns_of(record, session)] == ["Hello", "A good one", "Glad"]


def test_a_conversation_that_its_caller_names_needs_not_repeat_itself(record: Record, sessions: Sessions) -> None:
    session = keep(sessions, chat(user("Hi"), session="ada@example.org"), answer("Hello"))
    shortened = chat(said("(what was said before)"), user("And now?"), session="ada@example.org")

    assert keep(sessions, shortened, answer("Now")) == session
    assert keep(sessions, chat(*shortened.prompt.messages, session="other"), answer("Now")) == ""
    assert "example.org" not in str(record.items("turn"))


def test_calls_are_recognised_however_a_client_writes_them(sessions: Sessions) -> None:
    call = ToolCall("call_1", "move", '{"source": "a", "target": "b"}')
    session = keep(sessions, chat(user("Move it")), answer("", call))
    echoed = replace(call, id="other", arguments='{"target":"b","source":"a"}')
    result = ChatMessage("tool", "done", call_id="other")

    assert keep(sessions, chat(user("Move it"), said("", echoed), result), answer("It is moved")) == session


def test_what_is_kept_is_redacted_and_recognised_all_the_same(record: Record, sessions: Sessions) -> None:
    tool = Tool(
        name="mail", description="As ada@example.org", parameters={"properties": {"to": {"default": "x@y.org"}}}
    )
    call = ToolCall("c", "mail", '{"to": "bob@example.org", "password": "hunter2"}')
    asked = (ChatMessage("system", "key AKIAIOSFODNN7EXAMPLE"), user("call +49 30 1234567"))
    session = keep(sessions, chat(*asked, tools=(tool,)), answer("to bob@example.org", call))
    result = ChatMessage("tool", '{"token_of": "x", "api_key": "abcdef"}')
    further = (*asked, said("to bob@example.org", call), result)

    assert keep(sessions, chat(*further, tools=(tool,)), answer("done")) == session
    kept = str(record.items("turn"))
    for secret in ("example.org", "y.org", "AKIA", "1234567", "hunter2", "abcdef"):
        assert secret not in kept


def test_what_was_closed_is_not_continued(record: Record, sessions: Sessions) -> None:
    session = keep(sessions, chat(user("Hi")), answer("Hello"))
    drop_turns(record, session)

    assert keep(sessions, chat(user("Hi"), said("Hello"), user("Still there?")), answer("Yes")) == ""
    assert not open_turns(record)


def test_what_nobody_continues_is_let_go_of(sessions: Sessions, clock: Clock) -> None:
    keep(sessions, chat(user("Hi")), answer("Hello"))
    follow_up = chat(user("Hi"), said("Hello"), user("Go on"))
    assert sessions.find(follow_up) is not None
    clock.now += 3 * IDLE
    keep(sessions, chat(user("Somebody else")), answer("Hello"))

    assert sessions.find(follow_up) is None


def test_what_follows_on_a_reply_that_was_not_kept_is_not_kept_either(record: Record, sessions: Sessions) -> None:
    """Otherwise it would be taken for what follows on the reply before."""
    session = keep(sessions, in_v7(user("Capital of France?")), answer("Paris"))
    before = (user("Capital of France?"), said("Paris"), user("Something private"))

    assert keep(sessions, in_v7(*before, said("A reply not kept"), user("No, wrong.")), answer("Sorry")) == ""
    assert len(turns_of(record, session)) == 1
    shortened = (ChatMessage("system", "Be brief."), user("(a summary)"), said(" Paris"), user("Thanks"))
    assert keep(sessions, in_v7(*shortened), answer("Welcome")) == session


def test_a_name_that_is_given_to_another_tenants_key_finds_nothing(sessions: Sessions) -> None:
    for name in ("", "v7"):
        first = chat(user("Hi"), session=name)
        assert keep(sessions, first, answer("Hello"))
        further = chat(user("Hi"), said("Hello"), user("Go on"), session=name)
        assert sessions.find(further) is not None
        assert sessions.find(replace(further, tenant="another")) is None


def test_conversations_that_differ_in_a_secret_alone_are_told_apart(record: Record, sessions: Sessions) -> None:
    asked = [(user(f"My mail is {name}@example.org. Hi"),) for name in ("ann", "bob")]
    first, second = (keep(sessions, chat(*one), answer("Hello")) for one in asked)

    assert keep(sessions, chat(*asked[0], said("Hello"), user("Mine?")), answer("Yes")) == first
    assert keep(sessions, chat(*asked[1], said("Hello"), user("Mine?")), answer("Yes")) == second


def test_digests_are_of_no_use_without_a_key_that_is_not_in_the_record(tmp_path: Path, clock: Clock) -> None:
    kept = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        record = Record.open(folder)
        keep(Sessions(record, Redactor(), idle=IDLE, clock=clock), in_v7(user("Hi")), answer("Hello"))
        kept.append(next(iter(record.items("turn").values())))
        key = folder / KEY_FILE
        assert (key.stat().st_mode & 0o777, len(key.read_bytes())) == (0o600, 32)
        assert key.read_bytes().hex() not in str(kept[-1])
    for field in ("name", "asked", "tip", "said"):
        assert kept[0][field] != kept[1][field], field
    assert (tmp_path / "a" / KEY_FILE).read_bytes() != (tmp_path / "b" / KEY_FILE).read_bytes()


def test_ids_of_calls_are_counted_for_they_may_hold_anything(record: Record, sessions: Sessions) -> None:
    calls = [ToolCall(f"my-key-{place}-AKIAIOSFODNN7EXAMPLE", "look", "{}") for place in (1, 2)]
    session = keep(sessions, chat(user("Look")), answer("", *calls))
    results = [ChatMessage("tool", "found", call_id=call.id) for call in reversed(calls)]
    keep(sessions, chat(user("Look"), said("", *calls), *results), answer("Here"))

    one, two = turns_of(record, session)
    assert [call.id for call in one.reply.calls] == ["call_1", "call_2"]
    assert [message.call_id for message in two.came] == ["call_2", "call_1"]
    assert "my-key" not in str(record.items("turn"))


def test_arguments_stay_json_where_a_number_is_taken_out(record: Record, sessions: Sessions) -> None:
    written = '{"page_token": 1234567, "pages": [1, 2.50], "deep": {"card": 4111111111111111, "all": true}}'
    session = keep(sessions, chat(user("Look")), answer("", ToolCall("c", "look", written)))

    (turn,) = turns_of(record, session)
    assert json.loads(turn.reply.calls[0].arguments) == {
        "page_token": "[secret]",
        "pages": [1, 2.5],
        "deep": {"card": "[card]", "all": True},
    }


def test_nobody_waits_for_what_is_being_redacted(record: Record, clock: Clock) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Redactor):
        def text(self, text: str) -> str:
            begun.set()
            assert go_on.wait(30)
            return super().text(text)

    sessions = Sessions(record, Slow(), idle=IDLE, clock=clock)
    keeping = threading.Thread(target=keep, args=(sessions, chat(user("Hi")), answer("Hello")))
    keeping.start()
    assert begun.wait(30)
    finding = threading.Thread(target=sessions.find, args=(chat(user("A"), said("B"), user("C")),))
    finding.start()
    finding.join(5)
    waited = finding.is_alive()
    go_on.set()
    keeping.join(30)
    finding.join(30)
    assert not waited

"""What is done around a request: experiences in, forbidden calls held back, the exchange kept or not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import Config
from tutelage.conversation import turn_message
from tutelage.experience import Experience, Guardrail, Skill, Source, Status
from tutelage.memory.store import MemoryStore
from tutelage.serving.assist import Assistance
from tutelage.serving.sessions import open_turns
from tutelage.serving.types import Answer, Chat, ChatMessage, Options, Prompt, Sampling, TokenCount, ToolCall
from tutelage.types import Tool
from tutelage.workspace import Workspace

DELETE = Tool(name="delete", parameters={"properties": {"path": {"type": "string"}}})
ASKED = "How do I reset the router?"


def experience(
    content: Skill | Guardrail, *, environment: str = "served", origin: str = "own", **more: Any
) -> Experience:
    source = Source(trajectory="" if origin != "own" else "trj_1", task="toy/press@1", origin=origin)
    return Experience(
        environment=environment,
        family="network",
        goal="reset the router",
        content=content,
        sources=(source,),
        author="test",
        status=Status.ACTIVE,
        **more,
    )


SKILL = Skill(preconditions=("A router",), procedure=("Hold the button for ten seconds",), verification=("It blinks",))
RULE = Guardrail(
    trigger=("*production*",),
    root_cause="Production is not to be deleted from.",
    forbidden='delete(path="*")',
    remedy="Ask first.",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    config = {
        "workspace": tmp_path,
        "environments": [{"name": "toy"}],
        "memory": {"trust": {"environments": {"served": 1.0, "shop": 1.0}}},
    }
    found = Workspace(Config.model_validate(config))
    yield found
    found.close()


def remember(workspace: Workspace, *items: Experience, tenant: str = "default") -> list[Experience]:
    with MemoryStore(workspace.record, workspace.folder / "index", workspace.memory._config, tenant=tenant) as store:
        return [store.add(item.model_copy(update={"tenant": tenant})) for item in items]


def chat(*messages: ChatMessage, tenant: str = "default", tools: tuple[Tool, ...] = (), **options: Any) -> Chat:
    asked = messages or (ChatMessage("system", "Help."), ChatMessage("user", ASKED))
    return Chat("req_1", "ann", tenant, Prompt(asked, Sampling(10), tools), Options(**options))


def replied(text: str = "Like this.", **more: Any) -> Answer:
    return Answer("student@1", text, (), "stop", TokenCount(1, 1), **more)


def test_experiences_stand_in_the_first_message_as_in_episodes_and_stay_the_same(workspace: Workspace) -> None:
    (skill,) = remember(workspace, experience(SKILL))
    assist = Assistance(workspace)
    asked = chat(memory=True)
    prepared = assist.prepare(asked)

    (shown,) = prepared.shown
    assert shown.id == skill.id
    system, user = prepared.prompt.messages
    assert (system.content, user.content) == ("Help.", f"Experience:\n- {shown.text}\n{ASKED}")
    assist.keep(prepared, replied(shown=prepared.shown))
    other = experience(SKILL.model_copy(update={"procedure": ("Reset the router by its reset menu",)}))
    remember(workspace, other, other.model_copy(update={"id": "exp_x", "family": "served"}))
    further = (*asked.prompt.messages, ChatMessage("assistant", "Like this."), ChatMessage("user", "And now?"))
    again = assist.prepare(chat(*further, memory=True))
    assert again.prompt.messages[: len(prepared.prompt.messages)] == prepared.prompt.messages
    assert len(open_turns(workspace.record)) == 1
    assist.close()

    goal = turn_message("[r1] button Reset", goal="reset the router", shown=prepared.shown).content
    plain = turn_message("[r1] button Reset", goal="reset the router").content
    episode = Assistance(workspace).prepare(chat(ChatMessage("user", plain), memory=True))
    assert episode.shown
    assert (
        episode.prompt.messages[0].content
        == turn_message("[r1] button Reset", goal="reset the router", shown=episode.shown).content
    )
    assert goal.startswith("Experience:\n- ")


def test_a_conversation_reads_the_same_experiences_as_before_though_what_is_kept_is_redacted(
    workspace: Workspace,
) -> None:
    remember(workspace, experience(SKILL.model_copy(update={"procedure": ("Write to ada@example.org",)})))
    assist = Assistance(workspace)
    first = assist.prepare(chat(memory=True))
    assist.keep(first, replied())

    follow_up = (*first.chat.prompt.messages, ChatMessage("assistant", "Like this."), ChatMessage("user", "And now?"))
    assert "ada@example.org" in str(first.shown)
    assert assist.prepare(chat(*follow_up, memory=True)).shown == first.shown
    assert "example.org" not in str(workspace.record.items("turn"))
    assist.close()
    after_a_restart = Assistance(workspace)
    assert "[e-mail]" in str(after_a_restart.prepare(chat(*follow_up, memory=True)).shown)
    after_a_restart.close()


def test_that_nothing_was_shown_stays_so_and_memory_can_be_asked_for_later(workspace: Workspace) -> None:
    follow_up = (*chat().prompt.messages, ChatMessage("assistant", "Like this."), ChatMessage("user", "And now?"))
    for asked_first, shown in ((True, 0), (False, 1)):
        assist = Assistance(workspace)
        name = f"memory-{asked_first}"
        assist.keep(assist.prepare(chat(memory=asked_first, session=name)), replied())
        remember(workspace, experience(SKILL))
        for again in (assist, Assistance(workspace)):
            assert len(again.prepare(chat(*follow_up, memory=True, session=name)).shown) == shown
            again.close()
        for item in workspace.memory.experiences():
            workspace.memory.forget(item.id, reason="test", by="test")


def test_a_turn_says_whether_anything_could_be_done_around_it(workspace: Workspace) -> None:
    assist = Assistance(workspace)
    offered: dict[str, Any] = {"tools": (DELETE,)}
    for options in ({}, {"memory": True}, offered, {**offered, "guardrails": False}):
        assist.keep(assist.prepare(chat(**options)), replied())
    kept = workspace.record.items("turn").values()
    assert [turn["memory"] for turn in kept] == [False, True, True, False]
    assist.close()


def test_memory_is_a_switch_and_each_caller_sees_its_own(workspace: Workspace) -> None:
    remember(workspace, experience(SKILL))
    remember(workspace, experience(SKILL, environment="shop"), tenant="other")
    assist = Assistance(workspace)

    assert assist.prepare(chat()).shown == ()
    assert assist.prepare(chat(memory=False)).shown == ()
    assert assist.prepare(chat(memory=True, environment="shop")).shown == ()
    assert assist.prepare(chat(memory=True, tenant="other")).shown == ()
    assert assist.prepare(chat(memory=True, tenant="other", environment="shop")).shown
    assist.close()


def test_what_is_not_trusted_is_neither_shown_nor_enforced(workspace: Workspace) -> None:
    remember(workspace, experience(SKILL, origin="live:bob"), experience(RULE, origin="live:bob"))
    assist = Assistance(workspace)
    prepared = assist.prepare(chat(memory=True, tools=(DELETE,)))

    assert prepared.shown == ()
    assert prepared.guardrails == ()
    assist.close()


def test_a_forbidden_call_is_held_back_with_the_remedy(workspace: Workspace) -> None:
    (rule,) = remember(workspace, experience(RULE))
    assist = Assistance(workspace)
    fine, bad = ToolCall("1", "look", "{}"), ToolCall("2", "delete", '{"path": "/data"}')
    here = (
        ChatMessage("user", "Clean up"),
        ChatMessage("assistant", "", (fine,)),
        ChatMessage("tool", "host: production"),
    )
    prepared = assist.prepare(chat(*here, tools=(DELETE,)))

    found = assist.blocked(prepared, (fine, bad))
    assert found is not None
    assert found.guardrail == rule.id
    assert "Ask first." in found.note
    assert "delete" in found.refusal
    assert "Ask first." in found.refusal
    assert assist.blocked(prepared, (fine,)) is None
    elsewhere = (*here[:2], ChatMessage("tool", "host: staging"))
    assert assist.blocked(assist.prepare(chat(*elsewhere, tools=(DELETE,))), (bad,)) is None
    assert assist.blocked(assist.prepare(chat(*here, tools=(DELETE,), guardrails=False)), (bad,)) is None
    workspace.memory.move(rule.id, Status.RETIRED, rule.change)
    assert assist.blocked(assist.prepare(chat(*here, tools=(DELETE,))), (bad,)) is None, "the newest ones are in force"
    assist.close()


@pytest.mark.parametrize(
    ("given", "seen", "held"),
    [
        ({"path": "/data", "text": "a"}, "up", True),
        ({"text": "a", "path": "/data"}, "up", True),
        ({"path": "/data", "text": "a" * 5000}, "up", True),
        ({"path": "/tmp", "text": "a" * 5000}, "up", False),
        ({"path": "/tmp", "text": "a" * 5000 + 'path="/data"'}, "up", False),
        ({"path": "/data", "text": "a"}, '{"state": "up", "log": "' + "x" * 5000 + '"}', True),
        ({"path": "/data", "text": "a"}, '{"state": "down", "log": "' + "x" * 5000 + '"}', False),
        ({"path": "/data"}, "up", False),
        ({"path": "/data", "text": "a", "force": True}, "up", False),
        ({"sure": True, "path": "/data/all", "force": True}, "up", True),
        ({"sure": True, "path": "/data/all"}, "up", False),
    ],
)
def test_neither_length_nor_order_takes_a_call_past_a_guardrail(
    workspace: Workspace, given: dict[str, Any], seen: str, held: bool
) -> None:
    patterns = ('write(path="/data", text="*")', 'write(path="/data/all"*force=true*)')
    rules = (RULE.model_copy(update={"trigger": ("*up*",), "forbidden": pattern}) for pattern in patterns)
    remember(workspace, *(experience(rule) for rule in rules))
    assist = Assistance(workspace)
    here = (ChatMessage("user", "Clean up"), ChatMessage("assistant", "ok"), ChatMessage("tool", seen))
    found = assist.blocked(assist.prepare(chat(*here, tools=(DELETE,))), (ToolCall("1", "write", json.dumps(given)),))
    assert (found is not None) is held
    assist.close()


def test_guardrails_at_hand_are_bounded_however_many_environments_are_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.serving.assist.MOST_RULES", 3)
    (rule,) = remember(workspace, experience(RULE))
    assist = Assistance(workspace)
    for name in ("served", "a", "b", "c", "served"):
        found = assist.prepare(chat(tools=(DELETE,), environment=name)).guardrails
        assert [item.id for item in found] == ([rule.id] if name == "served" else [])
    assert len(assist._rules) == 3
    assist.close()


def test_a_request_can_opt_out_of_being_kept_and_none_can_opt_in(workspace: Workspace, tmp_path: Path) -> None:
    assist = Assistance(workspace)
    before = (tmp_path / "record.db-wal").read_bytes()
    private = assist.prepare(chat(ChatMessage("user", "my pet is an aardvark"), record=False))
    assist.keep(private, replied("a fine aardvark"))
    said = (
        *private.chat.prompt.messages,
        ChatMessage("assistant", "a fine aardvark"),
        ChatMessage("user", "isn't it?"),
    )
    assist.keep(assist.prepare(chat(*said)), replied("yes, the aardvark"))
    assert (tmp_path / "record.db-wal").read_bytes() == before, "nor what a later request repeats of it"
    assist.close()

    learning = workspace.config.serve.learning.model_copy(update={"record": False})
    serve = workspace.config.serve.model_copy(update={"learning": learning})
    workspace.config = workspace.config.model_copy(update={"serve": serve})
    assist = Assistance(workspace)
    assist.keep(replace(assist.prepare(chat(record=True)), record=True), replied())
    assert not open_turns(workspace.record)
    assist.close()

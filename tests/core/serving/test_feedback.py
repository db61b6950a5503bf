"""Conversations that are over: how they are judged, what they become, and what is learned from them."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tutelage import cycle
from tutelage.agents.feedback import Opinion, Signal, _signal
from tutelage.config import BudgetConfig, Config
from tutelage.conversation import conversation
from tutelage.distilling import extract, judge
from tutelage.progress import Reporter
from tutelage.record_forgetting import FEEDBACK
from tutelage.redaction import Redactor
from tutelage.serving.feedback import REASONS, _keep, settle, trajectory_of
from tutelage.serving.rendering import conversation as rendered
from tutelage.serving.retention import DAY, Tending, expire
from tutelage.serving.sessions import Sessions, open_turns
from tutelage.serving.types import (
    Answer,
    Chat,
    ChatMessage,
    Finish,
    Options,
    Prepared,
    Prompt,
    Sampling,
    TokenCount,
    ToolCall,
)
from tutelage.types import SERVED, Cause, Ending, Shown, Split, Tool, Trajectory
from tutelage.workspace import Workspace

QUIET = Reporter(None)
NOW = 1_800_000_000.0
MOVE = Tool(name="move", parameters={"properties": {"a": {"type": "string"}}})


class Client:
    """Talks to a server that says what it is told to, and keeps it."""

    def __init__(self, workspace: Workspace, caller: str = "ann", tenant: str = "default", at: float = NOW) -> None:
        learning = workspace.config.serve.learning
        self.sessions = Sessions(workspace.record, Redactor(), idle=learning.idle, clock=lambda: at)
        self.caller, self.tenant = caller, tenant
        self.messages: tuple[ChatMessage, ...] = ()

    def say(
        self,
        message: ChatMessage | str,
        reply: str,
        *calls: ToolCall,
        finish: Finish = "stop",
        student: str = "student@1",
        **more: Any,
    ) -> None:
        self.messages += (ChatMessage("user", message) if isinstance(message, str) else message,)
        prompt = Prompt(self.messages, Sampling(10), more.pop("tools", ()))
        chat, shown = Chat("r", self.caller, self.tenant, prompt, Options()), more.pop("shown", ())
        prepared = Prepared(chat, prompt, shown=shown, record=True, recalled=bool(shown), memory=bool(shown))
        answer = Answer(student, reply, calls, finish, TokenCount(1, 1), shown, more.pop("blocked", ()))
        self.sessions.keep(prepared, answer)
        self.messages += (ChatMessage("assistant", reply, calls),)


def made(folder: Path, **learning: Any) -> Workspace:
    config = {
        "workspace": folder,
        "environments": [{"name": "toy"}],
        "teacher": {"model": "expert/*"},
        "serve": {"learning": {"idle": 100, **learning}},
    }
    return Workspace(Config.model_validate(config))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    found = made(tmp_path / "w")
    yield found
    found.close()


def only(workspace: Workspace, tenant: str = "default") -> Trajectory:
    (item,) = workspace.record.trajectories(arm=SERVED, tenant=tenant)
    return item


def test_a_conversation_is_judged_by_what_followed_and_kept_whole(workspace: Workspace) -> None:
    shown = (Shown(id="exp_1", version=2, text="Be exact."),)
    client = Client(workspace, caller="ann", tenant="team")
    client.say("What is 2+2?", "Five.", shown=shown)
    client.say("No, that is wrong.", "Four.", shown=shown)
    client.say("Thanks!", "Any time.", student="student@2", shown=shown)

    assert settle(workspace, NOW + 50).trajectories == (), "it is not over yet"
    settled = settle(workspace, NOW + 100)

    item = only(workspace, "team")
    assert workspace.record.trajectories(arm=SERVED) == [], "nobody else's runs learn from it"
    assert settled.count(Ending.SOLVED) == 1
    assert (item.origin, item.tenant, item.policy) == ("live:ann", "team", "student@1 → student@2")
    assert (item.task.environment, item.task.family, item.task.split) == ("served", "served", Split.TRAIN)
    assert (item.goal, item.ending, item.reward, item.memory) == ("What is 2+2?", Ending.SOLVED, 0.0, True)
    assert [step.reward for step in item.steps] == [-1, 1, 0]
    assert [step.diagnosis.cause for step in item.steps] == [Cause.ACTION_FAILED, Cause.PROGRESS, Cause.NO_EFFECT]
    assert item.steps[0].diagnosis.evidence == "The user answered: No, that is wrong."
    assert [step.after for step in item.steps] == ["No, that is wrong.", "Thanks!", ""]
    assert item.shown == shown
    verdict = workspace.record.verdict(item.id)
    assert verdict is not None
    assert (verdict.successful, verdict.cited, verdict.reason) == (True, (0,), REASONS[Ending.SOLVED])
    assert "(scripted)" in verdict.judge
    assert not open_turns(workspace.record)
    assert settle(workspace, NOW + 500).trajectories == ()
    kept = workspace.record.get(FEEDBACK, item.id)
    assert kept is not None
    assert [signal["votes"] for signal in kept["signals"]] == [[-1], [1]]


@pytest.mark.parametrize(
    ("followed", "ending"),
    [
        ((), Ending.UNCLEAR),
        (("And what of Rome?",), Ending.UNCLEAR),
        (("Thanks!", "And what of Rome?"), Ending.SOLVED),
        (("Thanks!", "No, that is wrong."), Ending.FAILED),
        (("No, that is wrong.", "Great, thank you"), Ending.SOLVED),
    ],
)
def test_the_last_clear_sign_decides(workspace: Workspace, followed: tuple[str, ...], ending: Ending) -> None:
    client = Client(workspace)
    for text in ("What is the capital?", *followed):
        client.say(text, "Paris.")

    settle(workspace, everything=True)

    assert only(workspace).ending is ending
    waiting = [item for item in cycle.experience_trajectories(workspace) if item.ending is not Ending.UNCLEAR]
    assert len(waiting) == (ending is not Ending.UNCLEAR)


def test_votes_without_a_majority_are_unclear() -> None:
    def voted(*scores: int) -> Signal:
        return _signal([Opinion(score=score, correction="Say it in French, please.") for score in scores])  # type: ignore[arg-type]

    assert voted(1, 1, -1).reward == 1
    assert voted(1, -1, 0) == Signal(votes=(1, -1, 0))
    assert voted(1, -1).reward == 0
    assert voted(-1, -1, 0) == Signal(reward=-1, correction="Say it in French, please.", votes=(-1, -1, 0))


def test_tools_and_their_results_are_steps_that_read_as_they_were_said(workspace: Workspace) -> None:
    client = Client(workspace)
    calls = (ToolCall("c1", "move", '{"a": "x"}'), ToolCall("c2", "move", '{"a": "y"}'))
    client.say("Move x", "I move it.", calls[0], tools=(MOVE,), finish="tool_calls")
    client.say(ChatMessage("tool", "Error: no such file", call_id="c1"), "Then y.", calls[1], tools=(MOVE,))
    client.say(ChatMessage("tool", "done", call_id="c2"), "Moved.", tools=(MOVE,))

    settle(workspace, everything=True)

    item = only(workspace)
    assert [(step.action, step.meaning) for step in item.steps] == [
        ('move({"a": "x"})', 'move(a="x")'),
        ('move({"a": "y"})', 'move(a="y")'),
        ("Moved.", ""),
    ]
    assert [step.reward for step in item.steps] == [-1, 1, 0]
    asked = conversation(item)
    assert asked[:-1] == rendered(client.messages[:-1], (MOVE,)), "token for token what the student was given"
    assert asked[-1].content == "Moved."


def test_tools_that_are_offered_later_are_tools_of_the_conversation(workspace: Workspace) -> None:
    client = Client(workspace)
    wider = MOVE.model_copy(update={"description": "Moves all."})
    client.say("Hi", "Hello.", tools=(MOVE,))
    client.say("Look", "", ToolCall("c1", "look", "{}"), tools=(Tool(name="look"), wider), finish="tool_calls")

    settle(workspace, everything=True)

    item = only(workspace)
    assert item.tools == (wider, Tool(name="look"))
    assert "look()" in item.system


def test_a_judge_without_a_usable_answer_leaves_the_conversation_and_is_not_quoted(
    tmp_path: Path, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = made(tmp_path)
    teacher = workspace.config.teacher.model_copy(update={"judge": "openai/judge", "concurrency": 1, "retries": 0})
    for question in ("What is 2+2?", "What is 3+3?"):
        client = Client(workspace, at=time.time() - 1000)
        client.say(question, "Four.")
        client.say("Thanks!", "Any time.")
    workspace.close()
    good = '{"score": 1, "correction": ""}'
    server.answer = lambda text: good if "3+3" in text else '{"score": "my pet is an aardvark"}'

    judging = Workspace(workspace.config.model_copy(update={"teacher": teacher}))
    settled = settle(judging, everything=True)

    assert (settled.left, [item.goal for item in settled.trajectories]) == (1, ["What is 3+3?"])
    assert settled.unusable == tuple(open_turns(judging.record))
    tending = Tending(judging.config)
    asked = []
    for _ in range(3):
        tending.once()
        asked.append(len(server.requests))
        tending._unusable = {} if len(asked) == 2 else tending._unusable
    assert asked[0] == asked[1] < asked[2], "it costs nothing until it is asked again"
    assert len(open_turns(judging.record)) == 1, "it is judged another time"
    assert "cannot be judged: PolicyFailed" in caplog.text
    assert "aardvark" not in caplog.text
    server.faults = [(503, '{"error": {"message": "too busy for your aardvark"}}', {})] * 9
    assert settle(judging, everything=True).left == 1
    assert "wait for their judge: AttemptFailed, status 503" in caplog.text
    assert "aardvark" not in caplog.text
    judging.close()


def test_a_conversation_that_is_an_episode_is_read_as_one(workspace: Workspace) -> None:
    client = Client(workspace)
    client.say("Goal: Press OK\nObservation:\n[r1] button OK", 'I see it.\nclick("r1")')
    client.say("Observation:\ndone", "noop()")

    settle(workspace, everything=True)

    item = only(workspace)
    assert (item.goal, item.plain) == ("Press OK", False)
    assert [step.observation for step in item.steps] == ["[r1] button OK", "done"]
    assert (item.steps[0].thought, item.steps[0].action) == ("I see it.", 'click("r1")')
    assert conversation(item)[1:] == rendered((*client.messages, ChatMessage("user", "")))[1:-1]


def test_a_refused_reply_is_a_blocked_step(workspace: Workspace) -> None:
    client = Client(workspace)
    client.say("Delete all", "That was held back.", finish="content_filter", blocked=("exp_7",))
    client.say("Thanks", "Sure.")
    settle(workspace, everything=True)

    step = only(workspace).steps[0]
    assert (step.diagnosis.cause, step.blocked_by) == (Cause.BLOCKED, "exp_7")


def test_live_data_is_learned_from_only_where_it_is_trusted(tmp_path: Path) -> None:
    workspace = made(tmp_path)
    for caller in ("ann", "bob"):
        client = Client(workspace, caller=caller)
        client.say("What is 2+2?", "Four.")
        client.say("Thanks!", "Any time.")
    settle(workspace, everything=True)
    assert len(cycle.accepted_trajectories(workspace)) == 2
    assert cycle.trainable_trajectories(workspace) == []
    judge(workspace, 1, QUIET)
    extract(workspace, 1, QUIET)  # the scripted distiller knows nothing of such conversations, and says so
    assert len(workspace.record.verdicts()) == 2, "who judged the turns is not asked again"
    workspace.close()
    trust = {"memory": {"trust": {"sources": {**workspace.config.memory.trust.sources, "live:ann": 0.9}}}}
    raised = Config.model_validate({**workspace.config.model_dump(), **trust})
    trusting = Workspace(raised)
    assert [item.origin for item in cycle.trainable_trajectories(trusting)] == ["live:ann"]
    trusting.close()


def test_old_conversations_are_forgotten_with_all_that_they_said(tmp_path: Path) -> None:
    workspace = made(tmp_path, retention_days=30)
    for at, word in ((NOW - 31 * DAY, "aardvark"), (NOW, "chameleon"), (NOW - 31 * DAY, "bumblebee")):
        client = Client(workspace, at=at)
        client.say(f"What is a {word}?", "An animal.")
        client.say(f"No, a {word} is wrong here.", "Oh.")
        if word != "bumblebee":
            settle(workspace, everything=True)
    assert len(open_turns(workspace.record)) == 1

    gone = expire(workspace, NOW)

    assert (gone.trajectories, gone.under_way) == (1, 1)
    assert expire(workspace, NOW).total == 0
    workspace.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("record.db*"))
    assert [word for word in (b"aardvark", b"bumblebee", b"chameleon") if word in kept] == [b"chameleon"]


def test_the_newest_of_all_tenants_are_found_by_caller_and_time(workspace: Workspace) -> None:
    for place, (caller, tenant) in enumerate([("ann", "a"), ("bob", "b"), ("ann", "b")]):
        Client(workspace, caller=caller, tenant=tenant, at=NOW + place).say(f"Question {place}", "Well.")
    settle(workspace, everything=True)

    def found(**wanted: Any) -> list[str]:
        return [item.goal for item in workspace.record.served(**wanted)]

    assert found() == ["Question 0", "Question 1", "Question 2"]
    assert found(limit=2) == ["Question 1", "Question 2"]
    assert found(caller="ann") == ["Question 0", "Question 2"]
    assert found(caller="ann", limit=1) == ["Question 2"]
    assert found(before=datetime.fromtimestamp(NOW + 1, UTC)) == ["Question 0"]


def test_what_cannot_be_judged_now_waits(tmp_path: Path) -> None:
    workspace = made(tmp_path)
    client = Client(workspace)
    client.say("What is 2+2?", "Four.")
    client.say("Are you sure?", "Yes.")
    client.say("Thanks!", "Any time.")
    workspace.close()
    poor = Workspace(workspace.config.model_copy(update={"budget": BudgetConfig(calls=1)}))
    settled = settle(poor, everything=True)
    assert (settled.left, len(open_turns(poor.record))) == (1, 1)
    assert str(settled).endswith("1 could not be judged now")
    poor.close()


def test_a_conversation_that_goes_on_while_it_is_judged_stays_open(workspace: Workspace) -> None:
    client = Client(workspace)
    client.say("Hi", "Hello")
    (turns,) = open_turns(workspace.record).values()
    client.say("Thanks!", "Any time.")

    assert _keep(workspace.record, turns, trajectory_of(turns, [], "served"), [], "judge") is None
    assert len(open_turns(workspace.record)[turns[0].session]) == 2


def test_a_server_judges_by_itself_until_it_is_stopped(tmp_path: Path) -> None:
    workspace = made(tmp_path, idle=0.05)
    client = Client(workspace, at=time.time() - 1)
    client.say("What is 2+2?", "Four.")
    client.say("Thanks!", "Any time.")
    stop = threading.Event()
    tending = threading.Thread(target=Tending(workspace.config).run, args=(stop,))
    tending.start()
    end = time.monotonic() + 120
    while not workspace.record.trajectories(arm=SERVED):
        assert time.monotonic() < end
        time.sleep(0.02)
    stop.set()
    tending.join(60)
    assert not tending.is_alive()
    assert only(workspace).ending is Ending.SOLVED
    workspace.close()

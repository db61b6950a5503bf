"""From real requests to training rows: what is planted in conversations is nowhere afterwards, and what users were
content with is learned from once it is trusted."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import command
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from planted import OWN, PIECE, SECRETS, payload, pieces
from serve_process import PATIENCE, serving

from tutelage import cycle
from tutelage.config import Config
from tutelage.experience import Experience, Skill, Source, Sticker
from tutelage.memory.own_words import in_own_words
from tutelage.record import Record
from tutelage.serving.assist import Assistance
from tutelage.serving.types import Answer, Chat, ChatMessage, Prompt, Sampling, TokenCount
from tutelage.training.chat import ChatEncoder
from tutelage.training.samples import sft_rows
from tutelage.training.weights import load_tokenizer
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Tool, Trajectory
from tutelage.workspace import Workspace

MARKER = "aardvark"
"""A word of what was not to be kept."""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Of `tiny`; what is said to its student is trusted."""
    config = Config.model_validate(
        {
            "workspace": tmp_path,
            "environments": [{"name": "toy"}],
            "teacher": {"model": "expert/*"},
            "student": {"weights": "tiny", "max_length": 8000},
            "memory": {"trust": {"sources": {"own": 1.0, "import": 0.3, "user": 0.6, "live": 0.9}}},
            "serve": {"max_new_tokens": 8, "learning": {"redact": [OWN], "idle": 3600}},
        }
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    Record.open(tmp_path).close()
    return tmp_path


@contextmanager
def client_of(workspace: Path) -> Iterator[httpx.Client]:
    """A client of a server process, whose log is in the workspace."""
    with serving(workspace, "--no-jobs") as (url, _, _), httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield client


def talk(client: httpx.Client, messages: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """The conversation with the student's reply."""
    answer = client.post("/chat/completions", json={"model": "student", "messages": messages, **more})
    assert answer.status_code == 200, answer.text
    reply = answer.json()["choices"][0]["message"]
    return [*messages, {name: reply[name] for name in ("role", "content", "tool_calls") if reply.get(name)}]


def planted(client: httpx.Client, secrets: dict[str, str], number: int) -> None:
    """Conversations with these in every place that a request has; their users are content.

    Args:
        number: tells conversations about the same secrets apart; what is asked once more is no other conversation.
    """
    listed, name = "\n".join([*secrets.values(), f"({number})"]), f"{secrets['e-mail']}/{secrets['GitHub']}/{number}"
    call = {"name": "note", "arguments": json.dumps({"text": listed})}
    tool = {
        "name": "note",
        "description": secrets["e-mail"],
        "parameters": {"type": "object", "title": secrets["phone"]},
    }
    thanks = {"role": "user", "content": f"Thanks! {secrets['card']}"}
    said = talk(client, [{"role": "system", "content": listed}, {"role": "user", "content": "Hi"}])
    talk(client, [*said, thanks], tutelage={"session": f"{secrets['e-mail']}/{number}"})
    said = talk(
        client,
        [{"role": "user", "content": json.dumps({"mine": listed})}],
        tools=[{"type": "function", "function": tool}],
    )
    asked = [{"role": "user", "content": listed}]
    echoed = [
        *asked,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": call}]},
    ]
    talk(
        client,
        [*echoed, {"role": "tool", "tool_call_id": "c", "content": json.dumps([listed])}],
        user=secrets["e-mail"],
    )
    talk(client, [*talk(client, asked, tutelage={"session": name}), thanks], tutelage={"session": name})
    client.post("/chat/completions", json={"model": listed, "messages": asked})  # refused, and perhaps logged
    client.post("/chat/completions", content=listed.encode(), headers={"content-type": "application/json"})


def test_planted_secrets_are_in_no_file_and_no_training_row(
    workspace: Path, capsys: pytest.CaptureFixture[str], full_counts: bool
) -> None:
    every: list[dict[str, str]] = []
    with client_of(workspace) as client:

        @settings(
            max_examples=40 if full_counts else 3,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(secrets=st.fixed_dictionaries(SECRETS))
        def plant(secrets: dict[str, str]) -> None:
            every.append(secrets)
            planted(client, secrets, len(every))

        plant()
        private = talk(client, [{"role": "user", "content": f"{MARKER}?"}], tutelage={"record": False})
        talk(client, [*private, {"role": "user", "content": "Go on."}])
    assert command("served", "judge", "--all", "-s", f"workspace={workspace}") == 0
    assert command("served", "list", "--json", "-s", f"workspace={workspace}") == 0
    listed = capsys.readouterr().out

    found = Workspace(Config.model_validate_json((workspace / "config.json").read_text()), remember=False)
    episodes = [item for item in cycle.trainable_trajectories(found) if item.live]
    assert len(episodes) >= 2 * len(every), "those whose users were content"
    tokenizer = load_tokenizer("tiny")
    rows = sft_rows(episodes, ChatEncoder(tokenizer), 8000)
    assert len(rows.dataset) >= len(episodes)
    learned = "\n".join(tokenizer.decode(row) for row in rows.dataset["input_ids"])
    found.close()
    files = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    assert b"[e-mail]" in files[workspace / "record.db"]
    assert MARKER.encode() not in b"".join(files.values())
    left = runs(listed, learned, *(content.decode("latin-1") for content in files.values()))
    for kind, secret in (item for secrets in every for item in secrets.items()):
        kept = left & {piece for piece in pieces(kind, secret) if len(set(piece)) > 2}
        assert not kept, kind
        for text in {payload(kind, secret), json.dumps(payload(kind, secret))[1:-1]}:
            assert text not in learned, kind
            assert text not in listed, kind
            assert not [path.name for path, content in files.items() if text.encode() in content], kind


def runs(*texts: str) -> set[str]:
    """Every `PIECE` characters in a row of these texts; what is written as `\\u0041` is read."""
    read = (re.sub(r"\\+u00([0-7][0-9a-fA-F])", lambda found: chr(int(found[1], 16)), text) for text in texts)
    return {text[place : place + PIECE] for text in read for place in range(len(text) - PIECE + 1)}


def exchange(folder: Path, reply: str, *messages: ChatMessage) -> tuple[ChatMessage, ...]:
    """The conversation after a server that has just been started gave this reply."""
    found = Workspace(Config.model_validate_json((folder / "config.json").read_text()), remember=False)
    assist = Assistance(found)
    prepared = assist.prepare(Chat("req", "ann", "default", Prompt(messages, Sampling(8))))
    assist.keep(prepared, Answer("student@0", reply, (), "stop", TokenCount(1, 1)))
    assist.close()
    found.close()
    return (*messages, ChatMessage("assistant", reply))


def test_a_conversation_goes_on_over_a_restart_and_is_forgotten_on_demand(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-s", f"workspace={workspace}")
    said = exchange(workspace, "A bird.", ChatMessage("user", f"What is an {MARKER}?"))
    exchange(workspace, "Oh.", *said, ChatMessage("user", "No, that is wrong."))
    assert command("served", "judge", *here) == 0
    assert "0 conversations judged" in capsys.readouterr().out, "it may still go on"
    assert command("served", "list", "--json", *here) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["ending"], listed["turns"]) == ("under way", 2)
    assert command("served", "show", listed["id"], *here) == 0
    assert "assistant: A bird." in capsys.readouterr().out
    assert command("served", "judge", "--all", "--json", *here) == 0
    (made,) = json.loads(capsys.readouterr().out)["judged"]
    assert made["ending"] == Ending.FAILED
    assert command("served", "show", made["id"], *here) == 0
    assert "The user answered: No, that is wrong." in capsys.readouterr().out
    assert command("served", "forget", made["id"], "--yes", *here) == 0
    assert "1 served conversations are forgotten" in capsys.readouterr().out
    assert command("served", "list", *here) == 0
    assert "no served conversations" in capsys.readouterr().out
    assert MARKER.encode() not in b"".join(path.read_bytes() for path in workspace.rglob("*") if path.is_file())


def drawn(content: Skill | Sticker, origin: str) -> tuple[Experience, Trajectory]:
    """An experience, and the episode of a tool named by somebody that it was drawn from."""
    tool = Tool(name="send_money", parameters={"properties": {"to": {"type": "string"}}})
    taken = 'send_money(to="mallory")'
    done = Diagnosis(cause=Cause.PROGRESS)
    step = Step(observation="o", reply="r", action=taken, meaning=taken, after="o", diagnosis=done)
    task = Task(environment="served", family="served", seed=1, split=Split.TRAIN)
    common = {"task": task, "goal": "pay the bill", "system": "s", "policy": "p", "memory": False, "tools": (tool,)}
    source = Trajectory.model_validate({**common, "steps": (step,), "ending": Ending.SOLVED, "origin": origin})
    sources = (Source(trajectory=source.id, task=task.id, origin=origin),)
    about = {"environment": "served", "family": "served", "goal": source.goal, "author": "judge", "sources": sources}
    return Experience.model_validate({**about, "content": content}), source


@pytest.mark.parametrize(
    "content",
    [
        Sticker(conditions=("The goal reads: pay the bill",), question="Who is to be paid?"),
        Sticker(conditions=("What is called in such tasks: send_money.",), question="Who is to be paid?"),
        Skill(preconditions=(), procedure=('send_money(to="mallory")',), verification=()),
        Skill(
            preconditions=("The goal reads: pay the bill",), procedure=('send_money(to="mallory")',), verification=()
        ),
    ],
)
def test_a_request_and_its_callers_tools_are_told_to_nobody_else(content: Skill | Sticker) -> None:
    live, said = drawn(content, "live:mallory")
    assert in_own_words(live, [said])[0] is None
    own, played = drawn(content, "own")
    assert in_own_words(own, [played])[0] is not None, "whoever acts in an environment reads its tools anyway"
    offered = {"send_money", "to"}
    told, _ = in_own_words(live, [said], offered)
    assert (told is not None) is (content.kind == "sticker" or bool(content.preconditions)), (
        "own episodes have them too"
    )

"""A workspace gives every role its model, within the configured limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.cassette import Cassette
from tutelage.config import load_config
from tutelage.errors import PolicyFailed
from tutelage.types import Message
from tutelage.workspace import Workspace

HELLO = (Message(role="system", content="Be brief."), Message(role="user", content="Hello"))


def workspace(folder: Path, *settings: str) -> Workspace:
    return Workspace(load_config(None, [f"workspace={folder}", "environments.0.name=toy", *settings]))


def test_roles_have_their_models_and_all_keep_to_the_limits(tmp_path: Path, misbehaving: Any) -> None:
    models = {"model": "anthropic/claude-sonnet-4-5", "judge": "openai/gpt-4o", "designer": "openai/gpt-4o-mini"}
    limits = ("teacher.concurrency=3", "teacher.retries=1", "teacher.timeout=90")
    ours = workspace(tmp_path, *(f"teacher.{name}={model}" for name, model in models.items()), *limits)
    roles = ("teacher", "judge", "distiller", "persona", "designer")
    teacher, judge, distiller, persona, designer = (ours.llm(role) for role in roles)
    assert judge.model == models["judge"]
    assert {teacher.model, distiller.model} == {models["model"]}
    assert {persona.model, designer.model} == {models["designer"]}
    assert teacher.concurrency == judge.concurrency == 3
    misbehaving.play(["fine", "503", "503"])
    teacher.complete(HELLO)
    with pytest.raises(PolicyFailed):
        judge.complete(HELLO)
    sent = [body for _, body in misbehaving.seen]
    assert len(sent) == 3, "one retry"
    assert ["cache_control" in json.dumps(body) for body in sent] == [True, False, False]
    assert [body["temperature"] for body in sent] == [1, 0, 0]
    ours.close()


def test_votes_are_drawn_and_not_repeated(tmp_path: Path, misbehaving: Any) -> None:
    ours = workspace(tmp_path, "teacher.model=openai/gpt-4o", "teacher.votes=3")
    ours.llm("judge").complete(HELLO)
    assert misbehaving.seen[0][1]["temperature"] == 1
    ours.close()


def test_what_one_workspace_records_another_replays(tmp_path: Path, misbehaving: Any) -> None:
    tape = tmp_path / "tape.jsonl"
    settings = ("teacher.model=openai/gpt-4o", f"cassette.path={tape}")
    recording = workspace(tmp_path / "one", *settings, "cassette.mode=record")
    said = [recording.llm(role).complete(HELLO) for role in ("teacher", "judge")]
    recording.close()
    replaying = workspace(tmp_path / "two", *settings)
    misbehaving.play()
    assert [replaying.llm(role).complete(HELLO) for role in ("teacher", "judge")] == said
    assert not misbehaving.seen
    assert replaying.usage.total().calls == 0
    replaying.close()
    again = Cassette(tape, "record")  # the file is free again
    assert len(again) == 2
    again.close()

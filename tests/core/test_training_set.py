"""The training set as files: what `datasets` reads back is what training is given, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from tutelage.config import Config
from tutelage.corrections import Correction, keep
from tutelage.errors import RecordError
from tutelage.measures import Student
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.samples import sft_rows
from tutelage.training.whitebox import tokenizer_digest
from tutelage.training_set import MANIFEST, export
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split, Step, Task, Tokens, Trajectory
from tutelage.workspace import Workspace

SECRET = "a secret of the memory"


def episode(
    seed: int, *, tokens: bool = False, ending: Ending = Ending.SOLVED, shown: bool = False, split: Split = Split.TRAIN
) -> Trajectory:
    sampled = Tokens(prompt=(5, 6, 7), sampled=(8, 9), logprobs=(-0.5, -0.25)) if tokens else None
    reply, diagnosis = 'click("r1")', Diagnosis(cause=Cause.SOLVED)
    step = Step(observation=f"page {seed}", reply=reply, action=reply, after="", diagnosis=diagnosis, tokens=sampled)
    return Trajectory(
        task=Task(environment="toy", family="press", seed=seed, split=split),
        goal="go",
        system="You act.",
        policy="student@0+grpo.1" if tokens else "expert/toy (scripted)",
        memory=shown,
        shown=(Shown(id="exp_0123456789abcdef", version=1, text=SECRET),) if shown else (),
        steps=(step, step),
        ending=ending,
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Six demonstrations (one failed, one shown an experience, one forgotten), a correction, and a stage's rollouts."""
    settings = {"weights": "tiny", "dtype": "float32"}
    config = {"workspace": str(tmp_path / "w"), "environments": [{"name": "toy"}], "student": settings, "seed": 3}
    workspace = Workspace(Config.model_validate(config))
    record = workspace.record
    taught = [episode(0), episode(1), episode(2, shown=True), episode(3, ending=Ending.FAILED), episode(4)]
    for item in taught:
        record.add_trajectory(item, key=f"1/demonstrations/{item.task.id}", cycle=1, arm="demonstrations")
    reply = 'The red one.\nclick("r2")'
    keep(record, Correction(trajectory=taught[3].id, step=1, reply=reply, author="teacher/x"), arm="explored", cycle=1)
    record.forget_trajectory(taught[4].id, "asked to", "user")
    endings = (Ending.SOLVED, Ending.POLICY_ERROR, Ending.SOLVED, Ending.SOLVED)  # the second ran out of room
    played = [episode(10 + place // 2, tokens=True, ending=end) for place, end in enumerate(endings)]
    played.append(episode(12, tokens=True, shown=True))
    for place, item in enumerate(played):
        record.add_trajectory(item, key=f"1/grpo/1/1/{place}", cycle=1, arm="grpo")
    record.forget_trajectory(played[2].id, "asked to", "user")
    student = Student(
        number=1,
        stage="grpo",
        cycle=1,
        weights="students/1",
        digest="abc",
        trajectories=tuple(item.id for item in played),
        settings={"type": "grpo", "group_size": 2, "invalid_penalty": 0.1, "partial_credit": 0.0},
    )
    record.add_student(student)
    yield workspace
    workspace.close()


def read(folder: Path, part: str, format: str) -> list[dict[str, Any]]:
    loader = "json" if format == "jsonl" else "parquet"
    found = load_dataset(loader, data_files=str(folder / f"{part}.{format}"), cache_dir=str(folder.parent / "cache"))
    return [dict(row) for row in found["train"]]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_what_is_read_back_is_what_training_is_given(workspace: Workspace, tmp_path: Path, format: Any) -> None:
    manifest = export(workspace, tmp_path / "set", format)
    rows = read(tmp_path / "set", "sft", format)
    _, tokenizer = weights.load("tiny")
    accepted = workspace.record.trajectories(arm="demonstrations", success=True)
    wrong = workspace.record.trajectories(success=False)[0]
    correction = Correction(trajectory=wrong.id, step=1, reply='The red one.\nclick("r2")', author="teacher/x")
    wanted = sft_rows(accepted, ChatEncoder(tokenizer), corrections=[(wrong, correction)]).dataset
    assert [(row["input_ids"], row["labels"]) for row in rows] == [(row["input_ids"], row["labels"]) for row in wanted]
    assert [row["source"] for row in rows] == ["episode"] * 3 + ["correction"]
    assert [row["teacher"] for row in rows] == ["expert/toy (scripted)"] * 3 + ["teacher/x"]
    assert tokenizer.decode(rows[0]["input_ids"]) == rows[0]["text"]
    played = read(tmp_path / "set", "rollouts", format)
    assert [row["reward"] for row in played] == [1.0, 0.0, 1.0, 1.0]
    assert played[0]["group"] == played[1]["group"] != played[2]["group"]
    assert played[0]["input_ids"] == [5, 6, 7, 8, 9] * 2
    assert played[0]["labels"] == [-100, -100, -100, 8, 9] * 2
    assert played[0]["logprobs"] == [0.0, 0.0, 0.0, -0.5, -0.25] * 2
    stripped = played[3]
    assert stripped["stripped"]
    assert not stripped["logprobs"]
    assert [label for label in stripped["labels"] if label != -100] == [8, 9, 8, 9]
    for row in [*rows, *played]:
        assert SECRET not in row["text"]
    assert manifest == json.loads((tmp_path / "set" / MANIFEST).read_text())
    assert manifest["parts"]["sft"]["hashes"] == [row["hash"] for row in rows]
    assert len({row["hash"] for row in rows}) == 4


def test_the_manifest_says_where_everything_is_from_and_what_is_missing(workspace: Workspace, tmp_path: Path) -> None:
    manifest = export(workspace, tmp_path / "set")
    assert manifest["parts"]["sft"]["left out"] == {"forgotten": 2, "not successful": 1}
    assert manifest["parts"]["rollouts"]["left out"] == {"forgotten": 1}
    assert manifest["seed"] == manifest["config"]["seed"] == 3
    assert manifest["teacher"]["policies"] == ["expert/toy (scripted)", "teacher/x"]
    assert manifest["experiences"] == ["exp_0123456789abcdef"]
    assert manifest["students"][-1] == {"label": "student@1", "stage": "grpo", "cycle": 1, "digest": "abc"}
    forgotten = {stone.id for stone in workspace.record.tombstones()}
    assert forgotten
    assert not forgotten & set(manifest["trajectories"])
    other = weights.load_tokenizer("tiny")
    assert manifest["tokenizer"] == tokenizer_digest(other)
    other.chat_template += " "
    assert manifest["tokenizer"] != tokenizer_digest(other)


def test_held_out_tasks_are_refused_and_nothing_is_written(workspace: Workspace, tmp_path: Path) -> None:
    record = workspace.record
    record.add_trajectory(episode(0, split=Split.TEST), key="1/eval/x", cycle=1, arm="eval")
    with pytest.raises(RecordError, match="held-out tasks may not be trained on: toy/press@0"):
        export(workspace, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_older_set_is_not_written_over(workspace: Workspace, tmp_path: Path) -> None:
    export(workspace, tmp_path / "set")
    with pytest.raises(RecordError, match="exists"):
        export(workspace, tmp_path / "set")
    assert not list(tmp_path.glob(".set.*"))

"""Trajectories out and in again."""

import json
import os
import stat
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import RecordError
from tutelage.exchange import import_jsonl, read_jsonl, to_atif, write_atif, write_jsonl, write_whole
from tutelage.record import Record
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split, Step, Task, Tokens, Tool, Trajectory

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.floats(allow_nan=False)
STEPS = st.builds(
    Step,
    observation=TEXT,
    notes=st.tuples(TEXT) | st.just(()),
    reply=TEXT,
    thought=TEXT,
    action=TEXT | st.sampled_from(['click("r1")', 'fill("r2", "é\\u2028")', "noop()"]),
    meaning=TEXT,
    diagnosis=st.builds(Diagnosis, cause=st.sampled_from(Cause), evidence=TEXT, added=st.tuples(TEXT)),
    after=TEXT,
    reward=NUMBER,
    blocked_by=st.none() | TEXT,
    tokens=st.none()
    | st.builds(
        Tokens, prompt=st.tuples(st.integers(0, 9)), sampled=st.tuples(st.integers(0, 9)), logprobs=st.tuples(NUMBER)
    ),
)
TRAJECTORIES = st.builds(
    Trajectory,
    id=st.uuids().map(lambda uuid: f"trj_{uuid.hex[:16]}"),
    task=st.builds(Task, environment=TEXT, family=TEXT, seed=st.integers(0, 10**9), split=st.sampled_from(Split)),
    goal=TEXT,
    system=TEXT,
    policy=TEXT,
    memory=st.booleans(),
    shown=st.lists(st.builds(Shown, id=TEXT, version=st.integers(1, 9), text=TEXT), max_size=2).map(tuple),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    reward=NUMBER,
    ending=st.sampled_from(Ending),
    error=TEXT,
    created=st.datetimes(timezones=st.just(UTC)),
    seconds=NUMBER,
)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(st.lists(TRAJECTORIES, max_size=3, unique_by=lambda trajectory: trajectory.id))
def test_jsonl_loses_nothing(tmp_path_factory: pytest.TempPathFactory, trajectories: list[Trajectory]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "t.jsonl"
    assert write_jsonl(trajectories, path) == len(trajectories)
    assert read_jsonl(path) == trajectories


def a_trajectory(seed: int = 0) -> Trajectory:
    fill = Step(
        observation='[r1] textbox "Name" value=""',
        reply='I type.\nfill("r1", "x")',
        thought="I type.",
        action='fill("r1", "x")',
        meaning='fill(textbox "Name", "x")',
        diagnosis=Diagnosis(cause=Cause.PROGRESS),
        after='[r1] textbox "Name" value="x"',
        tokens=Tokens(prompt=(1, 2), sampled=(3, 4), logprobs=(-0.5, -0.25)),
    )
    wrong = fill.model_copy(
        update={
            "notes": ("Try something else.",),
            "action": "gibberish",
            "diagnosis": Diagnosis(cause=Cause.INVALID_ACTION, evidence="No action."),
            "tokens": Tokens(prompt=(5,), sampled=(6,), logprobs=(-1.0,)),
        }
    )
    return Trajectory(
        task=Task(environment="miniwob", family="enter-text", seed=seed, split=Split.TRAIN),
        goal="Enter x",
        system="You act on a page.",
        policy="expert/miniwob (scripted)",
        memory=True,
        shown=(Shown(id="exp_1", version=2, text="Procedure: fill"),),
        steps=(fill, wrong),
        ending=Ending.STALLED,
    )


def test_import_adds_all_or_nothing_and_each_once(tmp_path: Path) -> None:
    record = Record.open(tmp_path / "w")
    path = tmp_path / "t.jsonl"
    write_jsonl([a_trajectory(seed) for seed in range(3)], path)
    good = path.read_text()
    bad = json.loads(good.splitlines()[2])
    del bad["task"]["seed"]
    path.write_text("\n".join([*good.splitlines()[:2], "", json.dumps(bad)]))
    with pytest.raises(RecordError, match=r"t\.jsonl, line 4: task\.seed: Field required"):
        import_jsonl(record, path)
    path.write_text(good + "{not json\n")
    with pytest.raises(RecordError, match="line 4: Invalid JSON"):
        import_jsonl(record, path)
    path.write_text(good + good)
    with pytest.raises(RecordError, match=r"line 4: trj_.* is already on line 1"):
        import_jsonl(record, path)
    with pytest.raises(RecordError, match=r"cannot read .*none\.jsonl"):
        import_jsonl(record, tmp_path / "none.jsonl")
    assert record.trajectories() == []
    path.write_text(good)
    assert [import_jsonl(record, path), import_jsonl(record, path)] == [3, 0]
    assert write_jsonl(record.trajectories(arm="imported"), tmp_path / "again.jsonl") == 3
    there = (tmp_path / "again.jsonl").read_text()
    assert there == good.replace('"origin":"own"', '"origin":"import:t"'), "only where it comes from is not as it was"
    record.close()


def test_atif_tells_the_whole_story(tmp_path: Path) -> None:
    trajectory = a_trajectory()
    (path,) = write_atif([trajectory], tmp_path)
    document = json.loads(path.read_text())
    assert document == to_atif(trajectory)
    assert [step["source"] for step in document["steps"]] == ["system", "user", "agent", "user", "agent"]
    assert "- Procedure: fill\nGoal: Enter x" in document["steps"][1]["message"]
    first, second = (step for step in document["steps"] if step["source"] == "agent")
    assert first["tool_calls"][0]["function_name"] == "fill"
    assert first["observation"]["results"][0] == {"content": trajectory.steps[0].after, "source_call_id": "call_0"}
    assert "tool_calls" not in second
    assert second["metrics"]["prompt_token_ids"] == [1, 2, 3, 4, 5], "the whole context, not what was appended"
    assert second["metrics"]["logprobs"] == [-1.0]
    assert second["extra"]["diagnosis"]["cause"] == "invalid_action"
    assert "tool_definitions" not in document["agent"]


def test_atif_of_tools(tmp_path: Path) -> None:
    atif = pytest.importorskip("atif")
    trajectory, tool = a_trajectory(), Tool(name="move", description="Move.", parameters={"type": "object"})
    moved = trajectory.steps[0].model_copy(update={"action": 'move({"source": "a"})'})
    (path,) = write_atif([trajectory.model_copy(update={"tools": (tool,), "steps": (moved,)})], tmp_path)
    document = atif.Trajectory.model_validate_json(path.read_text())
    assert document.agent.tool_definitions[0]["function"]["name"] == "move"
    assert document.steps[2].tool_calls[0].arguments == {"source": "a"}


@MANY
@given(TRAJECTORIES)
def test_atif_is_valid_by_its_models(trajectory: Trajectory) -> None:
    atif = pytest.importorskip("atif")
    document = json.loads(json.dumps(to_atif(trajectory), allow_nan=False))
    assert atif.Trajectory.model_validate(document).schema_version == "ATIF-v1.8"


def test_a_file_is_written_where_and_as_what_it_is(tmp_path: Path) -> None:
    """A link stays a link, what is no file is written into, and what fails leaves nothing behind."""
    real, link, pipe = tmp_path / "real.jsonl", tmp_path / "link.jsonl", tmp_path / "pipe"
    link.symlink_to(real)
    write_whole(link, "one\n")
    assert (link.is_symlink(), real.read_text()) == (True, "one\n")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "two\n")
    assert os.read(reader, 10) == b"two\n"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for bad in (tmp_path / "folder", tmp_path / "none" / "x.jsonl", real / "x", tmp_path / "circle", Path("/dev/full")):
        with pytest.raises(RecordError, match="cannot write"):
            write_whole(bad, "three\n")
    assert {path.name for path in tmp_path.iterdir()} == {"real.jsonl", "link.jsonl", "pipe", "folder", "circle"}
    assert Path("/dev/full").is_char_device()

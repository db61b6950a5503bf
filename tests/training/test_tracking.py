"""What trackers are given, read back from what the real ones keep on this machine."""

import json
import math
import struct
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tutelage.config import Config, TrackingConfig
from tutelage.errors import MissingPart
from tutelage.measures import Rate, Student
from tutelage.progress import Reporter
from tutelage.results import EvaluationDoc, GateDoc, save
from tutelage.training import tracking
from tutelage.types import Split
from tutelage.workspace import Workspace

INSTALLED = [name for name in ("wandb", "trackio") if find_spec(name)]
Steps = dict[int, dict[str, float]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Workspace]]:
    """One with a trained stage and a finished cycle, tracked by the tracker of that name."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    made: list[Workspace] = []

    def make(tracker: str) -> Workspace:
        settings = {"workspace": str(tmp_path / "w"), "environments": [{"name": "toy"}], "tracking": {"to": tracker}}
        workspace = Workspace(Config.model_validate(settings))
        made.append(workspace)
        record = workspace.record
        student = Student(number=1, stage="sft", cycle=1, weights="tiny", settings={"learning_rate": 0.5})
        record.add_student(student)
        record.add_metrics("1/0-sft", 1, {"loss": 2.5, "grad_norm": float("nan")})
        record.add_metrics("1/0-sft", 2, {"loss": 1.25})
        record.put("stage", "1/0", {"student": student.id, "stage": "sft"})
        rate = Rate(successes=3, episodes=4, low=0.3, high=0.95)
        arm = {"student": student.label, "memory": False, "split": Split.VALIDATION, "rate": rate, "trajectories": ()}
        save(record, EvaluationDoc(cycle=1, name="sft-off", label="after SFT", **arm))
        save(record, GateDoc(cycle=1, promoted=True, reason="gained", candidate="student@1", incumbent="student@0"))
        return workspace

    yield make
    for workspace in made:
        workspace.close()


def read_wandb(file: Path) -> tuple[str, dict[str, Any], Steps]:
    """Name, config and figures in W&B's log: protocol buffers in LevelDB's blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    name, config, steps, whole = "", {}, {}, b""
    data, place = file.read_bytes(), 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind not in (1, 4):  # the first or a middle part of a record
            continue
        entry, whole = Record.FromString(whole), b""
        if entry.WhichOneof("record_type") == "run":
            name = entry.run.display_name
            config |= {item.key: json.loads(item.value_json) for item in entry.run.config.update}
        elif entry.WhichOneof("record_type") == "history":
            values = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in entry.history.item}
            step = entry.history.step.num
            steps[step] = {key: float(value) for key, value in values.items() if not key.startswith("_")}
    return name, config, steps


def kept(tracker: str, folder: Path) -> dict[str, tuple[dict[str, Any], Steps]]:
    """Config and figures by run."""
    if tracker == "wandb":
        found = [read_wandb(file) for file in folder.glob("wandb/offline-run-*/*.wandb")]
        assert len(found) == len({name for name, _, _ in found})
        return {name: (config, steps) for name, config, steps in found}
    from trackio.sqlite_storage import SQLiteStorage

    runs = {}
    for name in SQLiteStorage.get_runs("tutelage"):
        rows = SQLiteStorage.get_logs("tutelage", name)
        steps = {row["step"]: {k: v for k, v in row.items() if k not in ("step", "timestamp")} for row in rows}
        assert len(steps) == len(rows)
        runs[name] = (SQLiteStorage.get_run_config("tutelage", name), steps)
    return runs


@pytest.mark.parametrize("tracker", INSTALLED)
def test_stages_and_results_are_handed_over_once(
    tracker: str, workspace: Callable[[str], Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    opened = workspace(tracker)
    tracking.track(opened, Reporter(None))
    tracking.track(opened, Reporter(None))
    assert capsys.readouterr().out == "", "what commands print is for programs"
    found = kept(tracker, opened.folder)
    assert set(found) == {"w/1/0-sft", "w/1/results"}
    config, steps = found["w/1/0-sft"]
    assert config["learning_rate"] == 0.5
    assert config["student"] == "student@1"
    assert math.isnan(steps[1].pop("grad_norm"))
    assert steps == {1: {"loss": 2.5}, 2: {"loss": 1.25}}
    rates = {"sft-off/rate": 0.75, "sft-off/low": 0.3, "sft-off/high": 0.95}
    assert found["w/1/results"][1] == {1: {"promoted": 1.0, **rates}}
    assert not list(tracking.untracked(opened.record, opened.config))


def test_a_tracker_that_fails_costs_a_line_and_is_asked_again(
    workspace: Callable[[str], Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    opened = workspace("wandb")
    tracked = opened.config.tracking.model_copy(update={"project": "not/allowed"})
    opened.config = opened.config.model_copy(update={"tracking": tracked})
    tracking.track(opened, Reporter(None))
    assert "wandb did not take 1/0-sft" in capsys.readouterr().err
    assert [run.name for run in tracking.untracked(opened.record, opened.config)] == ["1/0-sft", "1/results"]


def test_a_tracker_that_is_not_there_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(MissingPart, match=r"pip install 'tutelage\[track\]'"):
        tracking.check(TrackingConfig(to="wandb"))

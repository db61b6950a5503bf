"""The commands about training, on a workspace with a few episodes of the scripted expert."""

import json
from pathlib import Path

from typer.testing import CliRunner

from tutelage.cli import jobs, training
from tutelage.cli.app import app

COMMANDS = (jobs, training)
"""Imported, they are known to the application."""


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_need_and_training_set_rest_on_the_episodes_that_are_there(tmp_path: Path) -> None:
    here = ["-s", f"workspace={tmp_path / 'w'}", "-s", "student.weights=tiny", "-s", "student.dtype=float32"]
    here += ["-s", 'stages=[{type="sft"}, {type="grpo"}, {type="sdpo"}]']
    longest = json.loads(run("need", "--json", *here))
    assert [stage["stage"] for stage in longest["stages"]] == ["sft", "grpo", "sdpo"]
    assert longest["free"] > 0
    assert not (tmp_path / "w").exists(), "looking makes no workspace"
    run("rollout", "-n", "1", *here)
    known = json.loads(run("need", "--json", *here))
    for before, after in zip(longest["stages"], known["stages"], strict=True):
        assert after["total"] == sum(after["parts"].values())
        assert after["parts"]["activations"] < before["parts"]["activations"]
    assert "in all" in run("need", *here)
    said = run("training-set", str(tmp_path / "set"), "--format", "jsonl", *here)
    rows = (tmp_path / "set" / "sft.jsonl").read_text().splitlines()
    assert f"sft: {len(rows)} rows" in said
    assert {row["teacher"] for row in map(json.loads, rows)} == {"expert/toy (scripted)"}


def test_a_stage_that_acts_says_what_its_probe_solved(tmp_path: Path) -> None:
    here = ["-s", f"workspace={tmp_path / 'w'}", "-s", "student.weights=tiny", "-s", "student.dtype=float32"]
    here += ["-s", "student.max_new_tokens=4", "-s", "act.max_steps=2", "-s", 'environments=[{name="toy"}]']
    here += ["-s", 'stages=[{type="grpo", steps=1, batch_size=2, group_size=2}]']
    run("rollout", "-n", "1", *here)
    done = CliRunner().invoke(app, ["train", *here], catch_exceptions=False)
    assert "probe: 0 % → 0 % of the same train tasks solved" in done.stderr, done.output

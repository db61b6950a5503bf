"""`tutelage annotate` as a user runs it: by the scripted expert, and by a real model behind a real server."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from tutelage.record import Record

KILLS = (3, 12, 30)
"""How many rows of the record there are when a run is killed."""
FLOW = ("designed", "valid", "annotated", "judged", "accepted")


def run(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", "tutelage.cli", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def balanced(found: dict[str, Any]) -> bool:
    """Whether every task that is missing at the next point was counted with a reason."""
    counts = dict(found["counts"])
    lost = {point: sum(count for at, _, count in found["losses"] if at == point) for point in FLOW}
    return all(counts[one] - lost[one] == counts[other] for one, other in pairwise(FLOW))


def test_by_the_scripted_expert(tmp_path: Path) -> None:
    found = run(tmp_path, "annotate", "--env", "files", "--env", "toy", "--tasks", "5")
    counts = dict(found["counts"])
    assert counts["accepted"] == counts["judged"] == counts["annotated"] == 5
    assert balanced(found)
    listed = run(tmp_path, "designs")
    assert [row["outcome"] for row in listed].count("accepted") == 5
    assert all("scripted" in row["author"] for row in listed if row["id"].startswith("files/"))
    assert sum(row["id"].startswith("toy/") and row["author"] == "chosen by need" for row in listed) == 2
    again = run(tmp_path, "annotate", "--env", "files", "--env", "toy", "--tasks", "5", "--name", found["run"])
    assert again == found, "a finished run has nothing left to do"
    fresh = run(tmp_path, "annotate", "--env", "files", "--env", "toy", "--tasks", "5")
    assert not set(fresh["outcomes"]) & set(found["outcomes"])


def test_killed_again_and_again_it_ends_like_an_undisturbed_run(tmp_path: Path) -> None:
    command = ("annotate", "--env", "files", "--tasks", "8", "--name", "one")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", *command)
    for rows in KILLS:
        process = subprocess.Popen(
            [sys.executable, "-m", "tutelage.cli", *command],
            cwd=tmp_path / "killed",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and written(tmp_path / "killed" / "workspace") < rows:
            time.sleep(0.01)
        assert process.poll() is None, "it was killed before it was done"
        process.kill()
        process.wait()
    killed = run(tmp_path / "killed", *command)
    assert {**killed, "accepted": []} == {**whole, "accepted": []}
    fingerprints = []
    for name in ("whole", "killed"):
        with closing(Record.open(tmp_path / name / "workspace")) as record:
            fingerprints.append(record.fingerprint(without=("usage", "usage-cycle")))
    assert fingerprints[0] == fingerprints[1]


def written(workspace: Path) -> int:
    """Documents and trajectories in a record that another process writes."""
    if not (workspace / "record.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{workspace / 'record.db'}?mode=ro", uri=True)) as connection:
        try:
            counts = [connection.execute(f"SELECT count(*) FROM {name}") for name in ("documents", "trajectories")]
            return sum(int(rows.fetchone()[0]) for rows in counts)
        except sqlite3.OperationalError:  # no tables yet
            return 0


def test_by_a_real_model_that_can_hardly_do_it(tmp_path: Path, served: Any) -> None:
    """What so small a model writes is poor; every bit of it is used or counted, and nothing breaks."""
    sets = {
        "annotate.personas": 1,
        "annotate.explore_steps": 2,
        "annotate.calibrate": 1,
        "act.max_steps": 2,
        "teacher.max_tokens": 24,
        "teacher.concurrency": 1,
        "teacher.tools": "text",
    }
    options = [item for key, value in sets.items() for item in ("--set", f"{key}={value}")]
    found = run(
        tmp_path,
        *("annotate", "--env", "files", "--tasks", "2", "--teacher", served.teacher),
        *("--record", str(tmp_path / "cassette.jsonl"), *options),
        environ=served.environ,
    )
    assert balanced(found)
    record = Record.open(tmp_path / "workspace")
    spent = record.items("usage")
    assert {"judge", "persona", "teacher"} <= set(spent)
    assert sum(role["calls"] for role in spent.values()) > 0
    assert all(role["unpriced"] for role in spent.values()), "nobody knows this model's price, and that is counted"
    for body in record.items("proposals").values():
        assert body["designs"] or body["lost"]
    record.close()
    # The same again from the cassette, with nobody to ask.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    replayed = run(
        elsewhere,
        *("annotate", "--env", "files", "--tasks", "2", "--teacher", served.teacher),
        *("--replay", str(tmp_path / "cassette.jsonl"), *options),
        environ={**served.environ, "OPENAI_API_BASE": "http://127.0.0.1:9", "OPENAI_BASE_URL": "http://127.0.0.1:9"},
    )
    assert {**replayed, "accepted": []} == {**found, "accepted": []}
    assert len(replayed["accepted"]) == len(found["accepted"])

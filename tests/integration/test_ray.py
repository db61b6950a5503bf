"""Jobs on a Ray cluster of two nodes on this machine."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_cluster import NODES, Cluster, two_nodes
from same_work import happened
from waiting import until

from tutelage import loop
from tutelage.config import CONFIG_FILE, JobsConfig, load_config
from tutelage.errors import ConfigError, TutelageError
from tutelage.jobs.attend import output_file
from tutelage.jobs.dispatcher import Dispatcher
from tutelage.jobs.launcher import Launcher, launcher
from tutelage.jobs.model import State
from tutelage.jobs.ray import RayLauncher
from tutelage.progress import Reporter
from tutelage.record import Record
from tutelage.workspace import Workspace


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the nodes look for stand-ins for jobs."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def cluster(programs: Path) -> Iterator[Cluster]:
    with (
        two_nodes({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(programs)}) as found,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in found.environ.items():
            patch.setenv(name, value)
        yield found


def on_ray(cluster: Cluster, **settings: Any) -> JobsConfig:
    return JobsConfig(launcher="ray", ray_address=cluster.address, **settings)


MINUTES = 180.0
"""Seconds for the cluster to come round to something on a busy machine."""


# -- a cycle --------------------------------------------------------------------------------------


SETTINGS = {
    "environments.0.name": "toy",
    "environments.0.families": '["copy"]',
    "teacher.model": "expert/toy",
    "student.weights": "tiny",
    "student.dtype": "float32",
    "act.width": 1,
    "act.max_steps": 4,
    "collect.demonstrations": 2,
    "collect.mistaken": 2,
    "collect.explored": 1,
    "collect.guarded": 1,
    "evaluate.episodes": 2,
    "evaluate.between": 2,
    "evaluate.with_memory": 2,
    "evaluate.test": 2,
    "evidence.pairs": 2,
    "gate.min_gain": -1,
    "jobs.poll": 0.1,
}
STAGES = [
    {"type": "sft", "steps": 4, "batch_size": 1, "learning_rate": 1e-3},
    {"type": "grpo", "steps": 1, "batch_size": 2, "group_size": 2},
    {"type": "sdpo", "steps": 1, "batch_size": 2, "group_size": 2},
]
UNTIMED = re.compile(r"(?!.*\(\d+ s\)$)")
"""Lines of progress come by the clock."""


def make(folder: Path, stages: list[dict[str, Any]]) -> None:
    settings = {"workspace": folder, **SETTINGS} | {
        f"stages.{index}.{key}": value for index, stage in enumerate(stages) for key, value in stage.items()
    }
    Workspace(load_config(None, [f"{key}={value}" for key, value in settings.items()])).close()


def work(folder: Path, kind: str, launched: Launcher) -> None:
    """Have one job done."""
    with closing(Record.open(folder)) as record:
        dispatcher = Dispatcher(record, folder, load_config(folder / CONFIG_FILE, []), launched)
        job, new = dispatcher.store.submit(kind, by="hand:test")
        assert new
        dispatcher.wait()
        job = dispatcher.store.get(job.id)
        assert job.state == State.SUCCEEDED, (job.moves, dispatcher.store.lines(job.id))
        assert job.last.attempt == 1


def held(folder: Path, *others: Path) -> dict[str, list[dict[str, Any]]]:
    """What the record of a workspace holds, but for who ran the jobs, where and how fast.

    Args:
        others: workspaces that it is a copy of, or that were copied from it.
    """
    with closing(Record.open(folder)) as record:
        found = happened(record, folder, *others)
    for move in found["job_moves"]:
        del move["worker"]
    found["job_lines"] = [line for line in found["job_lines"] if UNTIMED.match(line["text"])]
    return found


def test_a_cycle_on_two_nodes_leaves_the_record_that_it_leaves_here(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_counts: bool
) -> None:
    """In the sample, both go on from the same episodes, and learn from them by one stage."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stages = STAGES if full_counts else STAGES[:1]
    here, there = tmp_path / "here", tmp_path / "there"
    local = launcher(JobsConfig(), here)
    first, second = (launcher(on_ray(cluster, ray_resources={name: 1.0}), there) for name in NODES)
    make(here, stages)
    if full_counts:
        make(there, stages)
        work(here, "collect", local)
        work(there, "collect", first)
    else:
        with closing(Workspace(load_config(here / CONFIG_FILE, []))) as workspace:
            loop.run(workspace, "collect", Reporter(None))
        shutil.copytree(here, there)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (here, there), ("distill", "distill"), (local, second)))
    expected, found = held(here, there), held(there, here)
    assert found.keys() == expected.keys()
    for table, rows in expected.items():
        assert found[table] == rows, f"{table} differs"
    assert len(found["students"]) == len(stages) + 1
    assert found["trajectories"]
    assert found["experiences"]


# -- one process ----------------------------------------------------------------------------------


SLEEPS = """
import os, pathlib, subprocess, sys, time
workspace, job, attempt = sys.argv[1:]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(f"{workspace}/{job}.pids", "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""


def test_jobs_are_started_once_on_the_node_that_has_room_and_ended_whole(
    cluster: Cluster, programs: Path, tmp_path: Path
) -> None:
    (programs / "sleeps.py").write_text(SLEEPS)
    Record.open(tmp_path).close()
    started = {}
    for name in NODES:
        launched = RayLauncher(on_ray(cluster, ray_resources={name: 1.0}), tmp_path, program="sleeps")
        handle = launched.start(f"job_{name}", 1)
        assert launched.start(f"job_{name}", 1) == handle
        started[name] = (launched, handle)
    for name, (launched, handle) in started.items():
        pids = tmp_path / f"job_{name}.pids"
        until(lambda pids=pids: pids.exists() and pids.read_text().endswith("\n"), MINUTES)
        assert launched.alive(handle) is True
        processes = [psutil.Process(int(pid)) for line in pids.read_text().splitlines() for pid in line.split()]
        assert len(processes) == 2
        assert cluster.nodes[name] in processes[0].parents()
        launched.stop(handle, grace=0)
        assert launched.alive(handle) is False
        gone, _ = psutil.wait_procs(processes, timeout=30)
        assert len(gone) == 2
        assert launched.start(f"job_{name}", 1) == handle  # over, so it stays over
        assert launched.alive(handle) is False


def test_what_a_job_wrote_is_told_or_else_what_ray_says(
    cluster: Cluster, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "fails.py").write_text("import sys; print('as far as here'); sys.exit(4)")
    Record.open(tmp_path).close()
    launched = RayLauncher(on_ray(cluster), tmp_path, program="fails")
    handle = launched.start("job_1", 1)
    until(lambda: launched.alive(handle) is False, MINUTES)
    assert launched.output(handle) == "as far as here\nended with exit code 4"
    monkeypatch.setattr("tutelage.jobs.ray.place", lambda workspace: "another-kernel/1")
    refused = launched.start("job_2", 1)
    until(lambda: launched.alive(refused) is False, MINUTES)
    assert "is another machine, from where its record cannot be written safely" in launched.output(refused)
    assert not output_file(tmp_path, "job_2", 1).exists()


def test_a_cluster_that_is_not_there_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Record.open(tmp_path).close()
    config = JobsConfig(launcher="ray", ray_address="http://127.0.0.1:9")
    launched = launcher(config, tmp_path)
    with pytest.raises(TutelageError, match=r"Ray at .* does not take job job_1"):
        launched.start("job_1", 1)
    with pytest.raises(TutelageError, match=r"does not take job job_1: .*No such file"):
        launcher(config, tmp_path / "gone").start("job_1", 1)
    assert launched.alive("job_1-1-00000000") is None
    assert launched.output("job_1-1-00000000") == ""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        launcher(config, tmp_path)

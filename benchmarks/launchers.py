"""What a job costs beside its work: the local launcher, and Ray Jobs on a cluster of two nodes on this machine.

    OMP_NUM_THREADS=1 python benchmarks/launchers.py [--jobs 10]

Of jobs that do nothing, one after the other: seconds from the call to the job's first line, and from its last line to
the launcher's saying so, looked at every 20 ms; and what one look costs. Then the memory that stands by.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))
from ray_cluster import two_nodes

from tutelage.config import JobsConfig
from tutelage.jobs.launcher import Launcher
from tutelage.jobs.local import LocalLauncher
from tutelage.jobs.ray import RayLauncher
from tutelage.record import Record

PROGRAM = "import pathlib, sys, time; pathlib.Path(sys.argv[1], sys.argv[2]).write_text(f'{time.time()}\\n')"
LOOK_SECONDS = 0.02


def measure(launched: Launcher, workspace: Path, jobs: int) -> dict[str, float]:
    """Medians in seconds: ``call``, ``begin``, ``end``, ``look``."""
    found: dict[str, list[float]] = {"call": [], "begin": [], "end": [], "look": []}
    for number in range(jobs + 1):
        job = f"job_{launched.name}{number}"
        called = time.time()
        handle = launched.start(job, 1)
        returned = time.time()
        while launched.alive(handle) is not False:
            time.sleep(LOOK_SECONDS)
        over = time.time()
        launched.alive(handle)
        looked = time.time()
        began = float((workspace / job).read_text())
        if number:  # the first one pays for what later ones find there
            times = {"call": returned - called, "begin": began - called, "end": over - began, "look": looked - over}
            for name, seconds in times.items():
                found[name].append(seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def resident(processes: list[psutil.Process]) -> int:
    """Bytes of memory that are these processes' own."""
    every = {below.pid: below for process in processes for below in [process, *process.children(recursive=True)]}
    total = 0
    for process in every.values():
        with suppress(psutil.NoSuchProcess):  # the last job's may just be ending
            total += process.memory_full_info().uss
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10)
    jobs = parser.parse_args().jobs
    table = Table(
        "launcher", "call returns", "first line", "end is seen", "one look", "standing by", title=f"{jobs} jobs"
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        Record.open(workspace).close()
        (Path(folder) / "nothing.py").write_text(PROGRAM)
        os.environ["PYTHONPATH"] = folder
        local = measure(LocalLauncher(JobsConfig(), workspace, program="nothing"), workspace, jobs)
        table.add_row("local", *_row(local), "none")
        before = time.time()
        with two_nodes({"PYTHONPATH": folder}) as cluster:
            start = time.time() - before
            os.environ.update(cluster.environ)
            config = JobsConfig(launcher="ray", ray_address=cluster.address)
            ray = measure(RayLauncher(config, workspace, program="nothing"), workspace, jobs)
            megabytes = resident(list(cluster.nodes.values())) / 1e6
        table.add_row("ray", *_row(ray), f"{megabytes:.0f} MB")
    console = Console(width=110)
    console.print(table)
    console.print(f"Medians. The cluster's two nodes were there after {start:.1f} s. {_machine()}")


def _row(times: dict[str, float]) -> list[str]:
    return [f"{times[name]:.3f} s" for name in ("call", "begin", "end")] + [f"{1000 * times['look']:.1f} ms"]


def _machine() -> str:
    import ray

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} processors ({platform.machine()}), load {load}, Ray {ray.__version__}."


if __name__ == "__main__":
    main()

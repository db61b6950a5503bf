"""One stage in several processes on this machine: they are started, watched and ended here.

Each process plays and trains on its share of every batch; Accelerate, as the trainers use it, averages their
gradients. `accelerate launch` itself starts a single process where there is no GPU and no MPI, and tells
nobody which of several failed; torch's elastic launcher does tell, but leaves its processes running when it is
killed. So processes are started here, with the variables in their environment that those would set. They end
with the one that started them, whichever way it ends: each holds the reading end of a pipe that nobody writes to.

The first process works in the workspace. Every other has a workspace of its own below it: a copy of the
record as the stage began, and links to the students and to the checkpoints. What it writes is thrown away,
so that a stage which trains with a Transformers Trainer need not know how many processes run it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.backup import copied
from tutelage.config import INDEX, Config
from tutelage.corrections import Correction
from tutelage.database import FILE
from tutelage.errors import TutelageError
from tutelage.experience import Experience
from tutelage.measures import Student
from tutelage.stage_config import Stage, StageConfig
from tutelage.training.base import StageContext, StageResult
from tutelage.training.ranks import NOT_ONE
from tutelage.types import Frozen, Task

ORDER, PROGRESS = "order.json", "progress.jsonl"
WATCHED_SECONDS = 0.1


class Order(Frozen):
    """What the processes are to do: a `StageContext` as far as it can be written down, and its stage."""

    stage: Stage
    config: Config
    workspace: Path
    """Of the first process."""
    cycle: int
    student: Student
    number: int
    tasks: tuple[Task, ...]
    trajectories: tuple[str, ...]
    """Ids; the record has them."""
    experiences: tuple[Experience, ...]
    corrections: tuple[tuple[str, Correction], ...]
    """Id of the trajectory, and what was to be corrected in it."""
    seed: int
    memory: bool
    corrects: bool
    """Whether a teacher may be asked."""


class Done(Frozen):
    """What a process leaves behind: how it ended."""

    folder: Path = Path()
    digest: str = ""
    trajectories: tuple[str, ...] = ()
    experiences: tuple[str, ...] = ()
    metrics: list[tuple[int, dict[str, float]]] = []
    error: str = ""
    """What went wrong, in one line; empty if nothing did."""
    meant_for_users: bool = False
    """Whether the error is a `TutelageError`."""
    at: float = 0.0
    """When (monotonic seconds, the same clock in all processes)."""


def run(stage: StageConfig, context: StageContext) -> StageResult:
    """Run the stage in `context.config.student.processes` processes.

    Raises:
        TutelageError: one of them failed or was killed, and the others were ended; or their weights differ.
    """
    count = context.config.student.processes
    folder = context.workspace / "students" / f"{context.number}.processes"
    shutil.rmtree(folder, ignore_errors=True)
    _prepare(folder, stage, context, count)
    try:
        with started(folder, count) as processes:
            _watch(processes, folder, context)
    finally:
        for rank in range(1, count):
            shutil.rmtree(folder / str(rank), ignore_errors=True)  # the logs stay
    ended = [_done(folder, rank) for rank in range(count)]
    if silent := [rank for rank, done in enumerate(ended) if done is None]:
        raise TutelageError(f"{stage.type}: process {silent[0]} ended without a result; its log is in {folder}")
    first, *others = [done for done in ended if done is not None]
    if any(other.digest != first.digest for other in others):
        raise TutelageError(f"the {count} processes of the {stage.type} stage ended with different weights, {NOT_ONE}")
    shutil.rmtree(folder)
    return StageResult(first.folder, first.digest, first.trajectories, first.experiences, first.metrics)


def workspace_of(rank: int, order: Order, folder: Path) -> Path:
    """Where a process works."""
    return order.workspace if rank == 0 else folder / str(rank)


# -- before ---------------------------------------------------------------------------------------


def _prepare(folder: Path, stage: StageConfig, context: StageContext, count: int) -> None:
    workspace = context.workspace.resolve()
    order = Order(
        stage=stage,
        config=context.config,
        workspace=workspace,
        cycle=context.cycle,
        student=context.student,
        number=context.number,
        tasks=tuple(context.tasks),
        trajectories=tuple(trajectory.id for trajectory in context.trajectories),
        experiences=tuple(context.experiences),
        corrections=tuple((trajectory.id, item) for trajectory, item in context.corrections),
        seed=context.seed,
        memory=context.memory is not None,
        corrects=context.correct is not None,
    )
    folder.mkdir(parents=True)
    (folder / ORDER).write_text(order.model_dump_json())
    context.checkpoints.mkdir(parents=True, exist_ok=True)
    for rank in range(1, count):
        _lend(workspace, workspace_of(rank, order, folder), without=(context.folder.name, folder.name))


def _lend(workspace: Path, own: Path, without: Sequence[str]) -> None:
    """Make the workspace of a process whose writing does not count."""
    (own / "students").mkdir(parents=True)
    copied(workspace / FILE, own / FILE)
    if (workspace / INDEX).is_dir():
        (own / INDEX).symlink_to(workspace / INDEX)
    for known in (workspace / "students").iterdir():
        if known.is_dir() and known.name not in without and not known.name.startswith("."):
            (own / "students" / known.name).symlink_to(known.resolve())


# -- meanwhile ------------------------------------------------------------------------------------


@contextmanager
def started(folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes; all are gone at the end, and what they started with them."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        port = _free_port()
        for rank in range(count):
            with (folder / f"{rank}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tutelage.training.worker", str(folder.resolve())],
                        env=_environment(rank, count, port),
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        yield processes
    finally:
        for process in processes:
            with suppress(ProcessLookupError):  # it and all its children may have ended
                os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    usual = {"OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        usual["GLOO_SOCKET_IFNAME"] = "lo"  # else it listens where the host's name leads
    return {**usual, **os.environ, **own}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(processes: Sequence[subprocess.Popen[bytes]], folder: Path, context: StageContext) -> None:
    """Report progress until all have ended.

    Raises:
        TutelageError: one of them has failed.
    """
    told = _Told(folder / PROGRESS)
    while True:
        codes = [process.poll() for process in processes]
        for what, done, total in told.news():
            context.progress(what, done, total)
        if any(codes):
            raise failure(folder, codes)
        if None not in codes:
            return
        time.sleep(WATCHED_SECONDS)


@dataclass
class _Told:
    """What the first process has said about its progress; one JSON list per line."""

    path: Path
    _read: int = field(default=0, init=False)

    def news(self) -> list[tuple[str, int, int]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read += sum(map(len, whole))
        return [tuple(json.loads(line)) for line in whole]


# -- after ----------------------------------------------------------------------------------------


def _done(folder: Path, rank: int) -> Done | None:
    try:
        return Done.model_validate_json((folder / f"{rank}.json").read_text())
    except FileNotFoundError:
        return None


def failure(folder: Path, codes: Sequence[int | None]) -> TutelageError:
    """Why the stage ended. One that was killed is to blame before those that then missed it."""
    killed = {rank: code for rank, code in enumerate(codes) if code and code < 0}
    said = {rank: done for rank in range(len(codes)) if (done := _done(folder, rank)) is not None and done.error}
    if killed:
        rank, code = next(iter(killed.items()))
        how = f"was killed by {signal.Signals(-code).name}"
    elif said:
        rank = min(said, key=lambda rank: said[rank].at)
        how = f"failed: {said[rank].error}"
        if said[rank].meant_for_users:
            return TutelageError(said[rank].error)
    else:
        rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
        how = f"ended with code {code}"
    return TutelageError(
        f"process {rank + 1} of {len(codes)} {how}; the others were ended, and no student was made. "
        f"What it said is in {folder / f'{rank}.log'}"
    )

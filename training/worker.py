"""One of the processes that train a stage together; `training.launch` starts ``python -m tutelage.training.worker``.

It ends when its standard input does, which is when the process that started it has ended.
"""

import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from threading import Thread

from tutelage.errors import TutelageError
from tutelage.training.base import Progress, StageContext, StageResult, no_progress, run_stage
from tutelage.training.launch import ORDER, PROGRESS, Done, Order, workspace_of
from tutelage.workspace import Workspace

PATIENCE = timedelta(hours=12)
"""How long one process waits for another: rollouts of one share can take longer, and a dead process is noticed
otherwise."""


def main(folder: Path) -> int:
    """Run the order in `folder` and leave this process's `Done` there; the exit code."""
    Thread(target=_end_with_the_launcher, daemon=True).start()
    rank = int(os.environ["RANK"])
    try:
        result = run(Order.model_validate_json((folder / ORDER).read_text()), folder, rank)
        done = Done(
            folder=result.folder,
            digest=result.digest,
            trajectories=result.trajectories,
            experiences=result.experiences,
            metrics=result.metrics,
        )
    except Exception as error:
        traceback.print_exc()
        line = f"{type(error).__name__}: {error}".partition("\n")[0]
        ours = isinstance(error, TutelageError)
        done = Done(error=str(error) if ours else line, meant_for_users=ours, at=time.monotonic())
    part = folder / f"{rank}.part"
    part.write_text(done.model_dump_json())
    part.rename(
        folder / f"{rank}.json"
    )  # before the others can miss this one, so that they are not taken for the cause
    return 1 if done.error else 0


def run(order: Order, folder: Path, rank: int) -> StageResult:
    """Run the stage in this process's workspace, together with the other processes."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    own = workspace_of(rank, order, folder)
    workspace = Workspace(order.config.model_copy(update={"workspace": own}), remember=False)
    try:
        return run_stage(order.stage, _context(order, workspace, _progress(folder) if rank == 0 else no_progress))
    finally:
        workspace.close()


def _context(order: Order, workspace: Workspace, progress: Progress) -> StageContext:
    """The context as the launcher had it, with parts of this process's own."""
    from tutelage.correcting import Asker
    from tutelage.training import ranks

    record, asker = workspace.record, Asker(workspace)
    return StageContext(
        record=record,
        workspace=workspace.folder,
        config=order.config,
        cycle=order.cycle,
        student=order.student,
        number=order.number,
        tasks=order.tasks,
        trajectories=[record.trajectory(item) for item in order.trajectories],
        experiences=order.experiences,
        make_environment=workspace.suite.make,
        memory=workspace.memory if order.memory else None,
        seed=order.seed,
        progress=progress,
        corrections=[(record.trajectory(item), correction) for item, correction in order.corrections],
        # All have the same rollouts; one of them asks, so that nothing is paid for twice.
        correct=(lambda rollouts: ranks.first(lambda: asker(rollouts))) if order.corrects else None,
    )


def _progress(folder: Path) -> Progress:
    def told(what: str, done: int, total: int) -> None:
        with (folder / PROGRESS).open("a") as file:
            file.write(json.dumps([what, done, total]) + "\n")

    return told


def _end_with_the_launcher() -> None:
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a buffer's lock would be held when the interpreter ends
    os.killpg(0, signal.SIGKILL)  # this process leads its group, so its environments' processes end with it


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

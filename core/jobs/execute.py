"""Runs one attempt of a job: ``python -m tutelage.jobs.execute WORKSPACE JOB ATTEMPT``.

The process takes over the attempt's lease, renews it with every heartbeat, and notes how the job ended. It is on its
own: whoever started it may end. If it loses the lease, somebody else runs the job, and it ends at once.
"""

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType

from tutelage.config import JobsConfig
from tutelage.errors import (
    BudgetSpent,
    ConfigError,
    JudgeUnfit,
    MemoryShort,
    MissingPart,
    TutelageError,
    UnknownName,
    WorkspaceBusy,
)
from tutelage.jobs.attend import HANDLE
from tutelage.jobs.heart import Heart
from tutelage.jobs.kinds import Params, settings
from tutelage.jobs.lines import JobReporter
from tutelage.jobs.model import Again, Job, State
from tutelage.jobs.store import JobStore
from tutelage.progress import Cancelled
from tutelage.record import Record

PERMANENT = (ConfigError, UnknownName, MissingPart, BudgetSpent, JudgeUnfit)
"""Errors that another attempt would meet again."""
FAILED, NOT_OURS = 1, 3
"""Exit codes: the attempt did not succeed; another process has it, or the job is over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the attempt that the command line names; 0 if the job succeeded."""
    workspace, job_id, number = sys.argv[1:] if arguments is None else arguments
    folder, attempt = Path(workspace).resolve(), int(number)
    with closing(Record.open(folder, create=False)) as record:
        store, worker = JobStore(record), f"{platform.node()}:{os.getpid()}"
        if not store.started(job_id, attempt, worker, os.environ.get(HANDLE, ""), time.time()):
            print(f"attempt {attempt} of {job_id} is not this process's to run", file=sys.stderr)
            return NOT_OURS
        try:
            config = settings(folder, Params()).jobs
        except ConfigError:  # which the work itself will say
            config = JobsConfig()
        return _attempt(store, store.get(job_id), attempt, folder, config)


def _attempt(store: JobStore, job: Job, attempt: int, folder: Path, config: JobsConfig) -> int:
    report = JobReporter()
    heart = Heart(store, job.id, attempt, config, report)

    def end(number: int, frame: FrameType | None) -> None:
        heart.hand_back(f"its process was told to end by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    heart.start()
    try:
        from tutelage.jobs.work import work  # takes seconds, during which the heart beats already

        result = work(store.record, folder, job, report)
    except Cancelled:
        heart.end(lambda: store.finish(job.id, attempt, State.CANCELLED, "told to stop"))
    except WorkspaceBusy as error:
        told, due = str(error), time.time() + config.backoff
        heart.end(lambda: store.again(job.id, attempt, Again.BUSY, told, due=due))
    except TutelageError as error:
        told, final = f"{type(error).__name__}: {error}", permanent(error)
        report.keep(told)
        heart.end(lambda: failed(store, job, attempt, told, config, time.time(), permanent=final))
    except Exception as error:
        report.keep(traceback.format_exc())
        told = f"{type(error).__name__}: {error}"
        heart.end(lambda: failed(store, job, attempt, told, config, time.time()))
    else:
        return 0 if heart.end(lambda: store.finish(job.id, attempt, State.SUCCEEDED, result=result)) else FAILED
    return FAILED


def permanent(error: Exception) -> bool:
    """Whether another attempt would meet the error again; memory that is taken now may be free later."""
    return isinstance(error, PERMANENT) and not isinstance(error, MemoryShort)


def failed(
    store: JobStore, job: Job, attempt: int, reason: str, config: JobsConfig, now: float, *, permanent: bool = False
) -> bool:
    """Note that an attempt failed: the job waits for the next one, or has failed if there is none."""
    before = job.times(Again.FAILED)
    if permanent or before + 1 >= config.attempts:
        return store.finish(job.id, attempt, State.FAILED, reason, now=now)
    return store.again(job.id, attempt, Again.FAILED, reason, due=now + config.wait(before), now=now)


if __name__ == "__main__":
    sys.exit(main())

"""A dispatcher whose jobs are done when they are started: ``python -m noop_dispatcher WORKSPACE NAME OTHER``.

It begins once the other one is there too.
"""

import os
import sys
import time
from pathlib import Path

from waiting import until

from tutelage.config import Config, JobsConfig
from tutelage.jobs.dispatcher import Dispatcher
from tutelage.jobs.model import State
from tutelage.jobs.store import JobStore
from tutelage.record import Record


class Noop:
    """Runs a job by writing a line into a file."""

    name = "noop"

    def __init__(self, store: JobStore, told: Path) -> None:
        self._store = store
        self._told = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def start(self, job: str, attempt: int) -> str:
        assert self._store.started(job, attempt, str(os.getpid()), "", time.time())
        os.write(self._told, f"{job} {attempt} {os.getpid()}\n".encode())
        assert self._store.finish(job, attempt, State.SUCCEEDED)
        return f"{job}/{attempt}"

    def alive(self, handle: str) -> bool | None:
        return None

    def stop(self, handle: str, *, grace: float) -> None:
        raise AssertionError("nothing here runs for long")

    def output(self, handle: str) -> str:
        return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    record = Record.open(folder)
    config = Config(jobs=JobsConfig(poll=0.001, at_once=10))
    name, other = sys.argv[2:]
    dispatcher = Dispatcher(record, folder, config, Noop(JobStore(record), folder / "told"), name)
    (folder / f"ready-{name}").touch()
    until((folder / f"ready-{other}").exists, 100)
    dispatcher.wait()

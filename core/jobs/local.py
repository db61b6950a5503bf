"""Jobs as processes of this machine, which go on when the one that started them ends."""

import fcntl
import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tutelage.config import JobsConfig
from tutelage.errors import TutelageError
from tutelage.jobs.attend import (
    ATTEND,
    ATTENDANT,
    EXECUTE,
    SHOWN,
    command,
    end_descendants,
    last_lines,
    output_file,
)

ATTEMPTS_KEPT = 200
"""Attempts whose output stays in the workspace."""


class LocalLauncher:
    """Starts `tutelage.jobs.attend`, which runs the job, in a session of its own.

    The handle is ``HOST/PID/JOB/ATTEMPT``. A process counts as that attempt only if its command line says so, since
    numbers of processes are used again and clocks are set.
    """

    name = "local"

    def __init__(self, config: JobsConfig, workspace: Path, *, program: str = EXECUTE) -> None:
        """`program` is the module that is run."""
        self._workspace = workspace.resolve()
        self._program = program
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, job: str, attempt: int) -> str:
        """Start the attempt, or find it started; also of two that do so at the same moment one starts it.

        Raises:
            TutelageError: the system starts no process, or has no room for its output.
        """
        output = output_file(self._workspace, job, attempt)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with output.with_suffix(".pid").open("a+") as noted:
                fcntl.flock(noted, fcntl.LOCK_EX)
                noted.seek(0)
                handle = noted.read().strip()
                if not handle:
                    handle = self._started(job, attempt) or self._start(job, attempt, output)
                    noted.write(handle)
        except OSError as error:
            raise TutelageError(f"cannot start a process for job {job}: {error}") from error
        _forget_oldest(output.parent)
        return handle

    def _start(self, job: str, attempt: int, output: Path) -> str:
        handle = _handle(ATTENDANT, job, attempt)
        with output.open("ab") as errors:  # of the attendant itself, which keeps what the job writes
            process = subprocess.Popen(
                command(self._workspace, job, attempt, handle=handle, program=self._program),
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # whatever lies in this folder is not to be imported
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        handle = _handle(process.pid, job, attempt)
        self._children[handle] = process
        return handle

    def alive(self, handle: str) -> bool | None:
        """Whether it runs; None: it was started on another machine, or by another launcher."""
        if handle in self._children:
            if self._children[handle].poll() is None:
                return True
            del self._children[handle]
        known = _parts(handle)
        if known is None or known[0] != platform.node():
            return None
        _, pid, job, attempt = known
        try:
            return self._attends(psutil.Process(pid), job, attempt)
        except psutil.NoSuchProcess:
            return False

    def stop(self, handle: str, *, grace: float) -> None:
        """Ask the job to end, and after `grace` seconds kill it and all that it started."""
        if not self.alive(handle):
            return
        with suppress(psutil.NoSuchProcess):
            attendant = psutil.Process(int(handle.rsplit("/", 3)[1]))
            attendant.terminate()  # it passes that on
            until = time.monotonic() + grace
            while self.alive(handle) and time.monotonic() < until:
                time.sleep(0.02)
            if self.alive(handle):
                end_descendants(attendant)  # the attendant then notes that, and ends
                with suppress(psutil.TimeoutExpired):
                    attendant.wait(5)
                    return
                attendant.kill()
        self.alive(handle)

    def output(self, handle: str) -> str:
        """The last lines that it wrote."""
        known = _parts(handle)
        return last_lines(output_file(self._workspace, *known[2:]), characters=SHOWN) if known is not None else ""

    def _started(self, job: str, attempt: int) -> str:
        """The handle of an attempt that runs although nobody got to note it; empty: it does not."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cmdline() and self._attends(process, job, attempt):  # the kernel's own have none
                    return _handle(process.pid, job, attempt)
        return ""

    def _attends(self, process: psutil.Process, job: str, attempt: int) -> bool:
        """Whether that is its process, and not one of the workspace that this one was restored or copied from."""
        line = process.cmdline()
        for _ in range(100):  # empty for a moment once it was started, and again when it has ended but is not reaped
            if line or process.status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.01)
            line = process.cmdline()
        return ATTEND in line and line[-3:] == [str(self._workspace), job, str(attempt)]


def _handle(pid: int | str, job: str, attempt: int) -> str:
    return f"{platform.node()}/{pid}/{job}/{attempt}"


def _parts(handle: str) -> tuple[str, int, str, int] | None:
    """Host, process, job and attempt; None of a handle that another launcher gave."""
    found = re.fullmatch(r"(.*)/(\d+)/([^/]+)/(\d+)", handle)
    return (found[1], int(found[2]), found[3], int(found[4])) if found is not None else None


def _forget_oldest(folder: Path) -> None:
    """Delete what attempts wrote, but for the last ones."""
    ages = []
    for path in folder.glob("*.out"):
        with suppress(FileNotFoundError):
            ages.append((path.stat().st_mtime, path))
    for _, path in sorted(ages)[:-ATTEMPTS_KEPT]:
        path.unlink(missing_ok=True)
        path.with_suffix(".pid").unlink(missing_ok=True)

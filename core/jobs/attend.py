"""Attends one job: ``python -m tutelage.jobs.attend WORKSPACE JOB ATTEMPT`` runs `tutelage.jobs.execute` as a child.

It keeps the last of what the child writes, without secrets, in WORKSPACE/jobs/JOB-ATTEMPT.out; passes a request to end
on to it; notes how it ended, which one that is killed cannot do itself; and then ends whatever the child started and
left behind. On Linux nothing gets away from it, and the child ends with it if it is killed; elsewhere what has left the
child's own descendants does.
"""

import argparse
import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

import psutil

from tutelage.secrets import without_secrets

ATTEND, EXECUTE = "tutelage.jobs.attend", "tutelage.jobs.execute"
HANDLE = "TUTELAGE_JOB_HANDLE"
"""Environment variable with the handle of the attempt, for the child to note: who started it may not get to."""
ATTENDANT = "{attendant}"
"""In a handle: the number of the attendant's process, which is not known before it is started."""
FOLDER = "jobs"
"""In a workspace: what attempts wrote, one file each."""
MOST, KEPT = 512 * 1024, 256 * 1024
"""Bytes that the file may come to, and to which it is then cut."""
LONGEST = 8 * 1024
"""Characters of one line; the rest of a longer one is dropped."""
SHOWN = 4000
"""Bytes of it that launchers tell."""
PATIENCE = 10.0
"""Seconds that the last output, and what was killed, may take to arrive and to go."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: Sequence[str] | None = None) -> int:
    """Attend the job that the command line names; the child's exit code, or 128 and the signal that killed it."""
    parser = argparse.ArgumentParser(prog="python -m tutelage.jobs.attend")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("job")
    parser.add_argument("attempt", type=int)
    parser.add_argument("--program", default=EXECUTE, help="module to run")
    parser.add_argument("--cwd", type=Path, help="folder to run it in")
    parser.add_argument("--place", help="as `place` says where the job was sent from; refuse to run anywhere else")
    parser.add_argument("--handle", default="", help="what the launcher knows the attempt by")
    asked = parser.parse_args(arguments)
    if asked.place is not None and (why := elsewhere(asked.workspace, asked.cwd, asked.place)):
        print(why, file=sys.stderr)
        return 1
    runs = [sys.executable, "-m", asked.program, str(asked.workspace), asked.job, str(asked.attempt)]
    os.environ[HANDLE] = asked.handle.replace(ATTENDANT, str(os.getpid()))
    return attend(runs, output_file(asked.workspace, asked.job, asked.attempt), cwd=asked.cwd)


def command(
    workspace: Path,
    job: str,
    attempt: int,
    *,
    handle: str,
    program: str = EXECUTE,
    python: str = sys.executable,
    options: Sequence[str] = (),
) -> list[str]:
    """The command line that attends an attempt, for launchers; it ends with folder, job and attempt."""
    own = () if program == EXECUTE else ("--program", program)
    return [python, "-m", ATTEND, *own, *options, "--handle", handle, str(workspace), job, str(attempt)]


def output_file(workspace: Path, job: str, attempt: int) -> Path:
    """Where the output of an attempt is kept."""
    return workspace / FOLDER / f"{job}-{attempt}.out"


def attend(runs: Sequence[str], output: Path, *, cwd: Path | None = None) -> int:
    """Run `runs` to its end, keeping what it writes in `output` and repeating it on standard output."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the child become children of this process
    own = os.getpid()

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:
                os._exit(1)

    output.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        runs,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,  # this process has one thread yet, so that forking is safe
    )

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    assert process.stdout is not None
    with BoundedFile(output) as file:
        reader = Thread(target=_keep, args=(process.stdout, file), daemon=True)
        reader.start()
        code = _wait(process)
        end_descendants(psutil.Process())
        reader.join(PATIENCE)
        if code:
            with suppress(OSError):  # no room
                file.write(f"{_how(code)}\n")
    return code if code >= 0 else 128 - code


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code of `process`, negative for a signal; orphans that end meanwhile are reaped."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (", as the kernel does when memory runs out" if name == "SIGKILL" else "")


def end_descendants(process: psutil.Process) -> None:
    """Kill all that `process` started, directly or not, and what those start meanwhile."""
    for _ in range(10):
        with suppress(psutil.NoSuchProcess):
            left = [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
            if not left:
                return
            for child in left:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(left, timeout=PATIENCE)


# -- output ---------------------------------------------------------------------------------------


class BoundedFile:
    """A text file that holds the last of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b", buffering=0)

    def __enter__(self) -> "BoundedFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        self._file.write(text.encode(errors="replace"))
        if self._file.tell() > MOST:
            self._file.seek(-KEPT, os.SEEK_END)
            _, _, kept = self._file.read().partition(b"\n")
            self._file.truncate(0)
            self._file.write(b"[what came before was dropped]\n" + kept)


def last_lines(path: Path, *, characters: int) -> str:
    """The last whole lines of a file, of at most so many bytes in all; empty if there is none."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - characters)
            file.seek(start)
            found = file.read()
    except FileNotFoundError:
        return ""
    if start:
        _, _, found = found.partition(b"\n")
    return found.decode(errors="replace").strip()


def _keep(stream: IO[bytes], file: BoundedFile) -> None:
    for line in _lines(stream):
        clean = without_secrets(line) + "\n"
        with suppress(OSError):  # no room; what nobody reads any more would halt the job in the middle of a line
            file.write(clean)
        with suppress(OSError):  # whoever started this may listen no longer
            sys.stdout.write(clean)
            sys.stdout.flush()


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines without their ends; of what a progress bar paints over only the last state."""
    with open(stream.fileno(), encoding="utf-8", errors="replace", newline="", closefd=False) as text:
        whole = True
        while line := text.readline(LONGEST):
            begins, whole = whole, line.endswith(("\n", "\r"))
            if begins and not line.endswith("\r"):
                yield line.rstrip("\r\n")


# -- place ----------------------------------------------------------------------------------------


def place(workspace: Path) -> str:
    """Which record this is, on which machine: the same text wherever the same file is seen under the same kernel."""
    from tutelage.database import FILE

    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text().strip() if boot.exists() else platform.node()
    return f"{machine}/{(workspace / FILE).stat().st_ino}"


def elsewhere(workspace: Path, cwd: Path | None, sent_from: str) -> str:
    """Why a job that was sent from there cannot run here; empty: it can."""
    here = platform.node()
    try:
        same = place(workspace) == sent_from
    except FileNotFoundError:
        return f"node {here} does not see the workspace {workspace}: it has to be mounted there under the same path"
    if not same:
        return (
            f"on node {here}, {workspace} is not the folder that the job was sent from, or it is another machine, from "
            "where its record cannot be written safely: SQLite's log is shared through one machine's memory"
        )
    if cwd is not None and not cwd.is_dir():
        return f"node {here} does not see the folder {cwd}, in which the job is to run"
    return ""


if __name__ == "__main__":
    sys.exit(main())

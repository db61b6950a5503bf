"""Sandboxes without namespaces: each snippet gets a process and a folder of its own, which are cleared away after it.

What keeps the code in is Landlock, through the package `sandlock`; or nothing, where someone asked for that by name.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from tutelage.environments.sandbox import seccomp, system, watch
from tutelage.environments.sandbox.base import LONGEST_CODE, Limits, Ran, Sandbox
from tutelage.errors import MissingPart

STARTS_WITHIN = 20.0
"""Seconds for the launcher to get ready, which do not count as the snippet's."""
CLEARS_WITHIN = 5.0
"""Seconds in which the processes of a snippet must be gone once they are killed."""


class OneShot(Sandbox):
    """A process per snippet, confined by Landlock or only by what the kernel counts."""

    def __init__(self, limits: Limits, landlock: bool) -> None:
        self.limits, self.landlock = limits, landlock
        self.python, self.user = system.python(), system.unused_user()
        if landlock:
            if find_spec("sandlock") is None:
                raise MissingPart("sandlock is not installed: pip install sandlock")
            if not seccomp.supported():
                raise MissingPart("there is no system call filter for this processor")
        self.level = "Landlock (sandlock), unprivileged uid, seccomp; no namespaces, disk limit by watching"
        if not landlock:
            self.level = "UNSAFE: limits only; the code can read files and use the network"
        self._lock = threading.Lock()
        probe = self.run("print(2 + 3)")
        if probe.output != "5\n":
            raise MissingPart(f"{self.level.split(':')[0]} does not work here: {probe.problem or probe.output[:200]}")

    def run(self, code: str) -> Ran:
        text = code.encode("utf-8", "surrogatepass")
        if len(text) > LONGEST_CODE:
            return Ran("", watch.TOO_LONG)
        with self._lock, contextlib.closing(watch.Streams(self.limits)) as streams:
            folder = tempfile.mkdtemp(prefix="snippet-")
            try:
                if self.user is not None:
                    os.chown(folder, self.user, self.user)
                return self._run(text, folder, streams)
            finally:
                remove(folder)

    def _run(self, text: bytes, folder: str, streams: watch.Streams) -> Ran:
        begun = time.monotonic()
        answer, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with watch.code_file(text) as source:
                process = subprocess.Popen(
                    self._command(folder, theirs),
                    stdin=source,
                    stdout=streams.write_out,
                    stderr=streams.write_err,
                    pass_fds=[theirs],
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
            streams.handed_over()
            os.close(theirs)
            theirs = -1
            with contextlib.suppress(BlockingIOError):
                os.set_blocking(answer, False)
                poll = select.poll()
                poll.register(answer, select.POLLIN)
                poll.poll(1000 * STARTS_WITHIN)
                os.read(answer, 1)
            stopped = watch.follow(streams, answer, lambda: self._too_much(process.pid, folder))
            gone = clear(process)
            status = os.read(answer, 16)  # at its end by now, with or without a status
        finally:
            for descriptor in (answer, theirs):
                if descriptor >= 0:
                    os.close(descriptor)
        seconds = time.monotonic() - begun
        return watch.ran(streams, stopped or gone, int(status) if status else -signal.SIGKILL, seconds)

    def _too_much(self, process: int, folder: str) -> str:
        if watch.memory_below(process) > self.limits.memory:
            return watch.out_of_memory(self.limits)
        size, files = used(folder)
        return "stopped: its folder is full" if size > self.limits.disk or files > self.limits.files else ""

    def _command(self, folder: str, answer: int) -> list[str]:
        program = seccomp.program().hex() if self.landlock else ""
        inside = {"mode": "alone", "limits": asdict(self.limits), "program": program, "user": self.user}
        given = {
            "landlock": self.landlock,
            "folder": folder,
            "answer": answer,
            "processes": self.limits.processes,
            "readable": [path for path in (*system.readable(self.python), *system.DEVICES) if os.path.exists(path)],
            "command": [self.python, "-I", "-S", "-c", system.inside(), json.dumps(inside)],
        }
        return [sys.executable, "-I", str(Path(__file__).with_name("launch.py")), json.dumps(given)]


def clear(process: "subprocess.Popen[bytes]") -> str:
    """Kill everything below `process` until it has nothing left to wait for; say so if that fails."""
    deadline = time.monotonic() + CLEARS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        for child in watch.below(process.pid):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)
    if process.poll() is not None:
        return ""
    process.kill()
    process.wait()
    return "its processes could not be ended"


def used(folder: str) -> tuple[int, int]:
    """Bytes and number of files in a folder that may change meanwhile."""
    size = files = 0
    for place, folders, names in os.walk(folder):
        files += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size, files


def remove(folder: str) -> None:
    """Remove a folder whatever its permissions; links are not followed."""

    def allow(function: object, path: str, _: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700, follow_symlinks=os.path.islink(path) is False)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    shutil.rmtree(folder, onerror=allow)

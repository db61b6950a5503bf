"""The default sandbox: bubblewrap's namespaces around one warm server, which forks a process for every snippet.

Inside there is no network, no /proc, no terminal and no other process; /usr is there to be read, as far as Python needs
it, and /tmp is a fresh folder for each run. The server keeps one capability in its own user namespace, to mount
that folder; the snippet's process gives it up, and gets its limits and the system call filter, before it reads its
code.
"""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict
from typing import IO

from tutelage.environments.sandbox import seccomp, system, watch
from tutelage.environments.sandbox.base import LONGEST_CODE, Limits, Ran, Sandbox
from tutelage.errors import EnvironmentBroken, MissingPart

STARTS_WITHIN, STOPS_WITHIN = 20.0, 5.0
"""Seconds for the server to come up, and to clear up after a run."""


class Bubblewrap(Sandbox):
    """One namespace with a server in it; a server that dies or stays silent is replaced."""

    def __init__(self, limits: Limits, python: str = "") -> None:
        if not seccomp.supported():
            raise MissingPart("there is no system call filter for this processor")
        path = shutil.which("bwrap")
        if path is None:
            raise MissingPart("bubblewrap is not installed: sudo apt-get install -y bubblewrap")
        self.limits, self.path, self.python = limits, path, python or system.python()
        self.user = system.unused_user()
        self.level = "bubblewrap, unprivileged uid, seccomp"
        self._lock = threading.Lock()
        self._server = _Server(self._command(), self.user)
        probe = self.run("print(2 + 3)")
        if probe.output != "5\n":
            self.close()
            raise MissingPart(f"bubblewrap does not run Python here: {probe.problem}")

    def run(self, code: str) -> Ran:
        text = code.encode("utf-8", "surrogatepass")
        if len(text) > LONGEST_CODE:
            return Ran("", watch.TOO_LONG)
        with self._lock:
            if self._server.dead():
                self._replace()
            begun = time.monotonic()
            streams = watch.Streams(self.limits)
            try:
                return self._run(text, streams, begun)
            except OSError as error:
                self._replace()
                return Ran("", f"the sandbox was restarted: {error}", time.monotonic() - begun)
            finally:
                streams.close()

    def _run(self, text: bytes, streams: watch.Streams, begun: float) -> Ran:
        with watch.code_file(text) as source:
            self._server.begin([source.fileno(), streams.write_out, streams.write_err])
        streams.handed_over()
        stopped = watch.follow(streams, self._server.socket.fileno(), self._too_much)
        if stopped:
            self._server.stop()
        status = self._server.status()
        return watch.ran(streams, stopped, status, time.monotonic() - begun)

    def _too_much(self) -> str:
        used = watch.memory_below(self._server.process.pid) if self._server.process else 0
        return watch.out_of_memory(self.limits) if used > self.limits.memory else ""

    def close(self) -> None:
        with self._lock:
            self._server.close()

    def _replace(self) -> None:
        self._server.close()
        try:
            self._server = _Server(self._command(), self.user)
        except MissingPart as error:
            raise EnvironmentBroken(f"the sandbox cannot be started again: {error}") from error

    def _command(self) -> list[str]:
        given = {"mode": "serve", "limits": asdict(self.limits), "program": seccomp.program().hex()}
        return [self.path, *_walls(self.python), self.python, "-I", "-S", "-c", system.inside(), json.dumps(given)]


class _Server:
    """The process inside, its end of the socket, and the thread that lives as long as it does.

    The kernel ties the death of a child to the thread that started it, so a thread of its own starts bubblewrap and
    waits for its end.
    """

    def __init__(self, command: list[str], user: int | None) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: subprocess.Popen[bytes] | None = None
        self.failure: Exception | None = None
        started = threading.Event()
        with tempfile.TemporaryFile() as said, theirs:
            arguments = (command, user, theirs, said, started)
            threading.Thread(target=self._tend, args=arguments, daemon=True, name="sandbox").start()
            started.wait()
            theirs.close()
            try:
                greeting = self._receive(STARTS_WITHIN) if self.failure is None else b""
            except OSError as error:
                greeting, self.failure = b"", error
            if greeting != b"ready":
                self.close()
                said.seek(0)
                reason = " ".join(said.read(2000).decode("utf-8", "replace").split()) or self.failure
                raise MissingPart(f"bubblewrap does not isolate here: {reason or 'it ended at once'}")

    def _tend(
        self,
        command: list[str],
        user: int | None,
        theirs: socket.socket,
        said: IO[bytes],
        started: threading.Event,
    ) -> None:
        # a user of its own: the kernel does not count the processes of root
        switch = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        try:
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=said, cwd="/", env={}, umask=0o077, **switch
            )  # type: ignore[call-overload]
        except OSError as error:
            self.failure = error
        finally:
            started.set()
        if self.process is not None:
            self.process.wait()

    def begin(self, descriptors: list[int]) -> None:
        socket.send_fds(self.socket, [b"run"], descriptors)

    def stop(self) -> None:
        self.socket.send(b"stop")

    def status(self) -> int:
        """Exit status of the run; OSError if the server died or has nothing sensible to say."""
        answer = self._receive(STOPS_WITHIN)
        try:
            return int(answer)
        except ValueError:
            raise OSError("its server ended") from None

    def _receive(self, seconds: float) -> bytes:
        if not self._readable(seconds):
            raise OSError(f"its server was silent for {seconds:g} s")
        return self.socket.recv(64)

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def dead(self) -> bool:
        """Whether it has ended; between runs it has nothing to say, so anything to read means its end."""
        return self.socket.fileno() < 0 or self._readable(0)

    def close(self) -> None:
        self.socket.close()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()  # takes what is inside along
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOPS_WITHIN)


def _walls(python: str) -> list[str]:
    """Options of bubblewrap."""
    options = ["--unshare-all", "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv"]
    options += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]  # within its own user namespace, for the server
    for name, value in (("PATH", "/usr/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")):
        options += ["--setenv", name, value]
    for path in system.readable(python):
        options += ["--ro-bind-try", path, path]
    for path in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--ro-bind-try", path, path]
    options += ["--dir", "/dev"]
    for device in system.DEVICES:
        options += ["--dev-bind", device, device]
    return [*options, "--dir", "/tmp", "--remount-ro", "/", "--"]

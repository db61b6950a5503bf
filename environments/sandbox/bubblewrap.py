"""The default sandbox: bubblewrap's namespaces around one warm server, which forks a process for every snippet.

Inside there is no network, no /proc, no terminal and no other process; /usr is there to be read, as far as Python needs
it, and /tmp is a fresh folder for each run. The server keeps one capability in its own user namespace, to mount
that folder; the snippet's process gives it up, and gets its limits and the system call filter, before it reads the code.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tutelage.environments.sandbox import seccomp, watch
from tutelage.environments.sandbox.base import LONGEST_CODE, Limits, Ran, Sandbox
from tutelage.errors import MissingPart

UNUSED_UIDS = range(1_900_000_000, 2_000_000_000)
"""User ids that no system gives to anyone; each sandbox takes one of its own."""
NOBODY = 65534
STARTS_WITHIN, STOPS_WITHIN = 20.0, 5.0
"""Seconds for the server to come up, and to clear up after a run."""
SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/share/zoneinfo", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Bubblewrap(Sandbox):
    """One namespace with a server in it; a server that dies or stays silent is replaced."""

    def __init__(self, limits: Limits, python: str = "") -> None:
        if not seccomp.supported():
            raise MissingPart("there is no system call filter for this processor")
        path = shutil.which("bwrap")
        if path is None:
            raise MissingPart("bubblewrap is not installed: sudo apt-get install -y bubblewrap")
        self.limits, self.path, self.python = limits, path, python or _python()
        self.user = _user()
        self.level = "bubblewrap, unprivileged uid, seccomp"
        self._lock = threading.Lock()
        self._server = _Server(self._command(), self.user)

    def run(self, code: str) -> Ran:
        text = code.encode("utf-8", "surrogatepass")
        if len(text) > LONGEST_CODE:
            return Ran("", f"the code is longer than {LONGEST_CODE} bytes")
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
        source = os.memfd_create("code", os.MFD_CLOEXEC)
        try:
            with open(source, "wb", closefd=False) as file:
                file.write(text)
            os.lseek(source, 0, os.SEEK_SET)
            self._server.begin([source, streams.write_out, streams.write_err])
        finally:
            os.close(source)
        streams.handed_over()
        stopped = watch.follow(streams, self._server.socket.fileno(), self._server.memory)
        if stopped:
            self._server.stop()
        status = self._server.status()
        return watch.ran(streams, stopped, status, time.monotonic() - begun)

    def close(self) -> None:
        with self._lock:
            self._server.close()

    def _replace(self) -> None:
        self._server.close()
        self._server = _Server(self._command(), self.user)

    def _command(self) -> list[str]:
        given = {"mode": "serve", "limits": asdict(self.limits), "program": seccomp.program().hex()}
        inside = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
        return [self.path, *_walls(self.python), self.python, "-I", "-S", "-c", inside, json.dumps(given)]


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
        if not select.select([self.socket], [], [], seconds)[0]:
            raise OSError(f"its server was silent for {seconds:g} s")
        return self.socket.recv(64)

    def dead(self) -> bool:
        """Whether it has ended; between runs it has nothing to say, so anything to read means its end."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def memory(self) -> int:
        return watch.memory_below(self.process.pid) if self.process else 0

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
    prefix = str(Path(python).parent.parent)
    for path in (*SYSTEM, prefix) if prefix != "/usr" else SYSTEM:
        options += ["--ro-bind-try", path, path]
    for path in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        else:
            options += ["--ro-bind-try", path, path]
    options += ["--dir", "/dev"]
    for device in DEVICES:
        options += ["--dev-bind", device, device]
    return [*options, "--dir", "/tmp", "--remount-ro", "/", "--"]


def _user() -> int | None:
    """Whom to run as: nobody in particular when started as root, else who we are."""
    if os.geteuid() != 0:
        return None
    own = UNUSED_UIDS[secrets.randbelow(len(UNUSED_UIDS))]
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= own < first + count:
            return own
    return NOBODY


def _python() -> str:
    """An interpreter that anyone may run: the system's, or else the one that runs here."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", os.path.join(sys.base_prefix, "bin", "python3")):
        if os.access(path, os.X_OK):
            return os.path.realpath(path)
    raise MissingPart("no Python that can be used inside a sandbox: sudo apt-get install -y python3")

"""Escape attempts as a model could write them, and what watches whether any comes through.

Each attempt is Python that prints ESCAPED where it got what it must not get. `Watch` looks on from outside as well: a
secret in a file that anyone may read, in the environment and in an inherited descriptor, listeners that must stay
alone, processes and files that must not be left. After each attempt the sandbox has to run CLEAN with the same
result as when it was new.

Needs the standard library and the sandbox only, so that it also runs as a script, as another user:

    python sandbox_attacks.py NAME ...     # one line of JSON: what went wrong, by name
"""

import json
import os
import re
import secrets
import select
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from tutelage.environments.sandbox import Limits, Sandbox, open_sandbox, seccomp, watch

LIMITS = Limits(seconds=1.0, memory=96 * 2**20, processes=6, output=5000, disk=2**22, files=64)
GRACE = 6.0
"""Seconds beyond the limit that stopping and clearing up may take on a busy machine."""

PRELUDE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NR = @NUMBERS@
def works(what, attempt):
    try:
        found = attempt()
    except BaseException as error:
        print(what, "refused:", type(error).__name__, error)
    else:
        print("ESCAPED:", what, repr(found)[:200])
def call(name, *arguments):
    ctypes.set_errno(0)
    found = libc.syscall(NR[name], *arguments)
    if found == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def libc_call(name, *arguments):
    found = getattr(libc, name)(*arguments)
    if found == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
"""

CLEAN = """
import builtins, gc, json, math, os, random, resource, signal, sys, threading
try:
    others = os.kill(-1, 0)
except ProcessLookupError:
    others = "none"
def walls():
    for path in ("/usr/x", "/x", "/dev/x"):
        try:
            open(path, "w")
            yield path
        except OSError:
            pass
open("/tmp/mine", "w").write("here")
print(json.dumps([
    sorted(os.listdir("/tmp")), os.getcwd(), os.umask(0), dict(os.environ), others, list(walls()),
    [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
    sorted(dir(builtins)), sorted(sys.modules), sys.gettrace(), math.pi, sys.getrecursionlimit(),
    [str(signal.getsignal(n)) for n in (1, 2, 10, 12, 14, 15, 24, 25)], sorted(signal.pthread_sigmask(0, [])),
    [os.get_blocking(n) for n in (0, 1, 2)], os.getpriority(os.PRIO_PROCESS, 0), threading.active_count(),
    print.__module__, len(sys.argv), os.path.exists("/proc"), os.getuid(), sorted(vars(sys.modules["__main__"])),
]))
"""

_TEXT = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
ATTACKS = {
    name: ("" if bare else PRELUDE) + code
    for name, bare, code in re.findall(r"^### (\w+)( bare)?\n(.*?)(?=^###|\Z)", _TEXT, re.MULTILINE | re.DOTALL)
}
"""Attempts by name; one marked `bare` brings all it needs."""
ATTACKS["source_that_is_no_text"] = "\0\ud800 import os"


class Watch:
    """Secrets on the host, and eyes that see whether anything got at them."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="host-"))
        self.folder.chmod(0o755)
        self.file = self.folder / "secret"
        self.file.write_text(self.secret)
        self.file.chmod(0o644)
        os.environ["A_SECRET"] = self.secret
        self.inherited = os.open(self.file, os.O_RDONLY)
        os.set_inheritable(self.inherited, True)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.abstract.bind("\0sandbox-" + self.secret[:8])
        for listener in (self.unix, self.abstract):
            listener.listen()

    def fill(self, code: str) -> str:
        """Put this host's particulars into an attempt."""
        column = seccomp.MACHINES[os.uname().machine][0]
        numbers = {name: row[column] for name, row in {**seccomp.DENIED, **seccomp.ABSENT}.items()}
        numbers["clone"] = seccomp.CLONE[column]
        for mark, value in (
            ("@NUMBERS@", repr(numbers)),
            ("@SECRET_PATH@", str(self.file)),
            ("@FOLDER@", str(self.folder)),
            ("@PORT@", str(self.tcp.getsockname()[1])),
            ("@UDP@", str(self.udp.getsockname()[1])),
            ("@UNIX@", str(self.folder / "socket")),
            ("@ABSTRACT@", "sandbox-" + self.secret[:8]),
        ):
            code = code.replace(mark, value)
        return code

    def alarms(self) -> list[str]:
        """What can be seen from outside."""
        touched = select.select([self.tcp, self.udp, self.unix, self.abstract], [], [], 0)[0]
        seen = ["a listener was reached"] if touched else []
        if self.file.read_text() != self.secret or sorted(os.listdir(self.folder)) != ["secret", "socket"]:
            seen.append("the host's files were changed")
        if stat.S_IMODE(self.file.stat().st_mode) != 0o644:
            seen.append("the secret's permissions were changed")
        return seen

    def close(self) -> None:
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        os.close(self.inherited)
        os.environ.pop("A_SECRET", None)
        for path in (self.file, self.folder / "socket"):
            path.unlink()
        self.folder.rmdir()


class Trial:
    """A sandbox, what it looked like when new, and attempts made on it one after the other."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.sandbox: Sandbox = open_sandbox(LIMITS)
        self.new = self.sandbox.run(CLEAN)
        self.processes = self.below()

    def below(self) -> int:
        return len(watch.below(os.getpid()))

    def attempt(self, name: str) -> list[str]:
        """Make one attempt; return what is wrong afterwards."""
        begun = time.monotonic()
        ran = self.sandbox.run(self.watch.fill(ATTACKS[name]))
        wrong = self.watch.alarms()
        text = f"{ran.output} {ran.problem}"
        wrong += [line[:300] for line in text.splitlines() if "ESCAPED" in line]
        if self.watch.secret in text:
            wrong.append("the secret came out")
        if time.monotonic() - begun > LIMITS.seconds + GRACE:
            wrong.append(f"took {time.monotonic() - begun:.1f} s")
        if len(ran.output) > LIMITS.output + 20 or len(ran.problem) > 1000 or "\n" in ran.problem:
            wrong.append(f"{len(ran.output)} characters of output, {len(ran.problem)} of problem")
        if re.search("restarted|prepared", ran.problem):
            wrong.append(f"the sandbox broke: {ran.problem}")
        if self.below() != self.processes:
            wrong.append(f"{self.below()} processes instead of {self.processes}")
        again = self.sandbox.run(CLEAN)
        if (again.output, again.problem) != (self.new.output, ""):
            wrong.append(f"not as new: {again.problem or again.output}")
        simple = self.sandbox.run("print(1)")
        if (simple.output, simple.problem) != ("1\n", ""):
            wrong.append(f"not usable: {simple}")
        return wrong

    def close(self) -> None:
        self.sandbox.close()
        self.watch.close()


def main() -> None:
    trial = Trial()
    wrong = {name: trial.attempt(name) for name in sys.argv[1:] or ATTACKS}
    level = trial.sandbox.level
    trial.close()
    print(
        json.dumps(
            {"user": os.getuid(), "level": level, "tried": len(wrong), "wrong": {k: v for k, v in wrong.items() if v}}
        )
    )


if __name__ == "__main__":
    main()

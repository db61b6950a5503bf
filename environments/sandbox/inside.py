"""The part that runs inside: a server that forks a fresh process for every snippet, or one snippet alone.

It is passed to an isolated Python as text, so it imports the standard library only and runs on 3.9. The server is
process 1 of its own process namespace and never runs a line of the model's: signals from inside do not
reach it, and when it ends, so does everything else in there. It sees neither the code nor what is printed: both pass
through descriptors that belong to the forked process.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import types
from typing import Any, NoReturn, TextIO

MS_NOSUID, MS_NODEV, MS_NOEXEC, MNT_DETACH = 2, 4, 8, 2
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 4, 22, 38, 2
CAPABILITY_VERSION = 0x20080522
WARM = ("collections", "datetime", "functools", "itertools", "math", "random", "re", "statistics")
"""Modules that a snippet finds loaded."""
libc = ctypes.CDLL(None, use_errno=True)


class Filter(ctypes.Structure):
    """`struct sock_fprog`"""

    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def check(result: int) -> None:
    """Raise what libc left in errno."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fresh_folder(limits: dict[str, Any]) -> None:
    """Cover /tmp with an empty file system of its own, limited in bytes and in files."""
    options = f"mode=0700,size={limits['disk']},nr_inodes={limits['files'] + 1}"
    check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.encode()))


def limit(limits: dict[str, Any]) -> None:
    """Set what the kernel counts for this process and those it starts."""
    seconds = max(1, int(limits["seconds"] + 0.999))
    for name, value in (
        ("AS", limits["memory"]),
        ("CORE", 0),
        ("CPU", (seconds, seconds + 1)),
        ("FSIZE", limits["disk"]),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
        ("NICE", 0),
        ("NOFILE", limits["descriptors"]),
        ("RTPRIO", 0),
        ("SIGPENDING", 64),
        ("NPROC", limits["processes"] + 1),  # the server counts as well
    ):
        soft, hard = value if isinstance(value, tuple) else (value, value)
        kind = getattr(resource, "RLIMIT_" + name)
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()))


def filter_calls(program: bytes) -> None:
    """From here on the kernel refuses the system calls that `program` names; this cannot be taken back."""
    text = ctypes.create_string_buffer(program, len(program))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    structure = Filter(len(program) // 8, ctypes.cast(text, ctypes.c_void_p))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(structure), 0, 0))


def snippet() -> NoReturn:
    """Run the code that standard input holds, as a script; never returns."""
    parts = []
    while True:
        part = os.read(0, 1 << 16)
        if not part:
            break
        parts.append(part)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), text_to(1), text_to(2)  # noqa: SIM115
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["code"]
    os._exit(execute(b"".join(parts), module.__dict__))


def text_to(number: int) -> TextIO:
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def execute(source: bytes, namespace: dict[str, Any]) -> int:
    """Run the source and wait for its threads; return the exit status."""
    status = 0
    try:
        exec(compile(source, "<code>", "exec"), namespace)
        if "threading" in sys.modules:
            threading = importlib.import_module("threading")
            for thread in set(threading.enumerate()) - {threading.current_thread()}:
                if not thread.daemon:
                    thread.join()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            status = (end.code or 0) & 255
        else:
            status = 1
            say(text_of(end.code))
    except MemoryError:
        status = 1
        say("MemoryError")
    except BaseException as error:
        status = 1
        say(describe(error))
    with contextlib.suppress(BaseException):  # it may have become anything
        sys.stdout.flush()
    return status


def say(line: str) -> None:
    """Write one last line to standard error, whatever has become of sys.stderr."""
    with contextlib.suppress(OSError):
        os.write(2, ("\n" + " ".join(line.split())[:2000]).encode("utf-8", "backslashreplace"))


def text_of(thing: object) -> str:
    try:
        return str(thing)
    except BaseException:
        return "(its text cannot be made)"


def describe(error: BaseException) -> str:
    """The error as Python's last line of a traceback, with the line of the code it came from."""
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename == "<code>":
        return f"{name}: {error.msg} (line {error.lineno})"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<code>":
            line = trace.tb_lineno
        trace = trace.tb_next
    words = text_of(error)
    text = f"{name}: {words}" if words else name
    return f"{text} (line {line})" if line else text


def start(descriptors: list[int], limits: dict[str, Any], program: bytes) -> NoReturn:
    """In the forked process: keep three descriptors, give up every right, then run the code."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 1024)
    os.chdir("/tmp")
    limit(limits)
    drop_capabilities()
    filter_calls(program)
    snippet()


def one_run(control: socket.socket, descriptors: list[int], limits: dict[str, Any], program: bytes) -> int:
    """Fork, wait for the end or for the word to stop, then clear everything away; return the exit status."""
    fresh_folder(limits)
    process = os.fork()
    if process == 0:
        try:
            start(descriptors, limits, program)
        except BaseException as error:  # before the code was read, or it broke what reports its own errors
            say(f"the process could not be prepared: {type(error).__name__}")
        finally:
            os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(process)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(control, select.POLLIN)
    if control.fileno() in dict(waiting.poll()) and not control.recv(16):
        os._exit(0)
    os.close(ended)
    status = clear(process)
    check(libc.umount2(b"/tmp", MNT_DETACH))
    return status


def clear(process: int) -> int:
    """Kill whatever runs in here beside the server, and return the status of `process`."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    status = 0
    while True:
        try:
            found, code = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if found == process:
            status = os.waitstatus_to_exitcode(code)


def serve(limits: dict[str, Any], program: bytes) -> NoReturn:
    """Answer each `run` with the exit status, until the other end of the socket is closed."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)  # process 1 has no default: the kernel drops what comes from inside
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    for module in WARM:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, 3)
        if not message:
            os._exit(0)
        if message == b"run" and len(descriptors) == 3:  # a late `stop` has nothing left to stop
            control.send(str(one_run(control, descriptors, limits, program)).encode())


def alone(limits: dict[str, Any], program: bytes, user: int | None = None) -> NoReturn:
    """Run one snippet in this very process, as `user` if that is given."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.umask(0o077)
    limit(limits)
    if program:
        filter_calls(program)
    snippet()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    wanted = {"serve": serve, "alone": alone}[given.pop("mode")]
    wanted(given.pop("limits"), bytes.fromhex(given.pop("program")), **given)

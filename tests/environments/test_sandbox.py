"""What every sandbox promises, the limits, its recovery, and the table of refused system calls."""

import os
import re
import shutil
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSYS, EPERM
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.environments.sandbox import Limits, Sandbox, bubblewrap, oneshot, open_sandbox, seccomp, system, watch
from tutelage.errors import EnvironmentBroken, MissingPart

LIMITS = Limits(seconds=2.0, memory=96 * 2**20, output=1000)
KINDS = ("bubblewrap", "landlock", "unsafe")


@pytest.fixture(scope="module", params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    try:
        made: Sandbox = (
            bubblewrap.Bubblewrap(LIMITS)
            if request.param == "bubblewrap"
            else oneshot.OneShot(LIMITS, landlock=request.param == "landlock")
        )
    except MissingPart as error:
        if request.param != "landlock":
            raise
        pytest.skip(str(error))  # not every kernel has it, and nothing can install it
    with made:
        yield made


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [
        ("print(2 ** 10)", "1024\n", ""),
        ("", "", ""),
        ("import statistics\nprint(statistics.mean([1, 2, 6]))", "3\n", ""),
        ("import sys\nprint('yes', end='')\nsys.exit(0)", "yes", ""),
        ("print('first')\n1 / 0", "first\n", "ZeroDivisionError: division by zero (line 2)"),
        ("def f(:", "", "SyntaxError: invalid syntax (line 1)"),
        ("raise SystemExit('not so')", "", "not so"),
        ("exit(3)", "", "ended with status 3"),
        ("print(undefined)", "", "NameError: name 'undefined' is not defined (line 1)"),
        ("x = 'a' * 10**9", "", "out of memory (limit 96 MiB)"),
        ("print('é→', '\\ud800')", "é→ \\ud800\n", ""),
        ("print('x' * 2000)", "x" * 1000 + "\n[output cut]", ""),
        ("raise ValueError('a\\nb\\x1b[2J')", "", "ValueError: a b [2J (line 1)"),
        ("import os\nos.abort()", "", "crashed: Aborted"),
        ("import sys\nprint(sys.stdin.read() == '')", "True\n", ""),
        ("import threading\nthreading.Thread(target=print, args=(7,)).start()", "7\n", ""),
        ("import os\nos.mkdir('d')\nopen('d/f', 'w').write('x')\nprint(os.listdir())", "['d']\n", ""),
        ("import os\nprint(os.listdir(), 'A_SECRET' in os.environ)", "[] False\n", ""),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    b: int\nprint(A(1))", "A(b=1)\n", ""),
    ],
)
def test_output_and_problem(
    sandbox: Sandbox, code: str, output: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "1")
    ran = sandbox.run(code)
    assert (ran.output, ran.problem) == (output, problem)
    assert 0 < ran.seconds < LIMITS.seconds + 1


def test_time_runs_out(sandbox: Sandbox) -> None:
    ran = sandbox.run("print('begun')\nwhile True: pass")
    assert (ran.output, ran.problem) == ("begun\n", "timed out after 2 s")
    assert ran.seconds < 4


def test_code_that_is_too_long(sandbox: Sandbox) -> None:
    assert sandbox.run("#" * 2_000_000).problem == "the code is longer than 1048576 bytes"


def test_level_says_what_holds(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    first = {"bubblewrap": "bubblewrap", "landlock": "Landlock", "unsafe": "UNSAFE"}
    assert sandbox.level.startswith(first[request.node.callspec.params["sandbox"]])


@pytest.fixture(scope="module")
def strong() -> Iterator[Sandbox]:
    with open_sandbox(LIMITS) as made:
        yield made


def test_nothing_of_an_earlier_snippet_is_in_memory(strong: Sandbox) -> None:
    strong.run(
        "import sys\nmark = 'trace-' + '7' * 20\nprint(mark)\nprint(mark, file=sys.stderr)\nraise KeyError(mark)"
    )
    look = """
import ctypes, gc
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
end = libc.sbrk(0)
text = ctypes.string_at(end - 2**19, 2**19) + repr(gc.get_objects()).encode("utf-8", "replace")
print(len(text) > 2**19, text.count(b"trace-" + b"7" * 19 + bytes([55])), text.count(b"trace-"))
"""
    assert strong.run(look).output.startswith("True 0 ")


@given(st.text(max_size=200))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_answered(strong: Sandbox, text: str) -> None:
    ran = strong.run(text)
    assert "\n" not in ran.problem
    assert strong.run("print(1)").output == "1\n"


def test_from_many_threads_at_once_and_after_the_one_that_opened_it_ended() -> None:
    made: list[Sandbox] = []
    opener = threading.Thread(target=lambda: made.append(open_sandbox(LIMITS)))
    opener.start()
    opener.join()
    with made[0] as shared, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: shared.run(f"print({number})").output, range(40)))
    assert results == [f"{number}\n" for number in range(40)]


def test_two_at_once_do_not_share_their_counts() -> None:
    hold = "import os, time\ntry:\n    while True: os.fork()\nexcept OSError:\n    time.sleep(1)"
    with open_sandbox(LIMITS) as one, open_sandbox(LIMITS) as two, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(one.run, hold)
        time.sleep(0.3)
        assert two.run("import os\nif os.fork():\n    os.wait()\n    print('forked')").output == "forked\n"
        busy.result()


def test_a_server_that_dies_is_replaced() -> None:
    with bubblewrap.Bubblewrap(LIMITS) as made:
        for process in watch.below(made._server.process.pid):  # type: ignore[union-attr]
            os.kill(process, signal.SIGKILL)
        time.sleep(0.2)
        assert made.run("print(1)").output == "1\n"  # it died between two runs: nobody needs to know
        killer = threading.Timer(0.4, made._server.process.kill)  # type: ignore[union-attr]
        killer.start()
        ran = made.run("import time\ntime.sleep(1.5)")
        assert ran.problem == "the sandbox was restarted: its server ended"
        assert made.run("print(2)").output == "2\n"


def test_a_server_that_is_silent_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "STOPS_WITHIN", 0.5)
    with bubblewrap.Bubblewrap(LIMITS) as made:
        for process in watch.below(made._server.process.pid):  # type: ignore[union-attr]
            os.kill(process, signal.SIGSTOP)
        ran = made.run("print(1)")
        assert ran.problem == "the sandbox was restarted: its server was silent for 0.5 s"
        assert made.run("print(2)").output == "2\n"


def test_nothing_is_left_after_closing() -> None:
    before, open_files = len(watch.below(os.getpid())), len(os.listdir("/proc/self/fd"))
    with open_sandbox(LIMITS) as made:
        made.run("print(1)")
        assert len(watch.below(os.getpid())) > before
    assert (len(watch.below(os.getpid())), len(os.listdir("/proc/self/fd"))) == (before, open_files)


def test_without_isolation_no_code_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(oneshot, "find_spec", lambda name: None)
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    for path in (tmp_path, *tmp_path.parents[:-1]):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o011)
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    with pytest.raises(MissingPart) as refused:
        open_sandbox(LIMITS)
    assert "no code is run: bubblewrap does not isolate here: No permissions" in str(refused.value)
    assert "pip install sandlock" in str(refused.value)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingPart, match="apt-get install -y bubblewrap"):
        open_sandbox(LIMITS)
    with open_sandbox(LIMITS, unsafe=True) as made:
        assert made.level.startswith("UNSAFE")
        assert made.run("print(1)").output == "1\n"


def test_a_sandbox_that_cannot_be_restarted_breaks_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    with bubblewrap.Bubblewrap(LIMITS) as made:
        made.close()
        monkeypatch.setattr(made, "path", "/nowhere/bwrap")
        with pytest.raises(EnvironmentBroken, match="cannot be started again"):
            made.run("print(1)")


def test_user_of_its_own() -> None:
    user = system.unused_user()
    if os.geteuid():
        assert user is None
    else:
        assert user == system.NOBODY or user in system.UNUSED_USERS


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the filter answers: the kernel's machine, as far as the program uses it."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    lines = list(struct.iter_unpack("=HBBI", program))
    accumulator, place = 0, 0
    while True:
        code, held, otherwise, value = lines[place]
        place += 1
        if code == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == seccomp.RETURN:
            return int(value)
        else:
            test = {seccomp.EQUAL: accumulator == value, seccomp.AT_LEAST: accumulator >= value}
            place += held if test.get(code, accumulator & value != 0) else otherwise


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_filter_decides(machine: str) -> None:
    column, architecture = seccomp.MACHINES[machine]
    program = seccomp.program(machine)
    refused, absent = seccomp.ERROR | EPERM, seccomp.ERROR | ENOSYS
    for numbers in seccomp.DENIED.values():
        if numbers[column] is not None:
            assert decide(program, architecture, numbers[column]) == refused  # type: ignore[arg-type]
    assert decide(program, architecture, 435) == absent
    assert decide(program, architecture, seccomp.NEWEST + 1) == absent
    assert decide(program, architecture, 0x40000001) == absent
    assert decide(program, 0x40000003, 1) == seccomp.KILL
    clone, limit, pair, control = (
        row[column] for row in (seccomp.CLONE, seccomp.PRLIMIT, seccomp.SOCKETPAIR, seccomp.IOCTL)
    )
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(program, architecture, clone, flag | signal.SIGCHLD) == refused
    assert decide(program, architecture, clone, 0x3D0F00) == seccomp.ALLOW  # a thread
    assert decide(program, architecture, limit, 0) == seccomp.ALLOW
    assert decide(program, architecture, limit, 1) == refused
    assert decide(program, architecture, pair, 1) == seccomp.ALLOW
    assert decide(program, architecture, pair, 16) == refused
    assert decide(program, architecture, control, 0, 0x5412) == refused
    assert decide(program, architecture, control, 0, 0x5401) == seccomp.ALLOW
    listed = {row[column] for row in (*seccomp.DENIED.values(), *seccomp.ABSENT.values())} | {
        clone,
        limit,
        pair,
        control,
    }
    for number in set(range(seccomp.NEWEST + 1)) - listed:
        assert decide(program, architecture, number) == seccomp.ALLOW


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "x86_64-linux-gnu/asm/unistd_64.h"), (1, "asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_kernel(column: int, header: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip("no kernel headers")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    rows = {**seccomp.DENIED, **seccomp.ABSENT, "clone": seccomp.CLONE, "prlimit64": seccomp.PRLIMIT}
    rows |= {"socketpair": seccomp.SOCKETPAIR, "ioctl": seccomp.IOCTL}
    for name, numbers in rows.items():
        if name in known:
            assert numbers[column] == int(known[name]), name
        elif numbers[column] is not None:
            assert numbers[column] > 440, f"{name} is not in {path}"  # newer than the headers
    assert len(set(rows) & set(known)) > 70

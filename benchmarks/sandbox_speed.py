"""Snippets per second in the sandbox, against a bare Python process and smolagents' executor, in one run.

    python benchmarks/sandbox_speed.py --smolagents      # makes smolagents' environment the first time

Warm is one open sandbox; cold opens one per snippet. A bare process is `python -I -S -c`: it holds nothing back.
smolagents' LocalPythonExecutor interprets the code in the process that asks, which is no security boundary and has no
limit on memory; it is fast where there is little to compute and slow where there is much. All take turns, so that a
busy machine slows each of them alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tutelage.environments.sandbox import Limits, Sandbox, system
from tutelage.environments.sandbox.bubblewrap import Bubblewrap
from tutelage.environments.sandbox.oneshot import OneShot
from tutelage.errors import MissingPart

PACKAGE = "smolagents==1.26.0"
SNIPPETS = {
    "print": ("print(1)", "1"),
    "mean": ("import statistics\nprint(statistics.mean([1, 2, 6]))", "3"),
    "loop": ("total = 0\nfor number in range(10000):\n    total += number * number\nprint(total)", "333283335000"),
}
WORKER = """
import json, sys, time
from smolagents.local_python_executor import LocalPythonExecutor
for line in sys.stdin:
    begun = time.perf_counter()
    executor = LocalPythonExecutor([])
    executor.send_tools({})
    answer = executor(json.loads(line))
    print(json.dumps([answer.logs.strip(), time.perf_counter() - begun]), flush=True)
"""

Timed = Callable[[str], tuple[str, float]]
"""Runs a snippet; says what it printed and how many seconds it took."""


def warm(sandbox: Sandbox) -> Timed:
    def run(code: str) -> tuple[str, float]:
        begun = time.perf_counter()
        return sandbox.run(code).output.strip(), time.perf_counter() - begun

    return run


def cold(code: str) -> tuple[str, float]:
    begun = time.perf_counter()
    with Bubblewrap(Limits()) as sandbox:
        return sandbox.run(code).output.strip(), time.perf_counter() - begun


def bare(code: str) -> tuple[str, float]:
    begun = time.perf_counter()
    done = subprocess.run([system.python(), "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip(), time.perf_counter() - begun


def smolagents(folder: Path) -> tuple[Timed, "subprocess.Popen[str]"]:
    """smolagents in an environment of its own; timed there, without the way to it and back."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / "complete").touch()
    process = subprocess.Popen([python, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    to, back = process.stdin, process.stdout

    def run(code: str) -> tuple[str, float]:
        print(json.dumps(code), file=to, flush=True)
        output, seconds = json.loads(back.readline())
        return output, seconds

    return run, process


def measure(ways: dict[str, tuple[Timed, int]], rounds: int, console: Console) -> None:
    """Every way in turn, `rounds` times its own number of snippets of each kind."""
    for kind, (code, expected) in SNIPPETS.items():
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (run, count) in ways.items():
                for _ in range(count):
                    output, seconds = run(code)
                    if output != expected:
                        raise SystemExit(f"{name} printed {output!r} instead of {expected!r}")
                    times[name].append(seconds)
        table = Table("way", "runs", "median ms", "fastest ms", "slowest ms", "snippets/s", title=f"{kind}: {code!r}")
        for name, taken in times.items():
            middle = statistics.median(taken)
            table.add_row(
                name, str(len(taken)), f"{1000 * middle:.2f}", f"{1000 * min(taken):.2f}", f"{1000 * max(taken):.1f}",
                f"{len(taken) / sum(taken):.0f}",
            )  # fmt: skip
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each way (default 10)")
    parser.add_argument("--smolagents", action="store_true", help="make smolagents' environment and compare")
    arguments = parser.parse_args()
    console = Console(width=120)
    sandbox = Bubblewrap(Limits())
    console.print(f"{sandbox.level}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    ways: dict[str, tuple[Timed, int]] = {
        "sandbox, warm": (warm(sandbox), 30),
        "sandbox, cold": (cold, 2),
        "bare process (no isolation)": (bare, 5),
    }
    try:
        ways["Landlock (sandlock), no namespaces"] = (warm(OneShot(Limits(), landlock=True)), 1)
    except MissingPart as error:
        console.print(str(error))
    process = None
    if arguments.smolagents:
        cache = Path(os.environ.get("TUTELAGE_CACHE") or Path.home() / ".cache" / "tutelage")
        run, process = smolagents(cache / "smolagents-venv")
        run("print(1)")
        ways["smolagents, in its process (no isolation)"] = (run, 30)
    measure(ways, arguments.rounds, console)
    sandbox.close()
    if process is not None:
        process.communicate()


if __name__ == "__main__":
    sys.exit(main())

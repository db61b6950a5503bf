"""Run the slow suites in full and write a dated result file, which is meant to be committed.

make check-long
"""

import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    began = time.monotonic()
    command = ["pytest", "-m", "slow", "--full-counts", "-rfEsp", *sys.argv[1:]]
    run = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    outcomes = [line for line in run.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR", "SKIPPED"))]
    today = datetime.now(UTC).date().isoformat()
    lines = [
        f"date {today}, commit {commit.stdout.strip()}, Python {platform.python_version()}, "
        f"{time.monotonic() - began:.0f} s, exit code {run.returncode}",
        f"command {' '.join(command)}",
        *outcomes,
        run.stdout.strip().splitlines()[-1] if run.stdout.strip() else "no output",
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"check-long-{today}.txt").open("a") as file:
        file.write("\n".join(lines) + "\n\n")
    print("\n".join(lines))
    if run.returncode:
        print(run.stdout, run.stderr, file=sys.stderr)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())

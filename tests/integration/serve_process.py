"""`tutelage serve` as people start it: a process of its own."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 300.0
"""Seconds for a server to come up, or to end, on a busy machine."""


@contextmanager
def serving(workspace: Path, *arguments: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """A server on a workspace with kept settings: its base URL, itself, its log. It has to end when it is told."""
    command = [sys.executable, "-m", "tutelage.cli", "serve", "--port", "0", *arguments, "-s", f"workspace={workspace}"]
    log = workspace / "serve.log"
    with log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"at (https?://\S+/v1) ", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield found[1], process, log
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()

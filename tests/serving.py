"""A language model behind real HTTP: `transformers serve` with weights from this machine, on loopback alone.

As a program it serves until interrupted, for trying things by hand: ``python tests/serving.py``.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tutelage.training import weights

PATIENCE = 120.0
"""Seconds for the server to load its weights and answer."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
"""Without the last one the program asks the package index once a day whether there is a newer one."""

PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait asleep: on a busy machine waiting ones would take the processor from those they wait for."""


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    name: str
    """What requests call the model."""
    url: str
    """Base of its OpenAI-compatible interface, with ``/v1``."""
    log: Path

    @property
    def teacher(self) -> str:
        """The model string for `teacher.model` and `--teacher`."""
        return f"openai/{self.name}"

    @property
    def environ(self) -> dict[str, str]:
        """Where LiteLLM and the OpenAI client find it; the server looks at no key, but clients want one."""
        return {
            "OPENAI_API_BASE": self.url,
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": "sk-nobody-looks-at-it",
            "HOSTED_VLLM_API_BASE": self.url,
        }


@contextmanager
def serving(log: Path, weights_name: str = "smollm2") -> Iterator[Served]:
    """Serve `weights_name` (as `tutelage.training.weights.ensure` takes it); nothing is left running afterwards.

    Raises:
        RuntimeError: the server ended, or did not answer in time; holds the end of its log.
    """
    folder, port = weights.ensure(weights_name).absolute(), _free_port()
    # Started beside the folder, so that the model is called by the folder's bare name.
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", _dtype()]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, *options],
            cwd=folder.parent,
            env={**os.environ, **OFFLINE, **PATIENT_THREADS},
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield Served(folder.name, f"http://127.0.0.1:{port}/v1", log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group is there until its leader has been waited for
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", health: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the model server does not answer (exit {process.poll()}): {said}")


def _dtype() -> str:
    """What this processor is quickest in."""
    return str(weights.compute_dtype("auto")).removeprefix("torch.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with serving(Path(os.devnull), *sys.argv[1:2]) as served:
        print(*(f"export {name}={value}" for name, value in served.environ.items()), sep="\n")
        print(f"# tutelage … --set teacher.model={served.teacher}", flush=True)
        signal.pause()

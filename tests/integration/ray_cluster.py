"""A Ray cluster of two nodes on this machine, for tests and benchmarks; nothing of it is left afterwards."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE = 120.0
"""Seconds that a node may take to start."""
STORE_BYTES = 100_000_000
NODES = ("first", "second")
"""Each has a resource of its name, and one CPU."""


@dataclass(frozen=True)
class Cluster:
    address: str
    """Of the dashboard."""
    environ: dict[str, str]
    """What a client needs in its environment."""
    nodes: dict[str, psutil.Process]
    """By name: what each node's processes descend from."""


@contextmanager
def two_nodes(environ: dict[str, str]) -> Iterator[Cluster]:
    """Start it, on loopback and with a token; `environ` is what jobs find in their environment.

    Raises:
        RuntimeError: a node does not come up; holds the end of its log.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets must be short
    port, dashboard = _free_port(), _free_port()
    address = f"http://127.0.0.1:{dashboard}"
    head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    head += ["--include-dashboard=true", "--disable-usage-stats", f"--temp-dir={folder}"]
    head += [f"--ray-client-server-port={_free_port()}"]
    nodes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, options in zip(NODES, (head, [f"--address=127.0.0.1:{port}"]), strict=True):
            nodes[name] = _start(name, options, folder, {**os.environ, **environ, **token})
            _until_there(nodes[name], address, token["RAY_AUTH_TOKEN"], len(nodes), folder / f"{name}.log")
        yield Cluster(address, token, {name: psutil.Process(node.pid) for name, node in nodes.items()})
    finally:
        for node in reversed(nodes.values()):
            _end(node)
        shutil.rmtree(folder, ignore_errors=True)


def _start(name: str, options: list[str], folder: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("ray")), "start", *options, "--block", "--node-ip-address=127.0.0.1"]
    own = ["--num-cpus=1", "--num-gpus=0", f"--resources={json.dumps({name: 1})}", "--include-log-monitor=false"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *own, f"--object-store-memory={STORE_BYTES}"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _until_there(node: subprocess.Popen[bytes], address: str, token: str, count: int, log: Path) -> None:
    """Wait until the cluster has `count` nodes, and takes jobs."""
    end = time.monotonic() + PATIENCE
    while node.poll() is None and time.monotonic() < end:
        with suppress(urllib.error.URLError, OSError, ValueError, KeyError):
            _get(f"{address}/api/jobs/", token)
            nodes = _get(f"{address}/nodes?view=summary", token)["data"]["summary"]
            if sum(found["raylet"].get("state") == "ALIVE" for found in nodes) >= count:
                return
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the node does not come up (exit {node.poll()}): {said}")


def _get(url: str, token: str) -> dict[str, dict[str, list[dict[str, dict[str, str]]]]]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def _end(node: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it started; its own way of ending takes seconds."""
    processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()
    psutil.wait_procs(processes, timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

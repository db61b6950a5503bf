"""`tutelage serve` beside `transformers serve --continuous-batching`: the same model, requests and machine.

    python benchmarks/serving.py [--weights smollm2] [--clients 50] [--rounds 1] [--tokens 32] [--repeat 2]

Each client streams greedy replies, one after the other; all of them begin at once. The servers take turns, `--repeat`
times. Seconds are those from sending a request to its last byte. Both servers get the same processor, and what a
client needs of it is the same for both.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tutelage.training import weights

SYSTEM = "You answer in one short sentence."
TOPICS = ("rain", "bread", "rivers", "clocks", "trees", "letters", "bridges", "salt", "music", "glass")
BLOCKS = 256
"""Of 256 tokens each, in the cache of `transformers serve`: more than 50 of these requests can use."""
PATIENCE = 180.0
"""Seconds for a server to start."""


@dataclass(frozen=True)
class Reply:
    """One request as its client saw it; seconds from sending it."""

    text: str
    first: float
    whole: float


def prompt(number: int) -> str:
    """Distinct ones of 40 to some 150 tokens."""
    topic = TOPICS[number % len(TOPICS)]
    return f"Request {number}. " + f"Think about {topic} and what people do with {topic}. " * (1 + number % 7)


async def ask(client: httpx.AsyncClient, model: str, number: int, tokens: int) -> Reply:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt(number)}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0.0, "stream": True}
    start, first, parts = time.perf_counter(), 0.0, []
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"status {response.status_code}: {await response.aread()!r}")
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                piece = json.loads(line[6:])
                text = "".join(choice["delta"].get("content") or "" for choice in piece["choices"])
                first = first or (time.perf_counter() - start if text else 0.0)
                parts.append(text)
    return Reply("".join(parts), first, time.perf_counter() - start)


async def load(url: str, model: str, args: argparse.Namespace, offset: int) -> tuple[list[Reply], float]:
    """All replies in order of their numbers, and the seconds that they took together."""
    limits = httpx.Limits(max_connections=args.clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await ask(client, model, 10_000 + offset, 4)  # whatever is done once is done

        async def one(place: int) -> list[Reply]:
            numbers = range(offset + place, offset + args.clients * args.rounds, args.clients)
            return [await ask(client, model, number, args.tokens) for number in numbers]

        start = time.perf_counter()
        replies = await asyncio.gather(*(one(place) for place in range(args.clients)))
        seconds = time.perf_counter() - start
    return [reply for turn in zip(*replies, strict=True) for reply in turn], seconds


@contextmanager
def ours(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """URL and model name of `tutelage serve` while it runs."""
    port = free_port()
    settings = {
        "workspace": str(folder / "workspace"),
        "student": {"weights": args.weights, "dtype": args.dtype},
        "environments": [{"name": "toy"}],
        "serve": {"max_new_tokens": 1024, "concurrency": 1000, "learning": {"record": False}},
    }
    if args.batch:
        settings["serve"]["batch"] = args.batch  # type: ignore[index]
    config = folder / "config.toml"
    config.write_text(toml(settings))
    command = ["-m", "tutelage.cli", "serve", "--config", str(config), "--port", str(port), "--no-jobs"]
    with running(command, port, folder / "ours.log"):
        yield f"http://127.0.0.1:{port}", "student"


@contextmanager
def theirs(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """The same of `transformers serve`."""
    port, model = free_port(), weights.ensure(args.weights).absolute()
    command = ["-m", "transformers.cli.transformers", "serve", str(model), "--continuous-batching"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", args.dtype]
    options += ["--cb-num-blocks", str(BLOCKS)]  # unasked it takes 60 % of the free memory
    with running([*command, *options], port, folder / "theirs.log"):
        yield f"http://127.0.0.1:{port}", str(model)


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    with log.open("ab") as written:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **offline, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONSAFEPATH": "1"},
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + PATIENCE
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not answer: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def toml(settings: dict[str, object], name: str = "") -> str:
    """The few kinds of values that are needed here."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    inside = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {inline(value)}" for key, value in plain.items()]
    return "\n".join([*lines, *(toml(value, f"{name}.{key}" if name else key) for key, value in inside.items())])


def inline(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="smollm2")
    parser.add_argument("--dtype", default="", help="default: what this processor is quickest in")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="requests of each client, one after the other")
    parser.add_argument("--tokens", type=int, default=32, help="of each reply, at most")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--batch", type=int, default=0, help="serve.batch; default: as configured")
    args = parser.parse_args()
    args.dtype = args.dtype or str(weights.compute_dtype("auto")).removeprefix("torch.")
    before, tokenizer = os.getloadavg()[0], weights.load_tokenizer(args.weights)
    table = Table("server", "p50 s", "p95 s", "first text p95 s", "tokens/s", "seconds")
    texts: dict[str, list[str]] = {"ours": [], "theirs": []}
    highest: dict[str, list[float]] = {"ours": [], "theirs": []}
    speed: dict[str, list[float]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.repeat):
            for name, server in (("ours", ours), ("theirs", theirs)):
                with server(args, Path(folder)) as (url, model):
                    replies, seconds = asyncio.run(load(url, model, args, turn * args.clients * args.rounds))
                tokens = sum(len(tokenizer.encode(reply.text, add_special_tokens=False)) for reply in replies)
                wholes = [reply.whole for reply in replies]
                p95 = statistics.quantiles(wholes, n=20)[-1]
                first = statistics.quantiles([reply.first for reply in replies], n=20)[-1]
                cells = (statistics.median(wholes), p95, first, tokens / seconds, seconds)
                table.add_row(name, *(f"{cell:.2f}" for cell in cells))
                texts[name] += [reply.text for reply in replies]
                highest[name].append(p95)
                speed[name].append(tokens / seconds)
    same = sum(one == other for one, other in zip(texts["ours"], texts["theirs"], strict=True))
    ratios = [statistics.mean(kind["ours"]) / statistics.mean(kind["theirs"]) for kind in (highest, speed)]
    title = f"{args.weights}, {args.dtype}, {args.clients} clients, {args.rounds} requests of {args.tokens} tokens each"
    console = Console(width=110)
    console.print(title, table)
    console.print(
        f"p95 {ratios[0]:.2f}× and throughput {ratios[1]:.2f}× of transformers serve; {same} of {len(texts['ours'])} "
        f"replies the same; load {before:.1f} before"
    )


if __name__ == "__main__":
    main()

"""The memory server as people start it: real processes, official clients, and beside others that write."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tutelage.cli import main
from tutelage.config import Config
from tutelage.memory import open_memory
from tutelage.memory.by_hand import written
from tutelage.record import Record

CLI = [sys.executable, "-m", "tutelage.cli", "memory"]
PATIENCE = 60.0
"""Seconds for a server to come up."""
FORM = ["--environment", "toy", "--family", "copy"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(Config(workspace=tmp_path).model_dump_json())
    Record.open(tmp_path).close()
    return tmp_path


def run(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*CLI, *arguments, "-s", f"workspace={workspace}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def add(workspace: Path, goal: str, tenant: str = "default") -> str:
    """Write a skill by hand; returns its id."""
    new = {"environment": "toy", "family": "copy", "goal": goal, "content": skill(f"do {goal}")}
    with open_memory(workspace, tenant=tenant) as memory:
        return memory.add(written(new, "ann", tenant=tenant)).id


def skill(step: str) -> dict[str, object]:
    return {"kind": "skill", "preconditions": [], "procedure": [step], "verification": []}


def add_by_process(workspace: Path, goal: str) -> str:
    done = run(workspace, "add", "skill", *FORM, "--goal", goal, "--step", f"do {goal}", "--json")
    assert done.returncode == 0, done.stderr
    [found] = re.findall(r'"id": "(exp_\w+)"', done.stdout)
    return str(found)


@contextmanager
def serving(workspace: Path, *arguments: str) -> Iterator[str]:
    """A server process; yields its address. It ends by itself when it is told to stop, and leaves nothing behind."""
    command = [*CLI, "serve", "--port", "0", *arguments, "-s", f"workspace={workspace}"]
    log = workspace / "serve.log"
    with log.open("w") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"at (https?://\S+) ", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield found[1]
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def client(url: str, token: str = "") -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False)


def found(http: httpx.Client, text: str) -> list[str]:
    answer = http.post("/v1/search", json={"text": text, "k": 50})
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def test_others_write_while_it_serves_and_it_serves_while_others_write(workspace: Path) -> None:
    first = add(workspace, "log in as a guest")
    with serving(workspace) as url, client(url) as http:
        assert found(http, "log in") == [first]
        second = add_by_process(workspace, "log in with a password")
        assert set(found(http, "log in")) == {first, second}
        assert run(workspace, "retire", first, "--reason", "old").returncode == 0
        assert found(http, "log in") == [second]
        with serving(workspace, "--write") as other, client(other) as writing:  # a second server beside the first
            new = {"environment": "toy", "family": "copy", "goal": "log in by key", "content": skill("press Enter")}
            third = writing.post("/v1/experiences", json=new).json()["id"]
            assert set(found(http, "log in")) == set(found(writing, "log in")) == {second, third}
            assert writing.post(f"/v1/experiences/{second}/forget", json={"reason": "private"}).status_code == 200
            assert found(http, "log in") == [third]
            assert http.get(f"/v1/experiences/{second}").status_code == 404
    assert third in run(workspace, "query", "log in", "--json").stdout


def test_mcp_on_stdio_and_over_http(workspace: Path) -> None:
    item = add(workspace, "log in as a guest")
    arguments = [*CLI[1:], "mcp", "--write", "-s", f"workspace={workspace}"]
    stdio = stdio_client(StdioServerParameters(command=CLI[0], args=arguments, env=dict(os.environ)))

    async def use(talking: Client, expected: int) -> None:
        assert len((await talking.list_tools()).tools) == expected
        hits = (await talking.call_tool("search", {"text": "log in"})).structured_content
        assert hits is not None
        assert item in [hit["id"] for hit in hits["hits"]]
        assert (await talking.read_resource(f"experience://{item}")).contents

    async def over_http(url: str) -> None:
        async with (
            httpx2.AsyncClient(trust_env=False) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as talking,
        ):
            await use(talking, 5)

    async def on_stdio() -> None:
        async with Client(stdio) as talking:
            await use(talking, 9)

    with serving(workspace) as url:
        asyncio.run(over_http(url))
        asyncio.run(on_stdio())


def test_beyond_loopback_only_with_tokens_and_each_sees_its_tenant(workspace: Path) -> None:
    refused = run(workspace, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, "tokens" in refused.stderr) == (2, True)
    secrets = {tenant: run(workspace, "token", f"of-{tenant}", "--tenant", tenant) for tenant in ("a", "b")}
    ids = {tenant: add(workspace, "log in", tenant) for tenant in ("a", "b")}
    with serving(workspace, "--host", "0.0.0.0") as url:
        local = url.replace("0.0.0.0", "127.0.0.1")
        with client(local) as nobody:
            assert nobody.get("/health").status_code == 200
            assert nobody.get("/v1/stats").status_code == 401
        for tenant, made in secrets.items():
            with client(local, made.stdout.strip()) as http:
                assert found(http, "log in") == [ids[tenant]]
                assert http.get("/v1/stats", headers={"host": "memory.example.org"}).status_code == 200
        assert run(workspace, "token", "of-a", "--revoke").returncode == 0
        with client(local, secrets["a"].stdout.strip()) as http:
            assert http.get("/v1/stats").status_code == 401
    assert secrets["b"].stdout.strip() not in (workspace / "tokens.toml").read_text()


def test_what_makes_no_sense_is_said_in_one_line(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(workspace) as url:
        port = url.rpartition(":")[2]
        for arguments, why in (  # in this process: starting one takes longer than what it does
            (("serve", "--port", port), "cannot listen"),
            (("serve", "--host", "203.0.113.7", "--tokens", str(tmp_path / "none.toml")), "cannot read the tokens"),
            (("serve", "--certificate", "x.pem"), "both --certificate and --key"),
            (("serve", "--certificate", "x.pem", "--key", "x.pem"), "cannot use x.pem"),
            (("serve", "--tenant", "../a"), "memory.tenant"),
            (("token", "a b"), "is no name"),
            (("token", "nobody", "--revoke"), "tokens"),
        ):
            monkeypatch.setattr(sys, "argv", ["tutelage", "memory", *arguments, "-s", f"workspace={workspace}"])
            with pytest.raises(SystemExit) as stop:
                main()
            said = capsys.readouterr().err
            assert (stop.value.code, len(said.splitlines())) == (2, 1), said
            assert why in said

"""Agents speak MCP: the official client finds, reads and writes where it may, and never sees what is in quarantine."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent, TextResourceContents

from tutelage.experience import Change, Status
from tutelage.memory.server.schemas import MAX_HITS

Serve = Callable[..., Any]
MODES = ("legacy", "auto")
"""The handshake of older clients, and the requests that stand for themselves of newer ones."""
SKILL = {"kind": "skill", "preconditions": [], "procedure": ["press save"], "verification": []}
NEW = {"environment": "toy", "family": "forms", "goal": "keep the form", "content": SKILL}
CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "%s", "params": %s}'
TOKENS = {"ann": ("a", True), "bob": ("b", True), "eve": ("a", False)}


def talk(serving: Any, what: Callable[[Client], Awaitable[None]], *, name: str = "", mode: str = "auto") -> None:
    """Let a client, with the token of that name, do something."""
    secret = (serving.folder / f"{name}.secret").read_text() if name else ""

    async def run() -> None:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(f"{serving.url}/mcp", http_client=http), mode=mode) as client,
        ):
            await what(client)

    asyncio.run(run())


def failed(result: CallToolResult) -> str:
    """What the model is told of a call that failed."""
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def resource(client: Client, uri: str) -> Any:
    [content] = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "application/json"
    return json.loads(content.text)


@pytest.mark.parametrize("mode", MODES)
def test_reading(serve: Serve, mode: str) -> None:
    serving = serve()
    item = serving.learn("default", "log in with a password", 'fill("r1", "ann")', 'click("r2")')
    serving.learn("default", "book a flight")

    async def read(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"search", "get", "history", "sources", "stats"}
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.values())
        found = await client.call_tool("search", {"text": "sign in with user and password", "k": 1})
        assert found.structured_content is not None
        assert [hit["id"] for hit in found.structured_content["hits"]] == [item.id]
        got = (await client.call_tool("get", {"id": item.id})).structured_content
        assert got == item.model_dump(mode="json") == await resource(client, f"experience://{item.id}")
        steps = (await client.call_tool("sources", {"id": item.id})).structured_content
        assert steps == await resource(client, f"experience://{item.id}/sources")
        assert [step["action"] for step in steps["steps"]] == ['click("r2")']
        assert len((await resource(client, f"experience://{item.id}/history"))["versions"]) == item.version
        assert (await client.call_tool("stats", {})).structured_content["experiences"] == 2
        templates = (await client.list_resource_templates()).resource_templates
        assert "experience://{id}" in [template.uri_template for template in templates]

    talk(serving, read, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_done_is_said_to_the_model(serve: Serve, mode: str) -> None:
    async def ask(client: Client) -> None:
        assert "k" in failed(await client.call_tool("search", {"text": "x", "k": MAX_HITS + 1}))
        assert "text" in failed(await client.call_tool("search", {"text": ""}))
        assert "exp_none" in failed(await client.call_tool("get", {"id": "exp_none"}))
        with pytest.raises(MCPError, match="exp_none"):
            await client.read_resource("experience://exp_none")
        for tool in ("add", "retire", "nonsense"):
            assert tool in failed(await client.call_tool(tool, {"id": "exp_none", "reason": "x"}))

    talk(serve(), ask, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_writing_and_tenants(serve: Serve, mode: str) -> None:
    serving = serve(write=True, tokens=TOKENS)
    theirs = serving.learn("b", "keep the form")

    async def write(client: Client) -> None:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"search", "get", "history", "sources", "stats", "add", "change", "retire", "undo"}
        kept = (await client.call_tool("add", NEW)).structured_content
        assert kept is not None
        assert kept["status"] == "candidate"
        id = kept["id"]
        item = (await client.call_tool("get", {"id": id})).structured_content
        assert item is not None
        assert (item["tenant"], item["sources"][0]["origin"], item["change"]["by"]) == ("a", "user:ann", "hand:ann")
        changed = await client.call_tool("change", {"id": id, "reason": "shorter", "goal": "save"})
        assert changed.structured_content["version"] == item["version"] + 1
        assert "nothing to change" in failed(await client.call_tool("change", {"id": id, "reason": "x"}))
        await client.call_tool("undo", {"id": id})
        retired = await client.call_tool("retire", {"id": id, "reason": "old"})
        assert (retired.structured_content["status"], retired.structured_content["reason"]) == ("retired", "old")
        for tool in ("get", "history", "sources"):
            assert "no experience" in failed(await client.call_tool(tool, {"id": theirs.id}))
        assert "no experience" in failed(await client.call_tool("retire", {"id": theirs.id, "reason": "x"}))
        with pytest.raises(MCPError, match="no experience"):
            await client.read_resource(f"experience://{theirs.id}")

    async def read(client: Client) -> None:
        assert "add" not in {tool.name for tool in (await client.list_tools()).tools}

    talk(serving, write, name="ann", mode=mode)
    talk(serving, read, name="eve", mode=mode)


def test_an_agent_never_sees_what_is_in_quarantine(serve: Serve) -> None:
    serving = serve(write=True)
    item = serving.learn("default", "keep the form")
    serving.service.store("default").move(item.id, Status.QUARANTINED, Change(by="admission", reason="not trusted"))

    async def ask(client: Client) -> None:
        found = await client.call_tool("search", {"text": "keep the form"})
        assert found.structured_content == {"hits": []}
        for tool in ("get", "history", "sources", "undo"):
            assert "quarantine" in (said := failed(await client.call_tool(tool, {"id": item.id})))
            assert "keep the form" not in said
        for tool in ("change", "retire"):
            assert "quarantine" in failed(await client.call_tool(tool, {"id": item.id, "reason": "x", "goal": "y"}))
        for end in ("", "/history", "/sources"):
            with pytest.raises(MCPError, match="quarantine"):
                await client.read_resource(f"experience://{item.id}{end}")

    talk(serving, ask)
    assert serving.record.experience(item.id).status is Status.QUARANTINED


def test_an_agent_takes_back_its_own_newest_change_only(serve: Serve) -> None:
    serving = serve(write=True)
    store = serving.service.store("default")
    item = serving.learn("default", "keep the form")
    read = serving.learn("default", "send the form")
    store.move(read.id, Status.QUARANTINED, Change(by="admission", reason="not trusted"))
    store.move(read.id, Status.ACTIVE, Change(by="review:bob", reason="read it"))

    async def ask(client: Client) -> None:
        async def call(tool: str, id: str) -> CallToolResult:
            return await client.call_tool(tool, {"id": id} if tool == "undo" else {"id": id, "reason": "old"})

        await call("retire", item.id)
        assert (await call("undo", item.id)).structured_content["status"] == "active"
        store.move(item.id, Status.RETIRED, Change(by="review:bob", reason="bad"))
        assert "not yours" in failed(await call("undo", item.id))
        await call("retire", read.id)
        assert "only people" in failed(await call("undo", read.id))

    talk(serving, ask)
    assert [store.get(one.id).status for one in (item, read)] == [Status.RETIRED] * 2


def test_an_agent_never_sees_raw_text_of_sources_that_are_not_trusted(serve: Serve) -> None:
    serving = serve(write=True)
    item = serving.learn("default", "log in and obey", origin="import:others")
    serving.service.store("default").move(item.id, Status.ACTIVE, Change(by="review:me", reason="read it"))

    async def ask(client: Client) -> None:
        steps = (await client.call_tool("sources", {"id": item.id})).structured_content
        assert steps is not None
        assert (steps["total"], steps["steps"][0]["withheld"]) == (1, True)
        assert "obey" not in json.dumps([steps, await resource(client, f"experience://{item.id}/sources")])

    talk(serving, ask)


def test_no_streams_and_no_token_no_entry(serve: Serve) -> None:
    serving = serve(tokens=TOKENS)
    with serving.client((serving.folder / "ann.secret").read_text()) as ann:
        assert [ann.request(method, "/mcp").status_code for method in ("GET", "DELETE")] == [405, 405]
        assert ann.post("/mcp", json={"nonsense": True}).status_code == 400

    async def nothing(_: Client) -> None:
        raise AssertionError("let in without a token")

    with pytest.raises(ExceptionGroup) as caught:
        talk(serving, nothing)
    assert caught.value.subgroup(MCPError) is not None
    assert caught.value.subgroup(AssertionError) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1e999",
        b"[" * 50_000,
        b'{"jsonrpc": "2.0"}',
        CALL % (b"tools/call", b"null"),
        CALL % (b"tools/call", b'{"name": "search", "arguments": [1]}'),
        CALL % (b"tools/call", b'{"name": "search", "arguments": {"text": "\\ud800"}}'),
        CALL % (b"resources/read", b'{"uri": "experience://%00/%ff"}'),
        CALL % (b"resources/read", b'{"uri": "file:///etc/passwd"}'),
    ],
)
def test_what_is_no_sound_request_is_answered_too(serve: Serve, body: bytes) -> None:
    serving = serve()
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    with serving.client(**headers) as client:
        answer = client.post("/mcp", content=body)
        assert answer.status_code in (200, 202, 400, 415)
        assert "Traceback" not in answer.text
        assert "root:" not in answer.text
        assert client.get("/v1/stats").status_code == 200

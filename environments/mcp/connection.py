"""A connection to an MCP server through the official client, usable from ordinary code.

The client is asynchronous; it runs in an event loop in a thread of its own, which ends with the connection.
"""

import math
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast

import anyio
from anyio.from_thread import BlockingPortal
from mcp import Client, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from tutelage.environments.base import ActionRefused
from tutelage.environments.mcp.taskfile import Server, fill
from tutelage.environments.mcp.transport import Command, Meter, http_streams
from tutelage.errors import EnvironmentBroken, MissingPart

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
MAX_TOOLS = 200
CLOSE = 5.0
"""Seconds after which a connection that is being closed is given up."""
EVIDENCE = 300
"""Characters of a server's error that the agent sees."""


class Connection:
    """One server for one episode; for one thread at a time.

    Args:
        workdir: the server's working directory.
        here: folder of the task file.
        timeout: seconds for one call.
        start_timeout: seconds to start and to list the tools.

    Raises:
        MissingPart: the command cannot be started at all.
        EnvironmentBroken: the server does not speak MCP, or not in time.
    """

    def __init__(self, server: Server, workdir: Path, here: Path, *, timeout: float, start_timeout: float) -> None:
        self._server, self._workdir = server, workdir
        self._timeout, self._start_timeout = timeout, start_timeout
        self._meter = Meter()
        self._command = None if server.command is None else _command(server, workdir, here, self._meter)
        self._stack = ExitStack()
        self.tools: list[Tool] = []
        """What the server offered at the start; a list that it changes later changes nothing here."""
        try:
            self._portal = self._stack.enter_context(_portal())
            self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(self._open()))
        except BaseException as error:
            self.close()
            if isinstance(error, EnvironmentBroken) or not isinstance(error, Exception):
                raise
            if isinstance(error, OSError) and server.command and error.filename:
                raise MissingPart(f"the MCP server cannot be started: {error.strerror}: {error.filename}") from error
            raise EnvironmentBroken(f"the MCP server did not start: {self._reason(error)}") from error

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call one of the server's tools; returns the text of the result.

        Raises:
            ActionRefused: the tool failed, or the server refused the call.
            EnvironmentBroken: it did not answer in time or properly, or is gone; it is ended then.
        """
        result = self._result(name, arguments)
        text = self._plain(_rendered(result))
        if result.is_error:
            raise ActionRefused(_one_line(text) or "The tool failed and does not say why.")
        return text

    def _result(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        try:
            return self._portal.call(self._call, name, arguments)
        except TimeoutError as error:
            self._abandon()
            raise EnvironmentBroken(f"the MCP server did not answer within {self._timeout:g} s") from error
        except MCPError as error:
            if not self._meter.problem and error.code != CONNECTION_CLOSED:
                raise ActionRefused(_one_line(self._plain(error.message))) from error
            raise EnvironmentBroken(f"the MCP server is gone: {self._reason(error)}") from error
        except Exception as error:  # whatever the client makes of what a server sent
            self._abandon()
            raise EnvironmentBroken(f"the MCP server does not follow the protocol: {self._reason(error)}") from error

    def close(self) -> None:
        """End the server and the thread; may be called again."""
        with suppress(Exception):  # it is going away, and what was wrong with it was told before
            self._stack.close()
        self._abandon()

    # -- inside the event loop ------------------------------------------------------------------

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Client]:
        ready = False
        with anyio.CancelScope(deadline=anyio.current_time() + self._start_timeout) as scope:
            # The result cache would answer for the server.
            async with Client(cast(Any, self._transport()), cache=None) as client:
                await self._list(client)
                ready, scope.deadline = True, math.inf
                try:
                    yield client
                finally:
                    scope.deadline = anyio.current_time() + CLOSE
        if not ready:
            raise TimeoutError(f"not ready within {self._start_timeout:g} s")

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        if self._command is not None:
            return self._command.streams()
        assert self._server.url is not None
        return http_streams(self._server.url, self._server.headers, self._timeout, self._meter)

    async def _list(self, client: Client) -> None:
        """Page by page, through the session: it also notes which arguments go into headers."""
        cursor = None
        while len(self.tools) < MAX_TOOLS:
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            self.tools += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        if not self.tools:
            raise ValueError("it offers no tools")
        del self.tools[MAX_TOOLS:]

    async def _call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """Not `Client.call_tool`: that checks results against the server's own schema, whose patterns could stall."""
        self._meter.begin()
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
        with anyio.fail_after(self._timeout):
            return await self._client.session.send_request(request, CallToolResult)

    # -- afterwards -----------------------------------------------------------------------------

    def _abandon(self) -> None:
        if self._command is not None:
            self._command.kill()

    def _plain(self, text: str) -> str:
        """Without control characters, and with the work folder as the current one: its name differs each time."""
        return _CONTROL.sub("", text).replace(f"{self._workdir}/", "").replace(str(self._workdir), ".")

    def _reason(self, error: BaseException) -> str:
        """What the limit, the server's last line or the exception says."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        words = self._command.last_words if self._command is not None else ""
        said = _one_line(str(error.message if isinstance(error, MCPError) else error)) or type(error).__name__
        return self._meter.problem or (f"{said}; it last wrote: {_one_line(words)}" if words else said)


def _rendered(result: CallToolResult) -> str:
    """The text of a result; what is not text is described in brackets."""
    if not result.content and result.structured_content is not None:
        return str(result.structured_content)
    return "\n".join(block.text if isinstance(block, TextContent) else _described(block) for block in result.content)


def _one_line(text: str, length: int = EVIDENCE) -> str:
    """For messages: without line ends, and cut."""
    line = " ".join(text[: 10 * length].split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def _described(block: Any) -> str:
    found = block.resource if block.type == "resource" else block
    about = [str(getattr(found, field, None) or "") for field in ("uri", "mime_type")]
    body = getattr(found, "data", None) or getattr(found, "blob", None) or getattr(found, "text", None) or ""
    about += [f"{len(body)} characters"] if body else []
    return f"[{' '.join([block.type, *(_one_line(text, 100) for text in about if text)])}]"


def _command(server: Server, workdir: Path, here: Path, meter: Meter) -> Command:
    values = {"workdir": str(workdir), "here": str(here), "python": sys.executable}
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return Command(
        fill([server.command or "", *server.args], values), inherited | fill(server.env, values), workdir, meter
    )


@contextmanager
def _portal() -> Iterator[BlockingPortal]:
    """An event loop in a daemon thread: anyio's `start_blocking_portal` keeps the program from exiting when it is
    not closed, as happens to an environment whose thread was given up."""
    ready: Future[BlockingPortal] = Future()

    async def run() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    thread = Thread(target=anyio.run, args=(run,), name="mcp", daemon=True)
    thread.start()
    portal = ready.result(timeout=CLOSE)
    try:
        yield portal
    finally:
        portal.call(portal.stop, True)
        thread.join(CLOSE)

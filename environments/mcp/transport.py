"""The two ways to a server, for the official client, with a limit on what a server may send.

The client's own transports keep whatever arrives. These count it, so that a server which sends too much costs an
episode and neither memory nor time. The command's one starts it in a process group of its own, without a shell
and with a cleared environment, and leaves nothing of that group behind.
"""

import os
import signal
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import httpx2
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

MAX_BYTES = 4_000_000
"""What a server may send in answer to one call, everything around the answer included."""
GRACE = 0.3
"""Seconds for a server to exit after its input was closed, and again after SIGTERM. Its state is thrown away, so
nothing is lost by being short with it."""
TAIL = 2000
"""Bytes of the last complaints of a server that are kept."""

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
Streams = tuple[Incoming, Outgoing]


class TooMuch(Exception):
    """The server sent more than it may."""


class Meter:
    """Counts what arrives since the last call."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._received = 0
        self.problem = ""
        """Why the connection was given up, if it was."""

    def begin(self) -> None:
        self._received = 0

    def count(self, number: int) -> None:
        """Raises: TooMuch."""
        self._received += number
        if self._received > self._limit:
            self.problem = f"the server sent more than {self._limit / 1_000_000:g} MB at once"
            raise TooMuch(self.problem)


# -- a command ----------------------------------------------------------------------------------


class Command:
    """A server that is a child process."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, meter: Meter) -> None:
        self._command, self._env, self._cwd, self._meter = list(command), dict(env), cwd, meter
        self._kill: weakref.finalize[[int], Command] | None = None
        self._tail = b""

    def kill(self) -> None:
        """End the whole process group at once; from any thread, any number of times."""
        if self._kill is not None:
            self._kill()

    @property
    def last_words(self) -> str:
        """The last line that the server wrote to its standard error."""
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """The running server.

        Raises:
            OSError: it cannot be started.
        """
        process = await anyio.open_process(self._command, env=self._env, cwd=self._cwd, start_new_session=True)
        # It also runs when the program exits without closing, so a server that ignores its input's end goes too.
        self._kill = weakref.finalize(self, _kill_group, process.pid)
        to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, process, to_session)
            tasks.start_soon(self._write, process, from_session)
            tasks.start_soon(self._listen, process)
            try:
                yield incoming, outgoing
            finally:
                with anyio.CancelScope(shield=True):
                    incoming.close()
                    outgoing.close()
                    await self._stop(process)
                tasks.cancel_scope.cancel()

    async def _read(self, process: Process, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        assert process.stdout is not None
        rest = bytearray()
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with to_session:
                async for chunk in process.stdout:
                    try:
                        self._meter.count(len(chunk))
                    except TooMuch:
                        self.kill()
                        return
                    rest += chunk
                    if b"\n" in chunk:
                        *lines, last = bytes(rest).split(b"\n")
                        rest = bytearray(last)
                        for line in lines:
                            await _deliver(line, to_session)
        # Nobody listens any more, but a server that waits to write would not see its input's end.
        await _discard(process.stdout)

    async def _write(self, process: Process, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
        assert process.stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with from_session:
                async for item in from_session:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await process.stdin.send(f"{line}\n".encode())

    async def _listen(self, process: Process) -> None:
        assert process.stderr is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async for chunk in process.stderr:
                self._tail = (self._tail + chunk)[-TAIL:]

    async def _stop(self, process: Process) -> None:
        """Close its input, wait, ask it to end, wait, end it: as MCP's lifecycle has it, only sooner."""
        assert process.stdin is not None
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await process.stdin.aclose()
        if not await _gone(process):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await _gone(process)
        self.kill()  # also what it started and left behind
        await _gone(process)
        # Something outside the group may still hold the pipes; waiting for their end would not end.
        transport = getattr(getattr(process, "_process", None), "_transport", None)
        if transport is not None:
            transport.close()


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


async def _gone(process: Process) -> bool:
    """Whether it ended in time. Not `wait`, which also waits for the ends of its pipes."""
    with anyio.move_on_after(GRACE):
        while process.returncode is None:
            await anyio.sleep(0.005)
    return process.returncode is not None


async def _deliver(line: bytes, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    """One message; other text that a server prints on the way is passed over."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return
    await to_session.send(SessionMessage(message))


async def _discard(stream: ByteReceiveStream) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        while True:
            await stream.receive()


# -- an address ---------------------------------------------------------------------------------


@asynccontextmanager
async def http_streams(url: str, headers: Mapping[str, str], timeout: float, meter: Meter) -> AsyncIterator[Streams]:
    """The server at an address, by streamable HTTP; `timeout` in seconds holds for each read."""
    client = httpx2.AsyncClient(transport=_Metered(meter), headers=dict(headers), timeout=timeout)
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=MAX_BYTES) as streams:
        yield streams  # type: ignore[misc]


class _Metered(httpx2.AsyncBaseTransport):
    """Plain HTTP whose answers are counted; compressed ones, which could be of any size, are refused."""

    def __init__(self, meter: Meter) -> None:
        self._inner = httpx2.AsyncHTTPTransport()
        self._meter = meter

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            self._meter.problem = "the server compressed its answer, though it was asked not to"
            raise httpx2.ReadError(self._meter.problem)
        response.stream = _MeteredStream(response.stream, self._meter)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _MeteredStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, meter: Meter) -> None:
        self._inner, self._meter = inner, meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            try:
                self._meter.count(len(chunk))
            except TooMuch as error:
                raise httpx2.ReadError(str(error)) from error
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()

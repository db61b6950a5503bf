"""One process that serves: the endpoint on an event loop, the jobs on a thread beside it, and how both end."""

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tutelage.memory.server.guard import App
from tutelage.service_config import ServeConfig
from tutelage.serving.app import Endpoint
from tutelage.serving.types import Assist, Students

WAITING = 500
"""Connections beyond `serve.concurrency`: those whose requests are still coming in, or are refused, or that wait."""
THREADS = 16
"""For what blocks: looking things up in the record and memory, keeping exchanges, the scheduler."""
HEADER_SECONDS = 10.0
"""Within which a connection has to send the header of its first request, and from the first byte of each further one:
otherwise some hundred that say nothing would shut everybody else out."""
GRACE = 5.0
"""Seconds after `serve.drain` from which on what still is under way is cut off."""

Part = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set."""


@dataclass(frozen=True)
class Listening:
    """Where clients connect."""

    socket: socket.socket
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Answering:
    """All that answers requests."""

    app: App
    endpoint: Endpoint
    students: Students
    assist: Assist
    config: ServeConfig

    async def run(self, listening: Listening, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Answer until `stop` is set; then let requests under way end within `serve.drain`, and free everything.

        Args:
            ready: called once requests are answered.

        Raises:
            TutelageError: no student can be loaded.
        """
        try:
            if await _unless(stop, self.students.start()):
                ready()
                await self._listen(listening, stop)
        finally:
            await self.endpoint.settle()
            await self.students.close()
            await asyncio.to_thread(self.assist.close)

    async def _listen(self, listening: Listening, stop: asyncio.Event) -> None:
        settings = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=self.config.concurrency + WAITING,
            timeout_graceful_shutdown=int(self.config.drain + GRACE),
            ws="none",
            http=_Impatient,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
        )
        server = _Uvicorn(settings)
        serving = asyncio.create_task(server.serve(sockets=[listening.socket]))
        await _unless(stop, asyncio.wait({serving}))
        server.should_exit = True
        await serving


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone: there is more to end than this server, and in order."""
        yield


class _Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes connections whose header does not come; bodies have `tutelage.memory.server.guard`."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """As long as it may take from now on, or from earlier on."""
        if self._limit is None:
            self._limit = asyncio.get_running_loop().call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def threaded(work: Callable[[threading.Event], None]) -> Part:
    """Work that blocks, on a thread of its own; it returns soon after its event is set."""

    async def part(stop: asyncio.Event) -> None:
        halt = threading.Event()
        running = asyncio.create_task(asyncio.to_thread(work, halt))
        await _unless(stop, asyncio.wait({running}))
        halt.set()
        await running

    return part


def run(*parts: Part) -> None:
    """Run all parts until the process is told to stop (SIGTERM, Ctrl-C) or one of them ends; told a second time, the
    process ends at once. Raises what a part raised, once all have ended.
    """
    asyncio.run(_together(parts))


async def _together(parts: tuple[Part, ...]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "serve"))
    signals = (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, told)

    async def one(part: Part) -> None:
        try:
            await part(stop)
        finally:
            stop.set()

    for result in await asyncio.gather(*map(one, parts), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Whether `work` ended before it was to stop; otherwise it is cancelled."""
    task, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False

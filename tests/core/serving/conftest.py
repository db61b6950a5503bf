"""The endpoint on loopback, in a thread, with a student whose replies are written beforehand."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tutelage.errors import TutelageError, UnknownName
from tutelage.memory.server.auth import Caller, Tokens, make_token
from tutelage.service_config import ServeConfig
from tutelage.serving.app import Endpoint, make_app
from tutelage.serving.server import Answering, Listening
from tutelage.serving.types import (
    STUDENT,
    Answer,
    Blocked,
    Chat,
    Engine,
    Loaded,
    Piece,
    Prepared,
    Prompt,
    TokenCount,
    ToolCall,
)
from tutelage.types import Shown

PATIENCE = 30.0
Said = str | tuple[ToolCall, ...] | Exception


@dataclass
class Scripted:
    """A student that says what it was told to, word by word; with nothing left, the last line that was said."""

    label: str = "student@3"
    script: list[list[Said]] = field(default_factory=list)
    """Of each reply, the pieces; an exception is raised."""
    prompts: list[Prompt] = field(default_factory=list)
    hold: threading.Event | None = None
    """While it is not set, nothing comes after the first piece."""
    ended: list[str] = field(default_factory=list)
    """How each generation ended."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        self.prompts.append(prompt)
        said = self.script.pop(0) if self.script else prompt.messages[-1].content.split("\n")[-1].split(" ")
        try:
            for part in said:
                if isinstance(part, Exception):
                    raise part
                yield Piece(part) if isinstance(part, str) else Piece(calls=part)
                while self.hold and not self.hold.is_set():
                    await asyncio.sleep(0.01)
            yield Piece(finish="stop", tokens=TokenCount(10, len(said)))
            self.ended.append("whole")
        finally:
            if len(self.ended) < len(self.prompts):
                self.ended.append("cut")

    async def check(self) -> None:
        """It always answers."""

    async def close(self) -> None:
        """It holds nothing."""


@dataclass
class One:
    """One student, always loaded."""

    student: Scripted
    under_way: int = 0

    async def start(self) -> None:
        """It is there."""

    def loaded(self) -> tuple[Loaded, ...]:
        return (Loaded(self.student.label, 1_700_000_000),)

    @asynccontextmanager
    async def engine(self, model: str) -> AsyncIterator[Engine]:
        if model not in (STUDENT, self.student.label):
            raise UnknownName(model)
        self.under_way += 1
        try:
            yield self.student
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        """It stays."""


@dataclass
class Plain:
    """Shows one experience where memory is asked for, forbids one tool, and remembers what it was to keep."""

    forbidden: str = ""
    broken: Exception | None = None
    kept: list[tuple[Chat, Answer]] = field(default_factory=list)

    def records(self, chat: Chat) -> bool:
        return chat.options.record is not False

    def prepare(self, chat: Chat) -> Prepared:
        if self.broken:
            raise self.broken
        if not chat.options.memory:
            return Prepared(chat, chat.prompt)
        first, *rest = chat.prompt.messages
        prompt = replace(chat.prompt, messages=(replace(first, content=f"Experience: look\n{first.content}"), *rest))
        return Prepared(chat, prompt, shown=(Shown(id="exp_1", version=2, text="look"),))

    def blocked(self, prepared: Prepared, calls: tuple[ToolCall, ...]) -> Blocked | None:
        for call in calls:
            if call.name == self.forbidden:
                return Blocked("exp_9", note="Blocked: ask first.", refusal="This is not allowed.")
        return None

    def keep(self, prepared: Prepared, answer: Answer) -> None:
        if prepared.chat.options.record is not False:
            self.kept.append((prepared.chat, answer))
        raise TutelageError("the disk is full")  # which is none of the client's business

    def close(self) -> None:
        """It holds nothing."""


@dataclass
class Served:
    """The endpoint as it runs, and what is behind it."""

    url: str
    folder: Path
    student: Scripted
    students: One
    assist: Plain
    answering: Answering
    loop: asyncio.AbstractEventLoop

    def kept(self) -> list[tuple[Chat, Answer]]:
        """What was kept of all that was answered so far; that happens after the reply."""
        asyncio.run_coroutine_threadsafe(self.answering.endpoint.settle(), self.loop).result(PATIENCE)
        return self.assist.kept

    def client(self, key: str = "", **headers: str) -> httpx.Client:
        given = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers={**given, **headers}, timeout=PATIENCE, trust_env=False)

    def chat(self, text: str = "hello there", **more: Any) -> httpx.Response:
        """One question, answered whole."""
        sent = {"model": STUDENT, "messages": [{"role": "user", "content": text}], **more}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=sent)

    def connection(self, sent: dict[str, Any] | None = None, length: int | None = None) -> socket.socket:
        """A bare one, for what no library does.

        Args:
            sent: body of a chat request that is sent on it.
            length: what its header says of it, if not the truth.
        """
        connection = socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), PATIENCE)
        if sent is not None:
            body = json.dumps(sent).encode()
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body)
        return connection

    def key(self, name: str) -> str:
        return (self.folder / f"{name}.secret").read_text()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an endpoint; `keys` maps names to tenants, and none means that none are needed."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, threading.Thread]] = []

    def start(*script: list[Said], keys: dict[str, str] | None = None, **settings: Any) -> Served:
        folder = tmp_path / f"w{len(running)}"
        folder.mkdir()
        for name, tenant in (keys or {}).items():
            (folder / f"{name}.secret").write_text(make_token(folder / "tokens.toml", name, tenant=tenant))
        student, assist = Scripted(script=list(script)), Plain()
        students, config = One(student), ServeConfig(**settings)
        endpoint = Endpoint(assist, students, config)
        known = Tokens(folder / "tokens.toml") if keys else None
        app = make_app(endpoint, config, tokens=known, anyone=None if known else Caller("me", "default"))
        answering = Answering(app, endpoint, students, assist, config)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        begun = threading.Event()

        async def run() -> None:
            stop = asyncio.Event()
            running.append((asyncio.get_running_loop(), stop, thread))
            await answering.run(Listening(listening), begun.set, stop)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        assert begun.wait(PATIENCE)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return Served(url, folder, student, students, assist, answering, running[-1][0])

    yield start
    for loop, stop, thread in running:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        assert not thread.is_alive()

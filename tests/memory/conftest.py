"""A memory server on loopback, in a thread, for the tests that speak to one."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from tutelage.config import Config
from tutelage.experience import Experience, Skill, Source, Status
from tutelage.memory.server.auth import Caller, Tokens, make_token
from tutelage.memory.server.http import make_app
from tutelage.memory.server.service import Service
from tutelage.record import Record
from tutelage.types import OWN, Cause, Diagnosis, Ending, Split, Step, Task, Trajectory

PATIENCE = 30.0
"""Seconds for a server to come up."""


@dataclass
class Serving:
    """A server that answers, and the memory behind it."""

    url: str
    service: Service
    record: Record
    folder: Path

    def client(self, token: str = "", **headers: str) -> httpx.Client:
        given = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers={**given, **headers}, timeout=PATIENCE, trust_env=False)

    def learn(self, tenant: str, goal: str, *steps: str, origin: str = OWN, **changes: object) -> Experience:
        """Put an episode and a skill drawn from its last step into a tenant's memory."""
        trajectory = an_episode(goal, *(steps or ('click("r1")',)), tenant=tenant, origin=origin)
        self.record.add_trajectory(trajectory, key=trajectory.id, cycle=1, arm="demonstrations")
        return self.service.store(tenant).add(a_skill(trajectory, **changes))


def an_episode(goal: str, *actions: str, tenant: str, origin: str = OWN) -> Trajectory:
    return Trajectory(
        task=Task(environment="toy", family="forms", seed=len(goal), split=Split.TRAIN),
        goal=goal,
        system="",
        policy="expert/toy (scripted)",
        memory=False,
        steps=tuple(
            Step(
                observation=f"page of {goal}",
                reply=action,
                action=action,
                meaning=action,
                diagnosis=Diagnosis(cause=Cause.PROGRESS),
                after="done",
            )
            for action in actions
        ),
        ending=Ending.SOLVED,
        tenant=tenant,
        origin=origin,
    )


def a_skill(trajectory: Trajectory, **changes: object) -> Experience:
    values = {
        "tenant": trajectory.tenant,
        "environment": "toy",
        "family": "forms",
        "goal": trajectory.goal,
        "content": Skill(preconditions=(), procedure=(f"do {trajectory.goal}",), verification=()),
        "sources": (
            Source(
                trajectory=trajectory.id,
                task=trajectory.task.id,
                steps=(len(trajectory.steps) - 1,),
                origin=trajectory.origin,
            ),
        ),
        "author": "rules (scripted)",
        "status": Status.ACTIVE,
    }
    return Experience.model_validate({**values, **changes})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Starts a server over a new workspace; `tokens` maps names to (tenant, write), and none means none are needed.

    The tokens themselves are in the workspace's `secrets` attribute of what is returned, by name.
    """
    running: list[tuple[uvicorn.Server, threading.Thread, Record]] = []

    def start(*, write: bool = False, tokens: dict[str, tuple[str, bool]] | None = None) -> Serving:
        folder = tmp_path / f"w{len(running)}"
        folder.mkdir()
        (folder / "config.json").write_text(Config(workspace=folder).model_dump_json())
        record = Record.open(folder)
        service = Service(record, folder / "index", Config().memory, write=write)
        file = folder / "tokens.toml"
        for name, (tenant, may_write) in (tokens or {}).items():
            (folder / f"{name}.secret").write_text(make_token(file, name, tenant=tenant, write=may_write))
        known = Tokens(file) if tokens else None
        app = make_app(service, tokens=known, anyone=None if known else Caller("me", "default", write))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        running.append((server, thread, record))
        end = time.monotonic() + PATIENCE
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return Serving(f"http://127.0.0.1:{listening.getsockname()[1]}", service, record, folder)

    yield start
    for server, thread, record in running:
        server.should_exit = True
        thread.join(PATIENCE)
        record.close()
        assert not thread.is_alive()

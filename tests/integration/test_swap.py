"""Fifty clients stream from `tutelage serve` while students are promoted and rolled back: none of them notices."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serve_process import serving
from tiny_students import add_student, settings

from tutelage.config import CONFIG_FILE
from tutelage.errors import PolicyFailed, RequestRefused
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.serving.engine_upstream import UpstreamEngine
from tutelage.serving.types import ChatMessage, Prompt, Sampling

CLIENTS = 50
PROMPTS = 5
TOKENS = 24

Made = tuple[Path, Record, tuple[Student, Student]]


@contextmanager
def exchanging(folder: Path) -> Iterator[str]:
    """The base URL of `tutelage serve` on a workspace."""
    (folder / CONFIG_FILE).write_text(settings(folder, learning={"record": False}).model_dump_json())
    with serving(folder, "--no-jobs") as (url, _, _):
        yield url


async def ask(client: httpx.AsyncClient, number: int) -> tuple[str, str]:
    """Which version says that it answered, and the text."""
    body = {
        "model": "student",
        "messages": [{"role": "user", "content": f"Question {number}: what now?"}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    labels, text, ended = set(), "", False
    async with client.stream("POST", "chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            ended = ended or line == "data: [DONE]"
            if line.startswith("data: {"):
                piece = json.loads(line[6:])
                assert "error" not in piece, piece
                labels.add(piece["tutelage"]["student"] if "tutelage" in piece else piece["model"])
                text += "".join(choice["delta"].get("content") or "" for choice in piece["choices"])
    (label,) = labels
    assert ended
    return label, text


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("workspace")
    record = Record.open(folder)
    record.add_student(Student(id="stu_0", number=0, stage="base", cycle=0, weights="tiny"))
    one, two = (add_student(record, folder, number) for number in (1, 2))
    record.promote(one.id, reason="first", evidence={})
    yield folder, record, (one, two)
    record.close()


@pytest.fixture(scope="module")
def url(workspace: Made) -> Iterator[str]:
    with exchanging(workspace[0]) as url:
        yield url
    assert list((workspace[0] / "serving").iterdir()) == []


def test_no_reply_fails_or_mixes_while_versions_are_exchanged(workspace: Made, url: str) -> None:
    _, record, (one, two) = workspace

    async def clients() -> tuple[dict[tuple[str, int], set[str]], Counter[str]]:
        said: dict[tuple[str, int], set[str]] = {}
        count: Counter[str] = Counter()
        stopping = asyncio.Event()

        async def keep_asking(client: httpx.AsyncClient, place: int) -> None:
            while not stopping.is_set():
                label, text = await ask(client, place % PROMPTS)
                said.setdefault((label, place % PROMPTS), set()).add(text)
                count[label] += 1

        async def seen(label: str, before: int) -> None:
            while count[label] < before + CLIENTS:
                await asyncio.sleep(0.05)

        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            asking = [asyncio.create_task(keep_asking(client, place)) for place in range(CLIENTS)]
            watched = asyncio.gather(*asking)
            await seen(one.label, 0)
            for student in (two, one, two):
                before = count[student.label]
                record.promote(student.id, reason=f"then {student.label}", evidence={})
                await asyncio.wait(
                    [asyncio.create_task(seen(student.label, before)), watched], return_when="FIRST_COMPLETED"
                )
                assert not watched.done(), watched.exception()
            stopping.set()
            await watched
        return said, count

    said, count = asyncio.run(asyncio.wait_for(clients(), 240))
    assert set(count) == {one.label, two.label}
    assert {key: len(texts) for key, texts in said.items()} == dict.fromkeys(said, 1)  # one reply each, always
    assert len(said) == 2 * PROMPTS
    for number in range(PROMPTS):
        assert said[one.label, number] != said[two.label, number]
    outcomes = [(body["label"], body["outcome"], body["dropped"]) for body in record.items("swap").values()]
    assert outcomes == [(student.label, "served", 0) for student in (one, two, one, two)]


def test_an_upstream_answers_through_litellm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own server is the upstream: replies, their ends, and what it refuses."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody-looks-at-it")

    async def whole(engine: UpstreamEngine, **sampling: int) -> tuple[str, str | None, int]:
        prompt = Prompt(
            (ChatMessage("user", "Question 1: what now?"),), Sampling(**{"max_new_tokens": TOKENS, **sampling})
        )
        pieces = [piece async for piece in engine.generate(prompt)]
        assert len(pieces) > 4
        assert pieces[-1].tokens is not None
        return "".join(piece.text for piece in pieces), pieces[-1].finish, pieces[-1].tokens.completion

    async def run() -> None:
        engine = UpstreamEngine("openai/student", timeout=30)
        await engine.check()
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            assert (await whole(engine))[0] == (await ask(client, 1))[1]
        assert (await whole(engine, max_new_tokens=5))[1:] == ("length", 5)
        with pytest.raises(RequestRefused, match="256"):
            await whole(engine, max_new_tokens=9999)
        with pytest.raises(PolicyFailed, match="not served"):
            await UpstreamEngine("openai/other", timeout=30).check()
        with pytest.raises(PolicyFailed, match="404") as failed:
            await whole(UpstreamEngine("openai/other", timeout=30))
        assert "not served" not in str(failed.value), "what an upstream says to a caller's request may quote it"

    monkeypatch.setenv("OPENAI_API_BASE", url)
    asyncio.run(run())
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")  # nobody is there
    with pytest.raises(PolicyFailed):
        asyncio.run(whole(UpstreamEngine("openai/student", timeout=30)))

"""Whoever is promoted answers; nothing that goes wrong with the next version is felt by those who ask."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_students import add_student, settings

from tutelage.errors import ConfigError, UnknownName
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.serving import students as students_module
from tutelage.serving.engine_transformers import TransformersEngine
from tutelage.serving.in_use import served
from tutelage.serving.student_engine import EngineFailed
from tutelage.serving.students import LiveStudents
from tutelage.serving.types import ChatMessage, Engine, Prompt, Sampling


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    record.add_student(Student(id="stu_0", number=0, stage="base", cycle=0, weights="tiny"))
    yield record
    record.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students_module, "POLL", 0.02)


def promote(record: Record, student: Student) -> None:
    record.promote(student.id, reason="for the test", evidence={})


def serve(record: Record, folder: Path, body: Callable[[LiveStudents], Awaitable[Any]], **serve: Any) -> Any:
    """Run `body` with the students of a workspace, started."""

    async def run() -> Any:
        live = LiveStudents(folder, record, settings(folder, **{"max_length": 500, **serve}))
        await live.start()
        try:
            return await asyncio.wait_for(body(live), 60)
        finally:
            await live.close()

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def label(live: LiveStudents) -> str:
    return live.loaded()[0].label


def question(length: int = 8) -> Prompt:
    return Prompt((ChatMessage("user", "What now?"),), Sampling(max_new_tokens=length))


async def said(engine: Engine, length: int = 8) -> str:
    return "".join([piece.text async for piece in engine.generate(question(length))])


async def ask(live: LiveStudents, model: str = "student") -> tuple[str, str]:
    async with live.engine(model) as engine:
        return engine.label, await said(engine)


def swaps(record: Record) -> list[tuple[str, str, int]]:
    return [(body["label"], body["outcome"], body["dropped"]) for body in record.items("swap").values()]


def test_whoever_is_promoted_answers(record: Record, tmp_path: Path) -> None:
    one, two = (add_student(record, tmp_path, number) for number in (1, 2))

    async def body(live: LiveStudents) -> list[tuple[str, str]]:
        answers = [await ask(live)]
        for student in (one, two, one):
            promote(record, student)
            await until(lambda student=student: label(live) == student.label)  # type: ignore[misc]
            answers.append(await ask(live))
        assert answers[-1] == await ask(live, "student@1")
        for name in ("student@2", "student@0", "gpt-4"):  # unloaded, or never here
            with pytest.raises(UnknownName):
                await ask(live, name)
        return answers

    answers = serve(record, tmp_path, body)
    assert [label for label, _ in answers] == ["student@0", "student@1", "student@2", "student@1"]
    assert answers[1] == answers[3]
    assert len({text for _, text in answers}) == 3
    assert swaps(record) == [(f"student@{number}", "served", 0) for number in (0, 1, 2, 1)]


def test_a_version_that_is_not_sound_leaves_the_old_one_in_place(record: Record, tmp_path: Path) -> None:
    broken, changed, sound = (add_student(record, tmp_path, number, broken=number == 1) for number in (1, 2, 3))
    file = tmp_path / "students" / "2" / "config.json"
    file.parent.chmod(0o755)
    file.chmod(0o644)
    file.write_text(file.read_text() + "\n")

    async def body(live: LiveStudents) -> None:
        before = await ask(live)
        for number, student in enumerate((broken, changed), 1):
            promote(record, student)
            await until(lambda number=number: len(swaps(record)) > number)  # type: ignore[misc]
            assert await ask(live) == before
        assert broken.id not in served(tmp_path)
        await asyncio.sleep(0.2)  # several looks at who is promoted, each of which could try again
        promote(record, sound)
        await until(lambda: label(live) == sound.label)

    serve(record, tmp_path, body)
    assert [entry[:2] for entry in swaps(record)] == [
        ("student@0", "served"),
        ("student@1", "failed"),
        ("student@2", "failed"),
        ("student@3", "served"),
    ]
    errors = [body["error"] for body in record.items("swap").values()]
    assert "NaN" in errors[1]
    assert "config.json" in errors[2]


def test_a_version_whose_check_breaks_is_not_loaded_again_and_again(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, checked, check = add_student(record, tmp_path, 1), list[str](), TransformersEngine.check

    async def breaks(engine: TransformersEngine) -> None:
        checked.append(engine.label)
        if engine.label == one.label:
            raise RuntimeError("the device is lost")
        await check(engine)

    monkeypatch.setattr(TransformersEngine, "check", breaks)

    async def body(live: LiveStudents) -> None:
        promote(record, one)
        await until(lambda: len(checked) > 1)
        await asyncio.sleep(0.3)  # several looks at who is promoted
        assert label(live) == "student@0"

    serve(record, tmp_path, body)
    assert checked == ["student@0", "student@1"]
    assert swaps(record) == [("student@0", "served", 0), ("student@1", "failed", 0)]
    assert "RuntimeError: the device is lost" in str(record.items("swap"))


def test_replies_under_way_are_finished_by_who_began_them(record: Record, tmp_path: Path) -> None:
    one = add_student(record, tmp_path, 1)

    async def body(live: LiveStudents) -> None:
        expected = (await ask(live))[1]
        async with live.engine("student") as old:
            swapping = asyncio.create_task(live.swap(one))
            await until(lambda: label(live) == "student@1")
            new = await ask(live)
            assert (old.label, await said(old)) == ("student@0", expected)
            assert new[0] == "student@1"
            assert new[1] != expected
            assert not swapping.done()
            assert served(tmp_path) == {"stu_0": os.getpid(), one.id: os.getpid()}
        assert await swapping
        assert served(tmp_path) == {one.id: os.getpid()}
        with pytest.raises(EngineFailed, match="unloaded"):
            await said(old)

    promote(record, record.student("student@0"))
    serve(record, tmp_path, lambda live: body_without_following(live, body))


async def body_without_following(live: LiveStudents, body: Callable[[LiveStudents], Awaitable[None]]) -> None:
    """`swap` is called by hand here; following would exchange the student back."""
    assert live._following is not None
    live._following.cancel()
    await body(live)


def test_what_outlasts_the_drain_is_cut_off_and_counted(record: Record, tmp_path: Path) -> None:
    one = add_student(record, tmp_path, 1)

    async def body(live: LiveStudents) -> None:
        async with live.engine("student") as old:
            assert await live.swap(one)
            with pytest.raises(EngineFailed, match="unloaded"):
                await said(old)

    serve(record, tmp_path, lambda live: body_without_following(live, body), drain=0.05)
    assert swaps(record) == [("student@0", "served", 0), ("student@1", "served", 1)]


def test_what_is_in_use_is_told_to_other_processes(record: Record, tmp_path: Path) -> None:
    async def body(live: LiveStudents) -> Any:
        return json.loads((tmp_path / "serving" / f"{os.getpid()}.json").read_text())["students"]

    assert serve(record, tmp_path, body) == ["stu_0"]
    assert list((tmp_path / "serving").iterdir()) == []


def test_what_cannot_fit_is_said_before_it_is_loaded(record: Record, tmp_path: Path) -> None:
    async def body(live: LiveStudents) -> None:
        raise AssertionError("it was loaded")

    with pytest.raises(ConfigError, match=r"serve\.batch"):
        serve(record, tmp_path, body, batch=100_000, max_length=8192)

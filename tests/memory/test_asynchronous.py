"""Many tasks at once on one store: each gets its answer, nothing is lost, and the event loop goes on meanwhile."""

import asyncio
import inspect
import threading
from pathlib import Path

import pytest

from tutelage.config import Config, MemoryConfig
from tutelage.errors import ConfigError, RecordError
from tutelage.experience import Change, Experience, Skill, Source, Status
from tutelage.memory import AsyncMemoryStore, MemoryStore, Query, open_memory
from tutelage.record import Record
from tutelage.types import Split, Task


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(Config(workspace=tmp_path).model_dump_json())
    Record.open(tmp_path).close()
    return tmp_path


def a_skill(number: int, **changes: object) -> Experience:
    values = {
        "environment": "toy",
        "family": f"family-{number % 3}",
        "goal": f"open drawer {number}",
        "content": Skill(preconditions=(), procedure=(f"pull handle {number}",), verification=()),
        "sources": (Source(trajectory=f"trj_{number}", task=f"toy/{number}"),),
        "author": "rules (scripted)",
    }
    return Experience.model_validate({**values, **changes})


def test_concurrent_tasks(workspace: Path) -> None:
    async def one(memory: AsyncMemoryStore, number: int) -> None:
        kept = await memory.add(a_skill(number))
        assert await memory.get(kept.id) == kept
        changed = await memory.change(kept.id, Change(by="hand:ann", reason="x"), core=f"Drawer {number}.")
        assert (await memory.undo(kept.id, by="hand:ann")).version == changed.version + 1
        hits = await memory.search(Query(f"drawer {number}", k=50))
        assert kept.id in [hit.experience.id for hit in hits]

    async def run() -> None:
        async with AsyncMemoryStore.open(workspace) as memory:
            await asyncio.gather(*(one(memory, number) for number in range(30)))
            same = await asyncio.gather(*(memory.add(a_skill(0)) for _ in range(10)))
            assert len({item.id for item in same}) == 1
            more = await memory.add_many(a_skill(number) for number in range(30, 33))
            await memory.move(more[0].id, Status.RETIRED, Change(by="review:ann", reason="old"))
            assert (await memory.stats())["experiences"] == 33
            assert len(await memory.experiences(statuses=[Status.RETIRED])) == 1
            assert [item.version for item in await memory.history(more[0].id)][-1] == more[0].version + 1
            task = Task(environment="toy", family="family-1", seed=999, split=Split.TRAIN)
            recall = await memory.recall(task, "open drawer 1", "")
            assert recall.shown
            assert await memory.reindex() == 33
            with pytest.raises(RecordError, match="exp_none"):
                await memory.get("exp_none")

    asyncio.run(run())
    with open_memory(workspace) as memory:
        assert memory.stats()["experiences"] == 33


def test_the_loop_goes_on_while_the_store_works(workspace: Path) -> None:
    class Slow(MemoryStore):
        """Waits in `stats` until the event loop has done something else."""

        def stats(self) -> dict[str, object]:
            assert free.wait(30)
            return super().stats()

    free = threading.Event()

    async def run() -> None:
        record = Record.open(workspace)
        async with AsyncMemoryStore(Slow(record, workspace / "index", MemoryConfig())) as memory:
            waiting = asyncio.create_task(memory.stats())
            await asyncio.sleep(0)
            free.set()
            assert (await waiting)["experiences"] == 0
        record.close()

    asyncio.run(run())


def test_a_cancelled_write_is_whole(workspace: Path) -> None:
    async def run() -> None:
        async with AsyncMemoryStore.open(workspace) as memory:
            for number in range(20):
                adding = asyncio.create_task(memory.add(a_skill(number)))
                await asyncio.sleep(0.002 * (number % 5))
                adding.cancel()
                await asyncio.gather(adding, return_exceptions=True)

    asyncio.run(run())
    with open_memory(workspace) as memory:
        items = memory.experiences()
        assert memory.stats()["indexed"] == len(items)
        assert all(memory.search(Query(item.goal, k=50)) for item in items)


def test_it_has_every_method_of_the_store() -> None:
    """A method that is new in one has to come to the other."""
    other = {"recaller", "render"}  # these wait for nothing

    def methods(of: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}

    assert methods(MemoryStore) - other == methods(AsyncMemoryStore)
    for name in methods(AsyncMemoryStore):
        theirs = inspect.signature(getattr(MemoryStore, name)).parameters
        assert list(inspect.signature(getattr(AsyncMemoryStore, name)).parameters) == list(theirs), name


def test_there_must_be_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no workspace"), open_memory(tmp_path):
        pass

"""`MemoryStore` for asynchronous programs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from tutelage.experience import Change, Experience, Kind, Recall, Status
from tutelage.memory.opening import open_memory
from tutelage.memory.query import Hit, Query
from tutelage.memory.store import MemoryStore
from tutelage.types import Step, Task, Trajectory

P = ParamSpec("P")
R = TypeVar("R")


class AsyncMemoryStore:
    """The same methods, each awaited; the event loop goes on while one works.

    Each call runs in a thread, and the store puts them in order. A call that is cancelled is not waited for, but a
    write that has begun is finished: it is either in the record or not, never half.
    """

    def __init__(self, store: MemoryStore) -> None:
        """Around a store that stays usable as it is."""
        self._store = store

    @classmethod
    @asynccontextmanager
    async def open(cls, workspace: Path | str, *, tenant: str | None = None) -> AsyncIterator[Self]:
        """As `open_memory`; closed at the end of the block."""
        opening = open_memory(workspace, tenant=tenant)
        store = await asyncio.to_thread(opening.__enter__)
        try:
            yield cls(store)
        finally:
            await asyncio.shield(asyncio.to_thread(opening.__exit__, None, None, None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def tenant(self) -> str:
        return self._store.tenant

    async def add(self, experience: Experience) -> Experience:
        return await self._run(self._store.add, experience)

    async def add_many(self, experiences: Iterable[Experience]) -> list[Experience]:
        return await self._run(self._store.add_many, list(experiences))

    async def change(self, experience_id: str, change: Change, **changes: Any) -> Experience:
        return await self._run(self._store.change, experience_id, change, **changes)

    async def move(self, experience_id: str, status: Status, change: Change) -> Experience:
        return await self._run(self._store.move, experience_id, status, change)

    async def undo(self, experience_id: str, *, by: str) -> Experience:
        return await self._run(self._store.undo, experience_id, by=by)

    async def forget(self, experience_id: str, *, reason: str, by: str) -> Any:
        return await self._run(self._store.forget, experience_id, reason=reason, by=by)

    async def get(self, experience_id: str) -> Experience:
        return await self._run(self._store.get, experience_id)

    async def history(self, experience_id: str) -> list[Experience]:
        return await self._run(self._store.history, experience_id)

    async def experiences(self, *, kind: Kind | None = None, statuses: Collection[Status] = ()) -> list[Experience]:
        return await self._run(self._store.experiences, kind=kind, statuses=statuses)

    async def trusts(self, experience: Experience) -> bool:
        return await self._run(self._store.trusts, experience)

    async def search(self, query: Query) -> list[Hit]:
        return await self._run(self._store.search, query)

    async def recall(self, task: Task, goal: str, observation: str) -> Recall:
        return await self._run(self._store.recall, task, goal, observation)

    async def guardrails(self, environment: str) -> tuple[Experience, ...]:
        return await self._run(self._store.guardrails, environment)

    async def sources(self, experience_id: str) -> list[tuple[Trajectory, Step, int]]:
        return await self._run(self._store.sources, experience_id)

    async def stats(self) -> dict[str, Any]:
        return await self._run(self._store.stats)

    async def reindex(self) -> int:
        return await self._run(self._store.reindex)

    async def sync(self) -> None:
        await self._run(self._store.sync)

    async def close(self) -> None:
        await self._run(self._store.close)

    async def _run(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, *args, **kwargs)

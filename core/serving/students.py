"""The student that answers: the promoted one, exchanged for the next without a request being dropped."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tutelage.config import Config
from tutelage.errors import TutelageError, UnknownName
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.serving.in_use import InUse
from tutelage.serving.types import STUDENT, Engine, Loaded
from tutelage.types import new_id, now

_LOG = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between looks at who is promoted."""
AGAIN = 300.0
"""Seconds after which a version that could not be loaded is tried again, if it still is the promoted one."""
SWAPS = "swap"
"""Kind of the record's documents on what became of each exchange."""

LoadEngine = Callable[[Student, Path, Config, bool], Engine]
"""Makes the engine of a student, given the workspace's folder and whether another one is loaded; takes seconds."""


@dataclass(eq=False)
class _Version:
    student: Student
    engine: Engine
    under_way: int = 0


class LiveStudents:
    """Holds one version, and for the time of an exchange two.

    An exchange loads the new version beside the old one, has it say a word, lets new requests go to it, waits until
    those on the old one have ended, `serve.drain` seconds at most, and unloads that. If the new one cannot be loaded,
    or there is no memory for both, the old one goes on, and the record says why.
    """

    def __init__(self, folder: Path, record: Record, config: Config, *, load: LoadEngine | None = None) -> None:
        """
        Args:
            folder: of the workspace.
            load: default: by `serve.engine`.
        """
        from tutelage.serving.engines import load_engine

        self._folder, self._record, self._config = folder, record, config
        self._load = load or load_engine
        self._follows = config.serve.engine != "upstream"
        """Whether it is students of this workspace that answer."""
        self._in_use = InUse(folder)
        self._current: _Version | None = None
        self._swapping = asyncio.Lock()
        self._idle = asyncio.Condition()
        self._following: asyncio.Task[None] | None = None
        self._failed: tuple[str, float] = ("", 0.0)
        """Id of the version that could not be loaded last, and when."""

    async def start(self) -> None:
        """Load the promoted version, or the base student while there is none, and begin to follow promotions.

        Raises:
            TutelageError: it cannot be loaded.
        """
        try:
            await self._exchange(await asyncio.to_thread(self._promoted))
        except BaseException:
            self._in_use.close()
            raise
        if self._follows:
            self._following = asyncio.create_task(self._follow())

    def loaded(self) -> tuple[Loaded, ...]:
        current = self._current
        if current is None:
            return ()
        return (Loaded(current.engine.label, int(current.student.created.timestamp())),)

    def engine(self, model: str) -> AbstractAsyncContextManager[Engine]:
        return self._engine(model)

    @asynccontextmanager
    async def _engine(self, model: str) -> AsyncIterator[Engine]:
        version = self._current
        if version is None:
            raise TutelageError("no version of the student is loaded")
        if model not in (STUDENT, version.engine.label):
            raise UnknownName(f"{model!r} is not served; there is {STUDENT}, which is {version.engine.label} now")
        version.under_way += 1
        try:
            yield version.engine
        finally:
            version.under_way -= 1
            async with self._idle:
                self._idle.notify_all()

    async def swap(self, student: Student) -> bool:
        """Exchange the version that answers for another; False: it could not be, and the old one goes on.

        One exchange at a time: a second one begins when the old version of the first is unloaded.
        """
        async with self._swapping:
            if self._current and self._current.student.id == student.id:
                return True
            try:
                await self._exchange(student)
            except TutelageError as error:
                self._failed = (student.id, time.monotonic())
                _LOG.error("%s cannot be served, %s goes on: %s", student.label, self._label(), error)
                await asyncio.to_thread(self._note, student, error=str(error))
                return False
            return True

    async def close(self) -> None:
        """Stop following, let requests under way end within `serve.drain`, and free everything."""
        async with self._swapping:  # an exchange that has begun is finished
            if self._following is not None:
                self._following.cancel()
                with suppress(asyncio.CancelledError):
                    await self._following
            old, self._current = self._current, None
            if old is not None:
                await self._retire(old)
            self._in_use.close()

    # -- inside ---------------------------------------------------------------------------------

    async def _exchange(self, student: Student) -> None:
        """Load, check, switch, drain, unload.

        Raises:
            TutelageError: not loaded, or not sound; nothing has changed then.
        """
        old = self._current
        try:
            self._uses(student, *([old.student] if old else []))
            engine = await self._sound(student, beside=old is not None)
        except BaseException:
            self._uses(*([old.student] if old else []))
            raise
        self._current = _Version(student, engine)
        _LOG.info("%s answers now", engine.label)
        dropped = await self._retire(old) if old else 0
        self._uses(student)
        await asyncio.to_thread(self._note, student, before=old.engine.label if old else "", dropped=dropped)

    async def _sound(self, student: Student, *, beside: bool) -> Engine:
        try:
            engine = await asyncio.to_thread(self._load, student, self._folder, self._config, beside)
        except TutelageError:
            raise
        except Exception as error:  # what libraries raise on files they dislike, or without memory
            _LOG.exception("%s cannot be loaded", student.label)
            raise TutelageError(f"its weights cannot be loaded: {type(error).__name__}: {error}") from error
        try:
            await engine.check()
        except BaseException as error:
            await engine.close()
            if isinstance(error, TutelageError) or not isinstance(error, Exception):
                raise
            _LOG.exception("%s does not answer", student.label)
            raise TutelageError(f"it does not answer: {type(error).__name__}: {error}") from error
        return engine

    async def _retire(self, version: _Version) -> int:
        """Unload a version that gets no new requests; returns how many were cut off after `serve.drain`."""
        try:
            async with asyncio.timeout(self._config.serve.drain), self._idle:
                await self._idle.wait_for(lambda: not version.under_way)
        except TimeoutError:
            _LOG.warning("%d requests on %s did not end in time", version.under_way, version.engine.label)
        left = version.under_way
        await version.engine.close()
        gc.collect()
        return left

    async def _follow(self) -> None:
        stamp: int | None = None
        while True:
            try:
                changed = self._record.stamp()
                if changed is None or changed != stamp or self._failed[0]:
                    await self._look()
                stamp = changed
            except Exception:  # whatever it is, the version that is loaded answers, and the next look may succeed
                _LOG.exception("cannot follow promotions")
            await asyncio.sleep(POLL)

    async def _look(self) -> None:
        """Serve whoever is promoted now."""
        student, (failed, when) = await asyncio.to_thread(self._promoted), self._failed
        if student.id != failed or time.monotonic() - when > AGAIN:
            self._failed = ("", 0.0)
            await self.swap(student)

    def _promoted(self) -> Student:
        return self._record.promoted() or self._base()

    def _base(self) -> Student:
        base = next((student for student in self._record.students() if student.number == 0), None)
        if base is None:
            base = Student(number=0, stage="base", cycle=0, weights=self._config.student.weights)
            self._record.add_student(base)
        return base

    def _uses(self, *students: Student) -> None:
        if self._follows:
            self._in_use.note(student.id for student in students)

    def _label(self) -> str:
        return self._current.engine.label if self._current else "nothing"

    def _note(self, student: Student, *, before: str = "", dropped: int = 0, error: str = "") -> None:
        body = {
            "student": student.id,
            "label": student.label,
            "before": before or (self._label() if error else ""),
            "outcome": "failed" if error else "served",
            "dropped": dropped,
            "error": error,
            "at": now().isoformat(),
        }
        self._record.put(SWAPS, new_id("swp"), body)

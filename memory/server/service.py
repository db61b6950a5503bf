"""What callers may do with memory, whatever they speak: HTTP, MCP, or Python."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tutelage.config import MemoryConfig
from tutelage.errors import RecordError, TutelageError
from tutelage.experience import IN_USE, Change, Experience, Status
from tutelage.memory import by_hand, trust
from tutelage.memory.query import Hit
from tutelage.memory.server.auth import Caller
from tutelage.memory.server.schemas import MAX_STEPS, Edit, Search, Sources, SourceStep, Written
from tutelage.memory.store import MemoryStore
from tutelage.memory.undoing import last_change
from tutelage.record import Record
from tutelage.types import Trajectory

_LOG = logging.getLogger(__name__)

UNAVAILABLE = "memory does not answer now; the server's log says why"
Code = Literal["not_found", "forbidden", "conflict", "refused", "unavailable"]
Act = Callable[[MemoryStore, Sequence[Experience]], Experience]
"""Makes the next version of an experience with the versions given."""


class Refused(TutelageError):
    """A request that is understood and not granted."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


class Service:
    """One workspace's memory for many callers and threads; each caller sees its own tenant and nothing else.

    Text that is not trusted is for those who may write, who review it: whoever can only read is told that it is there,
    and not what it says.
    """

    def __init__(self, record: Record, folder: Path, config: MemoryConfig, *, write: bool = False) -> None:
        """
        Args:
            folder: where the index is.
            write: whether anybody may write at all; a caller must be allowed to as well.
        """
        self.write = write
        self._record = record
        self._folder = folder
        self._config = config
        self._stores: dict[str, MemoryStore] = {}
        self._lock = threading.Lock()

    def store(self, tenant: str) -> MemoryStore:
        """The memory of this tenant, opened when it is first asked for.

        Raises:
            TutelageError: it cannot be opened, as `MemoryStore` says.
        """
        with self._lock:
            if tenant not in self._stores:
                self._stores[tenant] = MemoryStore(self._record, self._folder, self._config, tenant=tenant)
            return self._stores[tenant]

    def close(self) -> None:
        with self._lock:
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    # -- reading --------------------------------------------------------------------------------

    def search(self, caller: Caller, wanted: Search) -> list[Hit]:
        """Raises Refused: quarantined ones were asked for by one who may only read."""
        query = wanted.query()
        if not self.may_write(caller):
            if Status.QUARANTINED in wanted.statuses:
                raise Refused("forbidden", "what is in quarantine is shown only to those who may write")
            if not wanted.statuses:
                readable = [status for status in Status if status is not Status.QUARANTINED]
                query = wanted.model_copy(update={"statuses": readable}).query()
            query = replace(query, trusted=True)
        return self._of(caller).search(query)

    def get(self, caller: Caller, experience_id: str) -> Experience:
        """Raises Refused: this tenant has none of that id, or it is not trusted and the caller may only read."""
        store = self._of(caller)
        try:
            item = store.get(experience_id)
        except RecordError as error:
            raise Refused("not_found", str(error)) from error
        if not self._shows(caller, store, item):
            said = (
                "is in quarantine" if item.status is Status.QUARANTINED else "says what was never let out of quarantine"
            )
            raise Refused("forbidden", f"{item.id} {said}; it is shown only to those who may write")
        return item

    def history(self, caller: Caller, experience_id: str) -> list[Experience]:
        """All versions, oldest first; without those not trusted for one who may only read. Raises as `get`."""
        self.get(caller, experience_id)
        store = self._of(caller)
        return [item for item in store.history(experience_id) if self._shows(caller, store, item)]

    def sources(self, caller: Caller, experience_id: str, offset: int = 0, limit: int = MAX_STEPS) -> Sources:
        """The steps it was drawn from; without the texts of those that are not trusted, for one who may only read.

        What was told again in our own words would else be undone by looking at where it comes from. Raises as `get`.
        """
        self.get(caller, experience_id)
        steps = self._of(caller).sources(experience_id)
        some = [
            SourceStep.of(played, step, index, withheld=not (self.may_write(caller) or self._trusts(played)))
            for played, step, index in steps[offset : offset + limit]
        ]
        return Sources(total=len(steps), offset=offset, steps=some)

    def stats(self, caller: Caller) -> dict[str, Any]:
        return self._of(caller).stats()

    # -- writing --------------------------------------------------------------------------------

    def may_write(self, caller: Caller) -> bool:
        return self.write and caller.write

    def add(self, caller: Caller, written: Written) -> Experience:
        """Keep what the caller wrote, as its words: nobody's evidence, and trusted as users are.

        Returns:
            What memory now holds: that very one, or the one that says exactly the same.

        Raises:
            Refused: the caller may not write, or memory does not take it.
        """
        self._check_write(caller)
        said = written.model_dump(mode="json", exclude={"reason"})
        try:
            made = by_hand.written(said, caller.name, tenant=caller.tenant, reason=written.reason)
            return self._of(caller).add(made)
        except RecordError as error:
            raise Refused("refused", str(error)) from error

    def change(self, caller: Caller, experience_id: str, edit: Edit) -> Experience:
        """Make the next version with the caller's words in it, and the caller among its sources.

        Raises:
            Refused: as `get`; the caller may not write; another version is the newest; it cannot be changed so.
        """
        self._check_write(caller)
        store = self._of(caller)
        said = edit.model_dump(mode="json", include=edit.changed())
        with self._record.transaction():
            item = self.get(caller, experience_id)
            if edit.version not in (None, item.version):
                raise Refused("conflict", f"{item.id} is at version {item.version}, not {edit.version}")
            try:
                return by_hand.edit(store, item.id, said, caller.name, edit.reason)
            except RecordError as error:
                raise Refused("refused", str(error)) from error

    def approve(self, caller: Caller, experience_id: str, reason: str) -> Experience:
        """Make it active, in or out of quarantine.

        Raises:
            Refused: as `get`; the caller may not write, or has own words in it that nobody else let pass.
        """
        return self._moved(caller, experience_id, Status.ACTIVE, reason)

    def retire(self, caller: Caller, experience_id: str, reason: str) -> Experience:
        """Neither shown nor enforced any more. Raises Refused: as `get`, or the caller may not write."""
        return self._moved(caller, experience_id, Status.RETIRED, reason)

    def undo(self, caller: Caller, experience_id: str, *, own: bool = False) -> Experience:
        """Take back the newest change that was not taken back yet.

        Args:
            own: for an agent: only a change of the caller, which is the newest, and nothing that ever was in
                quarantine comes into use by it.

        Raises:
            Refused: as `approve`, or there is nothing to undo.
        """

        def act(store: MemoryStore, history: Sequence[Experience]) -> Experience:
            mine = (f"hand:{caller.name}", f"review:{caller.name}")
            if own and not {history[-1].change.by, last_change(history).change.by} <= {*mine}:
                raise Refused(
                    "forbidden", f"the newest change of {experience_id} is not yours; people may take it back"
                )
            item = store.undo(experience_id, by=f"hand:{caller.name}")
            if own and item.status in IN_USE and any(old.status is Status.QUARANTINED for old in history):
                raise Refused("forbidden", f"{experience_id} was in quarantine; only people take it into use again")
            return item

        return self._decided(caller, experience_id, act)

    def forget(self, caller: Caller, experience_id: str, reason: str) -> Any:
        """Erase it for good; a tombstone stays. Raises Refused: as `get`, or the caller may not write."""
        self._check_write(caller)
        item = self.get(caller, experience_id)
        try:
            return self._of(caller).forget(item.id, reason=reason, by=f"hand:{caller.name}")
        except RecordError as error:
            raise Refused("conflict", str(error)) from error

    # -- inside ---------------------------------------------------------------------------------

    def _of(self, caller: Caller) -> MemoryStore:
        try:
            return self.store(caller.tenant)
        except TutelageError as error:
            _LOG.error("the memory of %s: %s", caller.tenant, error)  # it names files, which are no client's business
            raise Refused("unavailable", UNAVAILABLE) from error

    def _trusts(self, played: Trajectory) -> bool:
        return trust.of_trajectory(played, self._config.trust) >= self._config.trust.threshold

    def _check_write(self, caller: Caller) -> None:
        if not self.write:
            raise Refused("forbidden", "this server is read-only; it was started without --write")
        if not caller.write:
            raise Refused("forbidden", f"the token of {caller.name!r} may only read")

    def _shows(self, caller: Caller, store: MemoryStore, item: Experience) -> bool:
        return self.may_write(caller) or (item.status is not Status.QUARANTINED and store.trusts(item))

    def _moved(self, caller: Caller, experience_id: str, status: Status, reason: str) -> Experience:
        why = Change(by=f"review:{caller.name}", reason=reason)
        return self._decided(caller, experience_id, lambda store, _: store.move(experience_id, status, why))

    def _decided(self, caller: Caller, experience_id: str, act: Act) -> Experience:
        """What `act` makes of it, unless it takes words of the caller into use that nobody else let pass."""
        self._check_write(caller)
        store = self._of(caller)
        with self._record.transaction():
            self.get(caller, experience_id)
            history = store.history(experience_id)
            alone = _waits_for_others(caller, history) or (
                _holds_words(caller, history) and not store.trusts(history[-1])
            )
            try:
                item = act(store, history)
            except RecordError as error:
                raise Refused("conflict", str(error)) from error
            if alone and item.status in (*IN_USE, Status.QUARANTINED):
                said = "is, or was, in quarantine and holds your own words; somebody else has to decide"
                raise Refused("forbidden", f"{item.id} {said}")
            return item


def _holds_words(caller: Caller, history: Sequence[Experience]) -> bool:
    return any(source.origin == caller.origin for version in history for source in version.sources)


def _waits_for_others(caller: Caller, history: Sequence[Experience]) -> bool:
    """Whether it holds the caller's words and was in quarantine, and nobody else has taken it into use since.

    Quarantine would be worth nothing if whoever wrote the text could lift it, by whatever way round.
    """
    waits = False
    for version in history:
        reviewed = version.status in IN_USE and version.change.by.startswith("review:")
        if version.status is Status.QUARANTINED:
            waits = True
        elif reviewed and version.change.by != f"review:{caller.name}":
            waits = False
    return waits and _holds_words(caller, history)

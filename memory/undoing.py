"""Taking changes back, newest first: each time the newest one that was not taken back before.

What a change took away is what it changed itself, so that a merge or a parting in between stays as it is. Nothing is
done again by taking back: what should stand after all is decided or written once more.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutelage.errors import RecordError
from tutelage.experience import Change, Experience
from tutelage.memory.merging import APART, FROM, INTO, part
from tutelage.memory.versions import origin_of, successor
from tutelage.record import Record

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore

TAKES_BACK = "takes back version"
"""Entry of `Change.numbers`, by which a version that undoes another is known."""


def undo_merge(store: "MemoryStore", record: Record, experience_id: str, *, by: str) -> Experience | None:
    """Part what was merged, on both sides, if that is the newest change that was not taken back; else None.

    Raises:
        RecordError: this tenant has no such experience, nothing is left to undo, or the other one was forgotten.
    """
    numbers = last_change(store.history(experience_id)).change.numbers
    if INTO not in numbers and FROM not in numbers:
        return None
    part(store, record, experience_id if INTO in numbers else str(numbers[FROM]), by=by)
    return store.get(experience_id)


def undone(history: Sequence[Experience], by: str) -> Experience:
    """The next version, without the newest change that was not taken back.

    Raises:
        RecordError: nothing is left to undo.
    """
    newest = last_change(history)
    reason = f"undone: {newest.change.reason or f'version {newest.version}'}"
    change = Change(by=by, reason=reason, numbers={TAKES_BACK: float(newest.version)})
    return successor(history[-1], change, **_fields(history[newest.version - 2], newest, history[-1]))


def last_change(history: Sequence[Experience]) -> Experience:
    """The version that would be taken back next, which is one that has another before it.

    Raises:
        RecordError: there is none.
    """
    left: list[Experience] = []
    for version in history:
        numbers = version.change.numbers
        if TAKES_BACK in numbers:
            left = [item for item in left if item.version != int(numbers[TAKES_BACK])]
        elif APART in numbers:
            # Parting takes back a merge, however long ago that was, and from the loser whoever stood for it.
            lost = any(item.change.numbers.get(INTO) == numbers[APART] for item in left)
            left = [item for item in left if not _parted(item.change, str(numbers[APART]), lost=lost)]
        else:
            left.append(version)
    if len(left) < 2:
        said = "has only one version; there is" if len(history) < 2 else "is as it was at first; there is"
        raise RecordError(f"experience {history[-1].id} {said} nothing to undo")
    return left[-1]


def _parted(change: Change, other: str, *, lost: bool) -> bool:
    return INTO in change.numbers if lost else change.numbers.get(FROM) == other


def _fields(before: Experience, newest: Experience, present: Experience) -> dict[str, object]:
    """What `newest` changed, as it was before it, for the next version of `present`."""
    ours = {"id", "version", "tenant", "created", "change"}
    names = [name for name in Experience.model_fields if name not in ours]
    fields = {name: getattr(before, name) for name in names if getattr(before, name) != getattr(newest, name)}
    if "sources" in fields and present.sources != newest.sources:
        came = {origin_of(source) for source in newest.sources} - {origin_of(source) for source in before.sources}
        left = tuple(source for source in present.sources if origin_of(source) not in came)
        fields["sources"] = left or present.sources
    if "trust" in fields and present.trust != newest.trust:
        fields["trust"] = min(before.trust, present.trust)
    return fields

"""What people write and decide: experiences by hand, edits, and what comes back into use."""

from collections.abc import Mapping
from typing import Any

from tutelage.errors import RecordError
from tutelage.experience import Change, Content, Experience, Guardrail, Source, Status
from tutelage.memory.compound import core
from tutelage.memory.files import experience
from tutelage.memory.store import MemoryStore
from tutelage.memory.versions import regained
from tutelage.patterns import problem
from tutelage.types import TENANT

EDITABLE = ("environment", "family", "goal", "content", "core", "verbatim", "scopes")
"""Fields that a person may write; the rest is set by memory itself."""
EARNS = frozenset({"environment", "family", "content"})
"""Fields that a measured status holds for, and no others."""
BACK = frozenset({Status.RETIRED, Status.ABSORBED})
"""Statuses that `restore` takes back."""


def written(data: Any, who: str, *, tenant: str = TENANT, reason: str = "") -> Experience:
    """An experience from JSON data with the fields of `EDITABLE`, and `sources` if it rests on recorded steps.

    It is trusted as `user:WHO` is, whatever it rests on, and begins on trial.

    Raises:
        RecordError: it says what only memory may say, or is no experience.
    """
    if isinstance(data, Mapping):
        _refuse_others(data, (*EDITABLE, "sources"))
    origin = f"user:{who}"
    made = experience(data, "experience", origin)
    sources = tuple(source.model_copy(update={"origin": origin}) for source in made.sources)
    change = Change(by=f"hand:{who}", reason=reason or "written by hand")
    _check_patterns(made.content)
    return made.model_copy(update={"tenant": tenant, "sources": sources, "author": origin, "change": change})


def edit(memory: MemoryStore, experience_id: str, patch: Any, who: str, reason: str = "") -> Experience:
    """Change it by a JSON merge patch (RFC 7396) over the fields of `EDITABLE`; the writer becomes one of its sources.

    What was active or absorbed for what its content did where it stood is on trial again with another content or place.

    Returns:
        The next version; the same one if the patch changes nothing.

    Raises:
        RecordError: there is no such experience, the patch touches other fields, or what comes out is no experience.
    """
    if not isinstance(patch, Mapping):
        raise RecordError(f"a patch is an object, not a {type(patch).__name__}")
    _refuse_others(patch, EDITABLE)
    with memory.record.transaction():
        item = memory.get(experience_id)
        changes = _changes(item, patch)
        if not changes:
            return item
        words = Source(trajectory="", task="", origin=f"user:{who}")
        known = any(source.origin == words.origin for source in item.sources)
        why = Change(by=f"hand:{who}", reason=reason or "edited by hand")
        return memory.change(item.id, why, **changes, sources=item.sources if known else (*item.sources, words))


def _changes(item: Experience, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a patch over those of `EDITABLE` changes, with what follows from that. Raises as `edit`."""
    after = merge_patch(item.model_dump(mode="json", include=set(EDITABLE)), patch)
    if isinstance(after.get("content"), dict) and after["content"].get("kind", item.kind) != item.kind:
        raise RecordError(f"{item.id} is a {item.kind} and stays one; add another experience instead")
    whole = {**after, "sources": [{"trajectory": "", "task": ""}], "author": item.author}
    made = experience(whole, f"experience {item.id} cannot be changed so", "")
    changes: dict[str, Any] = {
        name: getattr(made, name) for name in EDITABLE if getattr(made, name) != getattr(item, name)
    }
    if not changes:
        return {}
    _check_patterns(made.content)
    changes |= core_of(item, changes)
    if not EARNS.isdisjoint(changes) and item.status in (Status.ACTIVE, Status.ABSORBED):
        changes |= {"status": Status.CANDIDATE, "absorbed_by": ""}
    return changes


def core_of(item: Experience, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The core that belongs to the changed words, unless somebody wrote the one it has or a new one."""
    if "core" in changes or not {"goal", "content"} & changes.keys() or item.core != core(item):
        return {}
    return {"core": core(item.model_copy(update=dict(changes)))}


def restore(memory: MemoryStore, experience_id: str, who: str, reason: str = "") -> Experience:
    """Bring back what was retired or absorbed, to where it stood before that; on trial, if it says something else now.

    Raises:
        RecordError: there is no such experience, or it is neither.
    """
    with memory.record.transaction():
        versions = memory.history(experience_id)
        item = versions[-1]
        if item.status not in BACK:
            raise RecordError(f"{item.id} is {item.status.value}; only what is retired or absorbed can be restored")
        before = next((old for old in reversed(versions) if old.status not in BACK), None)
        status = regained(item, before) if before is not None else Status.CANDIDATE
        why = Change(by=f"hand:{who}", reason=reason or "restored by hand")
        return memory.change(item.id, why, status=status, absorbed_by="")


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed by a JSON merge patch: objects are merged, null removes, all else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def _refuse_others(data: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    other = sorted(set(data) - set(allowed))
    if other:
        raise RecordError(f"{', '.join(other)} cannot be written by hand; what can is {', '.join(allowed)}")


def _check_patterns(content: Content) -> None:
    """A rule with an unusable pattern would never apply, and nobody would notice."""
    if isinstance(content, Guardrail):
        for pattern in (content.forbidden, *content.trigger):
            if wrong := problem(pattern):
                raise RecordError(f"{pattern!r}: {wrong}")

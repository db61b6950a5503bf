"""How experiences change: by a new version with its reason, never in place and never twice the same."""

from pydantic import ValidationError

from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Source, Status, identity
from tutelage.types import now


def merged(old: Experience, new: Experience) -> Experience:
    """`old` with the sources of both, as its next version; `old` itself if `new` adds nothing.

    A candidate becomes active if `new` is; a retired one stays retired.
    """
    sources = united(old.sources, new.sources)
    activates = old.status is Status.CANDIDATE and new.status is Status.ACTIVE
    if sources == old.sources and not activates:
        return old
    status = Status.ACTIVE if activates else old.status
    return successor(old, Change(by=new.change.by, reason="further sources"), sources=sources, status=status)


def united(old: tuple[Source, ...], new: tuple[Source, ...]) -> tuple[Source, ...]:
    """Each trajectory once, in order of first appearance, with all its steps; no steps means all of it.

    Of what came without a trajectory, each origin counts once.
    """
    result = {origin_of(source): source for source in old}
    for source in new:
        known = result.get(origin_of(source))
        if known is None:
            result[origin_of(source)] = source
        elif known.steps:
            steps = tuple(sorted({*known.steps, *source.steps})) if source.steps else ()
            result[origin_of(source)] = known.model_copy(update={"steps": steps})
    return tuple(result.values())


def origin_of(source: Source) -> str:
    """What tells sources apart: the trajectory, or else who brought it, with the task if it names one."""
    return source.trajectory or f"{source.origin} {source.task}"


def successor(experience: Experience, change: Change, **changes: object) -> Experience:
    """The next version, changed so for this reason.

    Raises:
        RecordError: the changes are not possible.
    """
    data = {**dict(experience), "version": experience.version + 1, "created": now(), "change": change, **changes}
    try:
        return Experience.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"experience {experience.id} cannot be changed so: {place}: {first['msg']}") from error


def regained(present: Experience, before: Experience) -> Status:
    """The status that `before` had, for a return to it; what it earned with other words or elsewhere is not had."""
    earned = before.status in (Status.ACTIVE, Status.ABSORBED) and identity(present) != identity(before)
    return Status.CANDIDATE if earned else before.status

"""How experiences change: by a new version, never in place and never twice the same."""

from tutelage.types import Experience, Source, Status, now


def identity(experience: Experience) -> str:
    """Experiences with equal identity say the same: same kind, environment, family and content.

    Nothing is merged by similarity: "always" and "never" are near neighbours as vectors.
    """
    place = f"{experience.environment}\n{experience.family}\n"
    return place + experience.content.model_dump_json()


def merged(old: Experience, new: Experience) -> Experience:
    """`old` with the sources of both, as its next version; `old` itself if `new` adds nothing.

    A candidate becomes active if `new` is; a retired one stays retired.
    """
    sources = united(old.sources, new.sources)
    activates = old.status is Status.CANDIDATE and new.status is Status.ACTIVE
    if sources == old.sources and not activates:
        return old
    return successor(old, sources=sources, status=Status.ACTIVE if activates else old.status)


def united(old: tuple[Source, ...], new: tuple[Source, ...]) -> tuple[Source, ...]:
    """Each trajectory once, in order of first appearance, with all its steps; no steps means all of it."""
    result = {source.trajectory: source for source in old}
    for source in new:
        known = result.get(source.trajectory)
        if known is None:
            result[source.trajectory] = source
        elif known.steps:
            steps = tuple(sorted({*known.steps, *source.steps})) if source.steps else ()
            result[source.trajectory] = known.model_copy(update={"steps": steps})
    return tuple(result.values())


def with_status(experience: Experience, status: Status) -> Experience:
    """The next version with this status; the same object if it has it."""
    return experience if experience.status is status else successor(experience, status=status)


def successor(experience: Experience, **changes: object) -> Experience:
    return experience.model_copy(update={"version": experience.version + 1, "created": now(), **changes})

"""What becomes of an experience when it comes in: made inert, weighed by its sources, and, if they are not trusted,
kept aside as it is while only what can be told in our own words is admitted.

All of it but `through` is pure: what memory holds already is looked up by `tutelage.memory.store`.
"""

from collections.abc import Callable, Iterable, Sequence

from tutelage.config import TrustConfig
from tutelage.experience import IN_USE, Change, Experience, Guardrail, Status
from tutelage.memory import trust
from tutelage.memory.neutral import neutralised
from tutelage.memory.own_words import in_own_words, stops
from tutelage.memory.versions import merged
from tutelage.record import Record
from tutelage.types import OWN, Split, Trajectory

_THRESHOLD = "threshold"
RIGHT_STEP = "it would stop a right step that the record holds"
ADMISSION = "admission"
"""Who changes and quarantines here (`Change.by`)."""


def admit(
    experience: Experience,
    sources: Callable[[], Sequence[Trajectory]],
    config: TrustConfig,
    *,
    right: Callable[[], Iterable[Trajectory]] = tuple,
    known: Callable[[], Experience | None] = lambda: None,
) -> tuple[Experience, ...]:
    """The versions to keep, in order; the last one is what memory holds then.

    One that is trusted enough is kept with its texts made inert and its trust. Otherwise it is kept in quarantine, and
    if anything can be told of it in our own words, its next version says just that, on trial: its words are ours, their
    arrangement is not, so it is worth the threshold and no more. What already says no more than that is not
    quarantined first. Whether anything helps is for evidence to tell; nothing is active on the word of such sources.
    A further version that says what is in use already, because a person or evidence let it, is not judged again.

    Args:
        sources: the source trajectories that are known; read only where they are needed.
        right: successful trajectories of its family, for a guardrail from elsewhere; it may stop no right step of them.
        known: what memory holds under its id.
    """
    read = _Once(sources)
    item = _inert(experience, read)
    worth = min(item.trust, trust.of_sources(item, config))
    stopped = _stopped(item, right)
    if stopped:
        return (_quarantined(item, worth, stopped),)
    if worth >= config.threshold or item.status not in IN_USE:
        return (item if item.trust == worth else item.model_copy(update={"trust": worth}),)
    old = known()
    if old is not None and old.version < item.version and old.status in IN_USE and old.content == item.content:
        return (item.model_copy(update={"trust": min(item.trust, old.trust)}),)
    told, reason = in_own_words(item, read())
    if told is None:
        return (_quarantined(item, worth, reason, config),)
    if told.content == item.content:
        return (told.model_copy(update={"trust": config.threshold}),)
    least = {"status": Status.CANDIDATE, "trust": config.threshold}
    aside = _quarantined(item, worth, "words of sources that are not trusted enough", config)
    change = Change(
        by=ADMISSION,
        reason="told again without the words of sources that are not trusted",
        numbers={"trust of its sources": round(worth, 3), "threshold": config.threshold},
    )
    return aside, told.model_copy(update={**least, "version": item.version + 1, "change": change})


def through(record: Record, tenant: str, config: TrustConfig) -> Callable[[Experience], tuple[Experience, ...]]:
    """`admit` with what this tenant's part of the record knows of sources and right steps."""

    def enter(experience: Experience) -> tuple[Experience, ...]:
        def sources() -> list[Trajectory]:
            places = record.trajectory_places([source.trajectory for source in experience.sources])
            return [record.trajectory(key) for key, (_, owner) in places.items() if owner == tenant]

        def right() -> list[Trajectory]:
            return record.trajectories(
                environment=experience.environment,
                family=experience.family,
                tenant=tenant,
                split=Split.TRAIN,
                success=True,
            )

        def known() -> Experience | None:
            by_id, _ = record.newest_of(tenant, ids=[experience.id], identities=[])
            return next(iter(by_id), None)

        return admit(experience, sources, config, right=right, known=known)

    return enter


def agreed(old: Experience, new: Experience, config: TrustConfig) -> Experience:
    """What memory holds when `new`, of another id, says exactly what `old` says.

    One in quarantine comes out of it if its sources are trusted enough together; one that a person has put aside does
    not.
    """
    both = merged(old, new)
    if both is old or old.trust >= config.threshold:
        return both
    worth = max(old.trust, trust.of_sources(both, config), new.trust if new.content == old.content else 0.0)
    if old.merged:
        worth = old.trust
    update: dict[str, object] = {"trust": worth}
    doubted = old.change.by == ADMISSION and _THRESHOLD in old.change.numbers
    if old.status is Status.QUARANTINED and doubted and worth >= config.threshold and not _refused(new):
        numbers: dict[str, float | str] = {"trust": round(worth, 3), "threshold": config.threshold}
        change = Change(by=ADMISSION, reason="corroborated by an independent source", numbers=numbers)
        update |= {"status": Status.CANDIDATE, "change": change}
    return both.model_copy(update=update)


def rewritten_by_hand(old: Experience, new: Experience, config: TrustConfig) -> Experience:
    """`new`, the next version of `old`, as it may be kept: if it says something else, it is made inert, and worth no
    more than those who had a hand in it."""
    texts = ("goal", "content", "core", "scopes", "touched", "verbatim")
    if all(getattr(old, name) == getattr(new, name) for name in texts):
        return new
    item, _ = neutralised(new)
    hands = [source for source in new.sources if source not in old.sources]
    worth = min([new.trust, *(trust.of_source(source, new.environment, config) for source in hands)])
    if worth >= config.threshold or worth == old.trust or item.status not in IN_USE:
        return item.model_copy(update={"trust": worth})
    return _quarantined(item, worth, "changed by a hand that is not trusted enough", config)


def _inert(experience: Experience, sources: "_Once") -> Experience:
    by_hand = any(item.origin.startswith(trust.HAND) for item in experience.sources)
    shown = None if by_hand else lambda: "\n".join(_shown(source) for source in sources())
    item, taken = neutralised(experience, shown)
    if not taken:
        return item
    numbers = {**item.change.numbers, "texts made inert": float(len(taken))}
    return item.model_copy(update={"change": item.change.model_copy(update={"numbers": numbers})})


def _stopped(item: Experience, right: Callable[[], Iterable[Trajectory]]) -> str:
    """Why a guardrail from elsewhere cannot be taken; what was drawn here was replayed when it was drawn."""
    rule = item.content
    if not isinstance(rule, Guardrail) or all(source.origin == OWN for source in item.sources):
        return ""
    tried = ((step, other.goal) for other in right() if other.success for step in other.steps if step.diagnosis.fine)
    wrong = any(stops(rule, step, goal) for step, goal in tried)
    return RIGHT_STEP if wrong else ""


def _refused(item: Experience) -> bool:
    """Whether it is in quarantine for what it says, whoever says it."""
    return item.status is Status.QUARANTINED and _THRESHOLD not in item.change.numbers


def _quarantined(item: Experience, worth: float, reason: str, config: TrustConfig | None = None) -> Experience:
    """`config` is given where trust is the reason, and more of it may lift the quarantine."""
    numbers = {**item.change.numbers, "trust": round(worth, 3)}
    numbers |= {_THRESHOLD: config.threshold} if config else {}
    said = ": ".join(part for part in (item.change.by, item.change.reason) if part)
    change = Change(by=ADMISSION, reason=f"{reason} ({said})" if said else reason, numbers=numbers)
    return item.model_copy(update={"status": Status.QUARANTINED, "trust": worth, "change": change})


def _shown(source: Trajectory) -> str:
    lines = [source.goal]
    for step in source.steps:
        lines += [step.observation, step.meaning, step.action, step.after]
    return "\n".join(lines)


class _Once:
    """Reads the sources when they are first asked for."""

    def __init__(self, read: Callable[[], Sequence[Trajectory]]) -> None:
        self._read = read
        self._found: Sequence[Trajectory] | None = None

    def __call__(self) -> Sequence[Trajectory]:
        if self._found is None:
            self._found = self._read()
        return self._found

"""What becomes of an experience when it comes in: made inert, weighed by its sources, and, if they are not trusted,
kept aside as it is while only what can be told in our own words is admitted.

All of it but `through` is pure: what memory holds already is looked up by `tutelage.memory.store`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile

from tutelage.config import TrustConfig
from tutelage.experience import IN_USE, Change, Experience, Status
from tutelage.memory import trust
from tutelage.memory.gate import ADMISSION, OURS, THRESHOLD, WORDS, quarantined, right, standings, stopped
from tutelage.memory.neutral import neutralised
from tutelage.memory.own_words import in_own_words
from tutelage.memory.versions import merged
from tutelage.record import Record
from tutelage.types import Trajectory


def admit(
    experience: Experience,
    sources: Callable[[], Sequence[Trajectory]],
    config: TrustConfig,
    *,
    right: Callable[[], Iterable[Trajectory]] = tuple,
    known: Callable[[], Experience | None] = lambda: None,
    offered: Callable[[], Collection[str]] = tuple,
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
        offered: names of the tools of its environment, for one without a source that is known.
    """
    read = _Once(sources)
    item = _inert(experience, read)
    worth = min(item.trust, trust.of_sources(item, config))
    wrong = stopped(item, right)
    if wrong:
        return (quarantined(item, worth, wrong),)
    if worth >= config.threshold or item.status not in IN_USE:
        return (item if item.trust == worth else item.model_copy(update={"trust": worth}),)
    old = known()
    if old is not None and old.version < item.version and old.status in IN_USE and old.content == item.content:
        return (item.model_copy(update={"trust": min(item.trust, old.trust)}),)
    told, reason = in_own_words(item, read(), () if read() else offered(), right)
    if told is None:
        return (quarantined(item, worth, reason, config),)
    if told.content == item.content:
        numbers = {**told.change.numbers, OURS: 1.0}
        change = told.change.model_copy(update={"numbers": numbers})
        return (told.model_copy(update={"trust": config.threshold, "change": change}),)
    least = {"status": Status.CANDIDATE, "trust": config.threshold}
    aside = quarantined(item, worth, "words of sources that are not trusted enough", config)
    change = Change(
        by=ADMISSION,
        reason="told again without the words of sources that are not trusted",
        numbers={"trust of its sources": round(worth, 3), THRESHOLD: config.threshold, OURS: 1.0},
    )
    return aside, told.model_copy(update={**least, "version": item.version + 1, "change": change})


def through(record: Record, tenant: str, config: TrustConfig) -> Callable[[Experience], tuple[Experience, ...]]:
    """`admit` with what this tenant's part of the record knows of sources and right steps."""

    def enter(experience: Experience) -> tuple[Experience, ...]:
        def sources() -> list[Trajectory]:
            places = record.trajectory_places([source.trajectory for source in experience.sources])
            return [record.trajectory(key) for key, (_, owner) in places.items() if owner == tenant]

        def known() -> Experience | None:
            by_id, _ = record.newest_of(tenant, ids=[experience.id], identities=[])
            return next(iter(by_id), None)

        def offered() -> frozenset[str]:
            return record.names_offered(experience.environment, tenant)

        return admit(
            experience,
            sources,
            config,
            right=lambda: right(record, tenant, experience, config),
            known=known,
            offered=offered,
        )

    return enter


def agreed(history: Sequence[Experience], new: Experience, config: TrustConfig) -> Experience:
    """What memory holds when `new`, of another id, says exactly what the newest of `history` says.

    One in quarantine comes out of it if those who said just this are trusted enough together; one that a person has
    put aside does not.
    """
    old = history[-1]
    both = merged(old, new)
    if both is old or old.trust >= config.threshold:
        return both
    *_, standing = standings([*history, both], config)
    ours = OURS in new.change.numbers and new.content == old.content
    worth = old.trust if old.merged else max(old.trust, standing.worth, new.trust if ours else 0.0)
    update: dict[str, object] = {"trust": worth}
    aside = list(takewhile(lambda item: item.status is Status.QUARANTINED, reversed(history)))
    doubted = bool(aside) and aside[-1].change.by == ADMISSION and THRESHOLD in aside[-1].change.numbers
    if doubted and worth >= config.threshold and not _refused(new):
        numbers: dict[str, float | str] = {"trust": round(worth, 3), THRESHOLD: config.threshold}
        change = Change(by=ADMISSION, reason="corroborated by an independent source", numbers=numbers)
        update |= {"status": Status.CANDIDATE, "change": change}
        if ours and standing.worth < config.threshold:
            change = change.model_copy(update={"numbers": {**numbers, OURS: 1.0}})
            update |= {"change": change, **{name: getattr(new, name) for name in WORDS}}
    return both.model_copy(update=update)


def _inert(experience: Experience, sources: "_Once") -> Experience:
    by_hand = any(item.origin.startswith(trust.HAND) for item in experience.sources)
    shown = None if by_hand else lambda: "\n".join(_shown(source) for source in sources())
    item, taken = neutralised(experience, shown)
    if not taken and OURS not in item.change.numbers:
        return item
    numbers = {name: value for name, value in item.change.numbers.items() if name != OURS}  # that is found here
    numbers |= {"texts made inert": float(len(taken))} if taken else {}
    return item.model_copy(update={"change": item.change.model_copy(update={"numbers": numbers})})


def _refused(item: Experience) -> bool:
    """Whether it is in quarantine for what it says, whoever says it."""
    return item.status is Status.QUARANTINED and THRESHOLD not in item.change.numbers


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

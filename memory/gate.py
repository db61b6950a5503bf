"""The one gate through which every version of an experience passes before it is kept, whoever makes it and whatever
statuses lie between.

What it guarantees, by the configuration of today: a version is in use only if

- its words are trusted enough by all who had a hand in them. Who changed them counts with its own trust and never lifts
  it; from then on a source bears the new words out only if it came afterwards and says just these;
- or a reviewer who is trusted enough has taken just these words into use (`review:NAME`);
- and they have not been in quarantine since, unless such a reviewer or corroboration has taken them out of it;
- and, of a guardrail that is not all our own, they stop no recorded right step, unless a reviewer let them.

Else it is kept in quarantine. Words that are brought back have the standing that they had; words that are changed are
made inert. `Gate.trusts` says the same of any version that is kept, in use or not: what it refuses is withheld from
agents, and from whoever may only read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tutelage.config import TrustConfig
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Change, Experience, Guardrail, Source, Status
from tutelage.memory import trust
from tutelage.memory.neutral import neutralised
from tutelage.memory.own_words import stops
from tutelage.memory.versions import origin_of
from tutelage.record import Record
from tutelage.types import OWN, Split, Trajectory

ADMISSION = "admission"
"""Who changes and quarantines here (`Change.by`)."""
THRESHOLD = "threshold"
"""Entry of `Change.numbers` where trust is the reason, and more of it may lift the quarantine."""
OURS = "in our own words"
"""Entry of `Change.numbers` of a version whose words admission found, or made, to be ours."""
MADE_BY = "made by"
"""Entry of `Change.numbers` of what was put in quarantine: `Change.by` of who wanted something else."""
RIGHT_STEP = "it would stop a right step that the record holds"
NOT_TRUSTED = "words that are not trusted enough"
SET_ASIDE = "words that were put in quarantine; a reviewer has to take them into use"
WORDS = ("environment", "family", "goal", "content", "core", "scopes", "touched", "verbatim")
"""What a version says, and where it applies."""

_REVIEW, _IMPORT = "review:", "import:"
_MERGES = frozenset({"merged with", "parted from", "sources of merged ones"})
"""Changes by which sources come and go that said something else (`tutelage.memory.merging`)."""
_KEPT = 20_000

Right = Callable[[Experience], Iterable[Trajectory]]


@dataclass(frozen=True)
class Standing:
    """What the words of a version are worth, by all that happened to them until then."""

    base: float = 0.0
    """What they were worth when they were put so; 0 where they are what the first sources said."""
    hands: frozenset[str] = frozenset()
    """The voices that this comes from."""
    said: tuple[tuple[str, float], ...] = ()
    """Voice and trust of each source that said just this since."""
    vouched: bool = False
    """Whether a reviewer let these words pass, or trusted hands alone have changed what one let pass."""
    held: bool = False
    """Whether they are in quarantine, whatever status came after it."""

    @property
    def worth(self) -> float:
        others = [(voice, worth) for voice, worth in self.said if voice not in self.hands]
        return max(self.base, trust.combined(self.said), trust.combined([("", self.base), *others]))

    @property
    def voices(self) -> frozenset[str]:
        return self.hands | {voice for voice, _ in self.said}

    def allows(self, item: Experience, config: TrustConfig) -> bool:
        """Whether the version with this standing may be in use."""
        return not self.held and (self.vouched or min(item.trust, self.worth) >= config.threshold)


class Gate:
    """The gate of one tenant's memory."""

    def __init__(self, record: Record, tenant: str, config: TrustConfig) -> None:
        self._record = record
        self._tenant = tenant
        self._config = config
        self._known: dict[tuple[str, int], bool] = {}

    def passed(
        self, versions: Sequence[Experience], history: Callable[[str], Sequence[Experience]] | None = None
    ) -> list[Experience]:
        """New versions, oldest first, as they may be kept.

        Args:
            history: the versions there are of an experience, if not just those of the record.

        Raises:
            RecordError: a reviewer who is not trusted enough wants to take into use what is not trusted.
        """
        known: dict[str, list[Experience]] = {}
        for item in versions:
            if item.id not in known:
                known[item.id] = list((history or self._record.history)(item.id)) if item.version > 1 else []
            earlier = [old for old in known[item.id] if old.version < item.version]
            known[item.id] = [*earlier, passed(earlier, item, self._config, self._right)]
        return [next(kept for kept in known[item.id] if kept.version == item.version) for item in versions]

    def trusts(self, item: Experience) -> bool:
        """Whether agents, and those who may only read, may be shown the words of this version that is kept."""
        key = (item.id, item.version)
        if key in self._known:
            return self._known[key]
        history = self._record.history(item.id) if item.version > 1 else []
        *_, last = standings([*(old for old in history if old.version < item.version), item], self._config)
        allowed = last.allows(item, self._config)
        if not self._record.writing:  # a version that is taken back leaves its number to another one
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = allowed
        return allowed

    def _right(self, item: Experience) -> Iterable[Trajectory]:
        return right(self._record, self._tenant, item, self._config)


def passed(
    history: Sequence[Experience], item: Experience, config: TrustConfig, right: Right = lambda item: ()
) -> Experience:
    """`item`, the version after `history`, as it may be kept.

    Args:
        right: successful trajectories of its family; read only for a guardrail that comes into use.

    Raises:
        RecordError: a reviewer who is not trusted enough wants to take it into use.
    """
    same = [old for old in history if words(old) == words(item)]
    if history and not same:
        item, _ = neutralised(item)
    *_, standing = standings([*history, item], config)
    if history and not same:
        item = item.model_copy(update={"trust": min(item.trust, standing.worth)})
    if item.status not in IN_USE:
        return item
    if not standing.allows(item, config):
        if item.change.by.startswith(_REVIEW):
            who = _origin(item.change)
            raise RecordError(
                f"{item.id} says what is not trusted, and {who} is not trusted enough to let it pass "
                f"(memory.trust.sources: {trust.of_origin(who, config):g}, needed {config.threshold:g})"
            )
        return quarantined(
            item, item.trust, SET_ASIDE if standing.held else NOT_TRUSTED, None if standing.held else config
        )
    if not standing.vouched and not any(old.status in IN_USE for old in same) and stopped(item, lambda: right(item)):
        return quarantined(item, item.trust, RIGHT_STEP)
    return item


def standings(versions: Sequence[Experience], config: TrustConfig) -> Iterator[Standing]:
    """The standing of each of the versions of one experience, oldest first and none missing."""
    known: dict[tuple[object, ...], Standing] = {}
    before, last = None, Standing()
    for item in versions:
        said = words(item)
        if before is None:
            last = _first(item, config)
        elif said == words(before) and OURS not in item.change.numbers:
            last = replace(last, said=(*last.said, *_joined(before, item, config)))
        else:
            brought_back = None if OURS in item.change.numbers else known.get(said)
            last = brought_back or _rewritten(last, before, item, config)
        last = known[said] = _decided(last, item, config)
        before = item
        yield last


def words(item: Experience) -> tuple[object, ...]:
    """What it says and where it applies, to be compared."""
    return tuple(getattr(item, name) for name in WORDS)


def right(record: Record, tenant: str, item: Experience, config: TrustConfig) -> list[Trajectory]:
    """The successful train trajectories of its family, whose right steps no guardrail may stop."""
    solved = record.trajectories(
        environment=item.environment, family=item.family, tenant=tenant, split=Split.TRAIN, success=True
    )
    return [trajectory for trajectory in solved if trust.vouched_for(trajectory, config)]


def stopped(item: Experience, right: Callable[[], Iterable[Trajectory]]) -> str:
    """Why a guardrail from elsewhere cannot be taken; what was drawn here was replayed when it was drawn."""
    rule = item.content
    if not isinstance(rule, Guardrail) or all(source.origin == OWN for source in item.sources):
        return ""
    tried = ((step, other.goal) for other in right() if other.success for step in other.steps if step.diagnosis.fine)
    wrong = any(stops(rule, step, goal) for step, goal in tried)
    return RIGHT_STEP if wrong else ""


def quarantined(item: Experience, worth: float, reason: str, config: TrustConfig | None = None) -> Experience:
    """`config` is given where trust is the reason, and more of it may lift the quarantine."""
    numbers = {**item.change.numbers, "trust": round(worth, 3), MADE_BY: _made_by(item.change)}
    numbers |= {THRESHOLD: config.threshold} if config else {}
    said = ": ".join(part for part in (item.change.by, item.change.reason) if part)
    change = Change(by=ADMISSION, reason=f"{reason} ({said})" if said else reason, numbers=numbers)
    return item.model_copy(update={"status": Status.QUARANTINED, "trust": worth, "change": change})


def _first(item: Experience, config: TrustConfig) -> Standing:
    said = tuple(_voiced(item.sources, item, config))
    ours = config.threshold if OURS in item.change.numbers else 0.0
    if item.merged or ours:
        return Standing(base=max(ours, trust.of_sources(item, config)), hands=frozenset(voice for voice, _ in said))
    return Standing(said=said)


def _joined(before: Experience, item: Experience, config: TrustConfig) -> Iterator[tuple[str, float]]:
    """The sources that a version has gained and that say just what it says."""
    if not before.merged and _MERGES.isdisjoint(item.change.numbers):
        yield from _voiced(_new(before, item), item, config)


def _rewritten(last: Standing, before: Experience, item: Experience, config: TrustConfig) -> Standing:
    """Of words that were never there before: what was told again is ours, all else worth no more than each hand."""
    if OURS in item.change.numbers:
        return Standing(base=max(last.worth, config.threshold), hands=last.voices)
    who = Source(trajectory="", task="", origin=_origin(item.change))
    hands = list(_voiced([*_new(before, item), who], item, config))
    return Standing(
        base=min(last.worth, *(worth for _, worth in hands)),
        hands=last.voices | {voice for voice, _ in hands},
        vouched=last.vouched and all(worth >= config.threshold for _, worth in hands),
        held=last.held,
    )


def _decided(last: Standing, item: Experience, config: TrustConfig) -> Standing:
    """After what the version's status says about its words."""
    by = item.change.by
    if item.status is Status.QUARANTINED:
        return replace(last, held=True, vouched=False)
    if item.status not in IN_USE:
        return last
    trusted = by == ADMISSION or trust.of_origin(_origin(item.change), config) >= config.threshold
    if by.startswith(_REVIEW) and trusted:
        return replace(last, held=False, vouched=True)
    return replace(last, held=last.held and not (trusted and (by == ADMISSION or by.startswith(_IMPORT))))


def _new(before: Experience, item: Experience) -> list[Source]:
    known = {origin_of(source) for source in before.sources}
    return [source for source in item.sources if origin_of(source) not in known]


def _voiced(sources: Iterable[Source], item: Experience, config: TrustConfig) -> Iterator[tuple[str, float]]:
    for source in sources:
        yield trust.voice(source, item.environment, config), trust.of_source(source, item.environment, config)


def _origin(change: Change) -> str:
    """Whose doing a change is; what names no person and no file is the program's."""
    by = _made_by(change)
    kind, _, name = by.partition(":")
    if kind in ("review", "hand"):
        return f"{trust.HAND}:{name}"
    return by if by.startswith(_IMPORT) else OWN


def _made_by(change: Change) -> str:
    return str(change.numbers.get(MADE_BY, "")) or change.by if change.by == ADMISSION else change.by

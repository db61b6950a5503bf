"""What paired episodes say of memory, and what that makes of an experience: rules without a workspace.

All rules go by intervals that hold at every look (`tutelage.anytime`), never by a point estimate. The level is that
of one effect; of many that are looked at, some will be wrong.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tutelage import anytime
from tutelage.config import EvidenceConfig
from tutelage.experience import Status
from tutelage.measures import Effect, Finding


class Pair(NamedTuple):
    """The outcomes of one task with and without memory."""

    with_memory: bool
    without: bool
    shown: frozenset[str] = frozenset()
    """Ids of what stood in the first message."""
    blocked: bool = False


class Tally(NamedTuple):
    """How many pairs had which outcomes."""

    both: float = 0
    won: float = 0
    """Solved with memory only."""
    lost: float = 0
    """Solved without memory only."""
    neither: float = 0

    @property
    def pairs(self) -> float:
        return sum(self)

    def times(self, factor: float) -> "Tally":
        return Tally(*(factor * count for count in self))


def tally(pairs: Iterable[Pair]) -> Tally:
    counts = [0, 0, 0, 0]
    for pair in pairs:
        counts[2 * (not pair.with_memory) + (not pair.without)] += 1
    return Tally(*counts)


def finding(found: Tally, config: EvidenceConfig) -> Finding:
    """What the intervals say.

    Harms comes first: what makes the student worse is not what it has learned. Held: the lower bound of without − with
    is above −margin (one side of two one-sided tests of equivalence), and the lower bound of success without reaches
    `able`, because where the student fails either way nothing was learned.
    """
    low, high = anytime.interval({0.0: found.lost, 0.5: found.both + found.neither, 1.0: found.won}, config.confidence)
    able = anytime.interval({0.0: found.won + found.neither, 1.0: found.both + found.lost}, config.confidence)[0]
    if 2 * high - 1 < 0:
        return Finding.HARMS
    if 2 * high - 1 < config.margin and able >= config.able:
        return Finding.HELD
    return Finding.HELPS if 2 * low - 1 > 0 else Finding.UNDECIDED


def needed(found: Tally, config: EvidenceConfig, most: int) -> int | None:
    """How many further pairs a decision takes if they go on as they did; None if `most` are not enough."""
    if not found.pairs:
        return None

    def decided(more: int) -> bool:
        return finding(found.times(1 + more / found.pairs), config) is not Finding.UNDECIDED

    if not decided(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def effect(
    family: str,
    pairs: Iterable[Pair],
    config: EvidenceConfig,
    *,
    experience: str = "",
    alone: bool = False,
    seen: int = 0,
    broken: int = 0,
) -> Effect:
    """The effect over these pairs; with `experience`, over those in which it was shown."""
    every = list(pairs)
    mine = [pair for pair in every if not experience or experience in pair.shown]
    found = tally(mine)
    both, won, lost, _ = map(int, found)
    return Effect(
        family=family,
        experience=experience,
        alone=alone,
        difference=anytime.compare(won, lost, len(mine), config.confidence, broken=broken),
        with_memory=anytime.rate(both + won, len(mine), config.confidence),
        without=anytime.rate(both + lost, len(mine), config.confidence),
        finding=finding(found, config),
        seen=seen,
        unshown=len(every) - len(mine),
        blocked=sum(pair.blocked for pair in mine),
    )


def numbers(found: Effect) -> dict[str, float | str]:
    """For `Change.numbers`."""
    return {
        "pairs": found.difference.pairs,
        "gain": round(found.difference.gain, 4),
        "gain low": round(found.difference.low, 4),
        "gain high": round(found.difference.high, 4),
        "with": round(found.with_memory.rate, 4),
        "without": round(found.without.rate, 4),
        "without low": round(found.without.low, 4),
        "without high": round(found.without.high, 4),
    }


def destined(
    status: Status, before: Status, found: Effect, able_then: float, able_student: str = ""
) -> tuple[Status, str]:
    """The status that a sticker or skill should have by this effect, and why; the same one if nothing is decided.

    Args:
        before: the status that it had before it was absorbed, if it is.
        able_then: the lower bound of success without it when it was absorbed, if it is.
        able_student: the student, if it is able without memory.
    """
    difference, without = found.difference, found.without
    seen = (
        f"{100 * difference.gain:+.0f} points ({100 * difference.low:+.0f} to {100 * difference.high:+.0f}) "
        f"over {difference.pairs} pairs"
    )
    if found.finding is Finding.HELD:
        return Status.ABSORBED, (
            f"no worse without it: with it {seen}; without {without.successes} of {without.episodes} "
            f"(at least {100 * without.low:.0f} %)"
        )
    if found.finding is Finding.HARMS:
        why = f"harms {able_student}, which is able without it" if able_student else "it does harm"
        return Status.RETIRED, f"{why}: {seen}"
    if found.finding is Finding.HELPS:
        return (before if status is Status.ABSORBED else Status.ACTIVE), f"it helps: {seen}"
    if status is Status.ABSORBED and without.high < able_then:
        return before, (
            f"success without it has dropped to {without.successes} of {without.episodes} "
            f"(at most {100 * without.high:.0f} %, at least {100 * able_then:.0f} % when it was absorbed)"
        )
    return status, f"nothing follows: {seen}"

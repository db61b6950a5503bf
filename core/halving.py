"""Where pairs go: equally at first, then where a decision is near; for single experiences, successive halving.

How near a decision is: the pairs that it still takes if they go on as they did (`tutelage.effects.needed`). The
intervals hold at every look, so a choice that rests on what was seen does them no harm.

Successive halving (Jamieson and Talwalkar, AISTATS 2016; sequential halving of Karnin, Koren and Somekh, ICML 2013):
the budget is cut into as many rounds as the candidates can be halved; in each the remaining ones get equal shares,
and the better half goes on. We depart in what "better" means: not the highest mean but the nearest decision, since to
know that one does harm is worth as much. Thompson sampling would spend about as well; but it decides after each
single pair, where here a round is one batch of episodes, and it depends on random draws, where here the same
outcomes always lead to the same next step, so that an interrupted measurement goes on as it would have.
"""

from collections.abc import Mapping, Sequence
from math import ceil, log2

from tutelage.config import EvidenceConfig
from tutelage.effects import Finding, Tally, finding, needed

FEWEST = 4
"""Pairs of a family's first round at least; with fewer nothing can be seen."""
FIRST_SHARE = 0.5
"""Of the budget, for the first round at most."""


def first_round(families: Sequence[str], budget: int) -> dict[str, int]:
    """Equal numbers of pairs for as many of the families, in their order, as `FEWEST` each leave room for."""
    if not families or budget < 1:
        return {}
    each = min(budget, max(FEWEST, int(budget * FIRST_SHARE) // len(families)))
    return dict.fromkeys(families[: budget // each], each)


def next_round(found: Mapping[str, Tally], config: EvidenceConfig, left: int, size: int) -> dict[str, int]:
    """Further pairs for the families nearest to a decision, at most `size` for each and `left` in all.

    Empty when the budget is spent, or no family can be decided with what is left of it.
    """
    open_ones = {family: counts for family, counts in found.items() if finding(counts, config) is Finding.UNDECIDED}
    takes = {family: needed(counts, config, left) for family, counts in open_ones.items()} if left else {}
    reachable = sorted((pairs, family) for family, pairs in takes.items() if pairs is not None)
    given: dict[str, int] = {}
    for pairs, family in reachable:
        if pairs > left:
            break  # the rest is farther away still
        given[family] = min(pairs, size)
        left -= pairs  # what it will take in all stays reserved for it
    return given


def halvings(candidates: int) -> int:
    """Rounds of successive halving."""
    return max(1, ceil(log2(candidates)))


def share(budget: int, rounds: int, survivors: int) -> int:
    """Pairs of each survivor in one round."""
    return budget // (rounds * survivors)


def better_half(found: Mapping[str, Tally], config: EvidenceConfig, most: int) -> list[str]:
    """The undecided ones that go on: half of all, rounded up, the nearest to a decision first."""
    distance = {
        item: needed(counts, config, most)
        for item, counts in found.items()
        if finding(counts, config) is Finding.UNDECIDED
    }
    ranked = sorted(distance, key=lambda item: (distance[item] is None, distance[item] or 0))
    return ranked[: ceil(len(found) / 2)]

"""Intervals that hold at every look: pairs may go where they tell most, and one may stop as soon as they tell enough.

An interval for a fixed number of pairs is too narrow once its own outcome decides whether more pairs follow: whoever
looks often enough sees an effect that is not there. These are confidence sequences: with probability `confidence`
the truth lies in all of a measurement's intervals at once, however many there are and whenever one stops.

They are made by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
86, 2024): a mean that is too low is one against which a gambler grows rich. We depart from the paper in that the
gambler does not adapt its bet but holds a mixture of constant ones (a universal portfolio, as in Orabona and Jun,
2021), so that only the counts matter and not their order. The mixture's density grows with the bet: among those
tried it needs the fewest pairs here, 6 wins without a loss for a gain, 25 ties for a difference within 0.15 (at 0.9).
"""

from collections.abc import Mapping

import numpy as np
from scipy.stats import binomtest

from tutelage.measures import Comparison, Rate

BETS = np.sqrt((np.arange(256) + 0.5) / 256)
"""Shares of the capital, with density proportional to the share: quantiles of Beta(2, 1)."""
PRECISION = 1e-4


def rate(successes: int, episodes: int, confidence: float) -> Rate:
    """A success rate with its interval."""
    low, high = interval({0.0: episodes - successes, 1.0: successes}, confidence)
    return Rate(successes=successes, episodes=episodes, low=low, high=high)


def compare(won: int, lost: int, pairs: int, confidence: float, *, broken: int = 0) -> Comparison:
    """The paired difference of two arms, from the pairs that only the new one and only the old one solved."""
    low, high = interval({0.0: lost, 0.5: pairs - won - lost, 1.0: won}, confidence)
    return Comparison(
        pairs=pairs,
        gain=(won - lost) / pairs if pairs else 0.0,
        low=2 * low - 1,
        high=2 * high - 1,
        won=won,
        lost=lost,
        p_value=float(binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        method="betting",
        broken=broken,
    )


def interval(counts: Mapping[float, float], confidence: float) -> tuple[float, float]:
    """Bounds of the mean of values in [0, 1], each with how often it was seen; without any, all of [0, 1].

    Counts that are no whole numbers tell what the bounds would be if more were seen in these proportions.

    Each bound errs with probability (1 - confidence) / 2 at most.
    """
    seen = {value: count for value, count in counts.items() if count}
    needed = float(np.log(2 / (1 - confidence)))
    mirrored = {1 - value: count for value, count in seen.items()}
    return _lower(seen, needed), 1 - _lower(mirrored, needed)


def _lower(counts: Mapping[float, float], needed: float) -> float:
    """The largest mean that is refuted as too low, within `PRECISION`; 0 if none is."""
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        middle = (low + high) / 2
        if _log_capital(counts, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def _log_capital(counts: Mapping[float, float], mean: float) -> float:
    """Logarithm of what 1 has grown to by betting that the true mean is above `mean`; falls as `mean` rises."""
    growth = np.zeros_like(BETS)
    for value, count in counts.items():
        growth += count * np.log1p(BETS * (value / mean - 1))
    peak = float(growth.max())
    return peak + float(np.log(np.mean(np.exp(growth - peak))))

"""Intervals and paired comparisons of success rates."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm

from tutelage.measures import Comparison, Rate

RESAMPLES = 10_000


def rate(successes: int, episodes: int, confidence: float = 0.95) -> Rate:
    """A success rate with its Wilson interval; with no episodes the interval is all of [0, 1]."""
    if not episodes:
        return Rate(successes=0, episodes=0, low=0.0, high=1.0)
    interval = binomtest(successes, episodes).proportion_ci(confidence, method="wilson")
    return Rate(successes=successes, episodes=episodes, low=float(interval.low), high=float(interval.high))


def compare(old: Sequence[bool], new: Sequence[bool], *, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Paired difference of two arms; ``old[i]`` and ``new[i]`` are the same task.

    The interval is the percentile bootstrap over pairs. Where every pair has the same difference (all
    tied, all won or all lost) each resample equals the sample and that interval would be a single point,
    claiming a certainty that the data do not give; Tango's score interval takes its place, and `method`
    says so. No pairs at all give the gain 0 within [-1, 1].

    Raises:
        ValueError: the lengths differ.
    """
    pairs = len(old)
    won = sum(after and not before for before, after in zip(old, new, strict=True))
    lost = sum(before and not after for before, after in zip(old, new, strict=True))
    same = pairs in (won, lost, pairs - won - lost)
    interval = _tango(won, lost, pairs, confidence) if same else _bootstrap(won, lost, pairs, confidence, seed)
    return Comparison(
        pairs=pairs,
        gain=(won - lost) / pairs if pairs else 0.0,
        low=interval[0],
        high=interval[1],
        won=won,
        lost=lost,
        p_value=float(binomtest(won, won + lost).pvalue) if won + lost else 1.0,
        method="Tango score" if same else "paired bootstrap",
    )


def _bootstrap(won: int, lost: int, pairs: int, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile interval of the gain.

    A pair's difference is -1, 0 or 1, so a resample of pairs is one multinomial draw of their counts.
    """
    shares = np.array([won, lost, pairs - won - lost]) / pairs
    counts = np.random.default_rng(seed).multinomial(pairs, shares, size=RESAMPLES)
    gains = (counts[:, 0] - counts[:, 1]) / pairs
    low, high = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _tango(won: int, lost: int, pairs: int, confidence: float) -> tuple[float, float]:
    """Score interval of a paired difference (Tango, Statistics in Medicine 17:891, 1998), for equal differences.

    Where all pairs agree in their difference the score equation has these closed solutions, with z the
    normal quantile: ±z²/(n+z²) around 0, and from (n-z²)/(n+z²) to 1 where all were won.
    """
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    near = (pairs - z2) / (pairs + z2)
    if won == lost:
        reach = z2 / (pairs + z2)
        return -reach, reach
    return (near, 1.0) if won else (-1.0, -near)

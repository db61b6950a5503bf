"""Intervals by betting hold at every look, say little on little, and reach the decisions they are made for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage import anytime

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))


@given(counts=COUNTS)
def test_bounds_enclose_the_gain_and_mirror_each_other(counts: tuple[int, int, int]) -> None:
    won, lost, _ = counts
    found, other = (anytime.compare(a, b, sum(counts), 0.9) for a, b in ((won, lost), (lost, won)))
    assert -1 <= found.low <= found.gain + 1e-3 <= found.high + 2e-3
    assert (found.low, found.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    more = anytime.compare(won + 1, lost, sum(counts) + 1, 0.9)
    assert more.low >= found.low - 1e-3, "a win never lowers the lower bound"


def test_nothing_seen_says_nothing() -> None:
    nothing = anytime.compare(0, 0, 0, 0.9)
    assert (nothing.low, nothing.high, nothing.gain) == (-1, 1, 0)
    assert anytime.rate(0, 0, 0.9).low == 0


def test_what_it_takes_to_decide() -> None:
    assert anytime.compare(5, 0, 30, 0.9).low < 0 < anytime.compare(6, 0, 30, 0.9).low
    assert anytime.compare(0, 0, 24, 0.9).low < -0.15 < anytime.compare(0, 0, 25, 0.9).low
    assert anytime.rate(5, 5, 0.9).low < 0.5 < anytime.rate(6, 6, 0.9).low


@pytest.mark.parametrize(("win", "loss"), [(0.25, 0.25), (0.05, 0.05), (0.4, 0.1)])
def test_whoever_looks_after_every_pair_is_misled_no_oftener_than_promised(win: float, loss: float) -> None:
    """1,000 measurements of 64 pairs, looked at after each; a fixed-sample interval fails this by far."""
    random, level = np.random.default_rng(0), 0.9
    truth = ((win - loss) + 1) / 2
    draws = random.choice([0.0, 0.5, 1.0], p=[loss, 1 - win - loss, win], size=(1000, 64))
    growth = np.zeros((1000, len(anytime.BETS)))
    misled = np.zeros(1000, dtype=bool)
    for pair in range(64):
        growth += np.log1p(anytime.BETS[None] * (draws[:, pair, None] / truth - 1))
        misled |= np.exp(growth).mean(axis=1) >= 2 / (1 - level)
    assert misled.mean() <= 0.05, "the lower bound is above the truth at some look"
    ended = anytime.compare(int((draws[0] == 1).sum()), int((draws[0] == 0).sum()), 64, level)
    assert (ended.low > win - loss) <= bool(misled[0])

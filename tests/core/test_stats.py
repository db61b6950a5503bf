"""Intervals against statsmodels, hand-computed values and their definitions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from tutelage.stats import compare, rate

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_rate_is_wilsons(episodes: int, share: float, confidence: float) -> None:
    successes = round(share * episodes)
    found = rate(successes, episodes, confidence)
    low, high = proportion_confint(successes, episodes, alpha=1 - confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert -1e-9 <= found.low <= found.rate <= found.high <= 1 + 1e-9


def test_nothing_measured_is_everything_possible() -> None:
    assert rate(0, 0) == rate(0, 0, 0.5)
    assert (rate(0, 0).low, rate(0, 0).high) == (0.0, 1.0)
    nothing = compare([], [])
    assert (nothing.pairs, nothing.low, nothing.high, nothing.p_value) == (0, -1.0, 1.0, 1.0)


@settings(max_examples=60)
@given(PAIRS)
def test_comparison_matches_its_definition(pairs: list[tuple[bool, bool]]) -> None:
    old, new = [a for a, _ in pairs], [b for _, b in pairs]
    found = compare(old, new, seed=3)
    table = [[sum(a and b for a, b in pairs), found.lost], [found.won, sum(not a and not b for a, b in pairs)]]
    assert found.gain == pytest.approx(np.mean(new) - np.mean(old))
    assert found.p_value == pytest.approx(mcnemar(table, exact=True).pvalue if found.won + found.lost else 1.0)
    assert found.low <= found.gain <= found.high
    assert found.low < found.high
    mirrored = compare(new, old, seed=3)
    assert (mirrored.won, mirrored.lost, mirrored.gain) == (found.lost, found.won, -found.gain)
    assert found == compare(old, new, seed=3)


@settings(max_examples=20)
@given(PAIRS)
def test_bootstrap_is_that_of_resampled_pairs(pairs: list[tuple[bool, bool]]) -> None:
    old, new = [a for a, _ in pairs], [b for _, b in pairs]
    found = compare(old, new)
    assume(found.method == "paired bootstrap")
    differences = np.array(new, dtype=float) - np.array(old, dtype=float)
    picks = np.random.default_rng(1).integers(0, len(pairs), size=(10_000, len(pairs)))
    low, high = np.quantile(differences[picks].mean(axis=1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.01 / len(pairs) + 0.02)


@given(st.integers(1, 200), st.sampled_from([-1, 0, 1]))
def test_equal_differences_keep_a_width(pairs: int, difference: int) -> None:
    found = compare([difference < 0] * pairs, [difference > 0] * pairs)
    assert (found.method, found.gain) == ("Tango score", difference)
    assert found.high - found.low > 0
    for bound in (found.low, found.high):
        if abs(bound) < 1:  # at the bound, the score test is exactly at its limit
            assert abs(_tango_score(found.won, found.lost, pairs, bound)) == pytest.approx(norm.ppf(0.975), rel=1e-6)


def _tango_score(won: int, lost: int, pairs: int, gain: float) -> float:
    """Equations of the paper, with the restricted maximum-likelihood share of lost pairs."""
    b = -won - lost + (2 * pairs - won + lost) * gain
    c = -lost * gain * (1 - gain)
    share = (math.sqrt(b * b - 8 * pairs * c) - b) / (4 * pairs)
    return (won - lost - pairs * gain) / math.sqrt(pairs * (2 * share + gain * (1 - gain)))


def test_by_hand() -> None:
    """20 pairs: 12 won, 2 lost, 6 tied. McNemar: 2·(C(14,0)+C(14,1)+C(14,2))/2¹⁴."""
    found = compare([False] * 12 + [True] * 2 + [True] * 6, [True] * 12 + [False] * 2 + [True] * 6)
    assert (found.pairs, found.won, found.lost, found.gain) == (20, 12, 2, 0.5)
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert (found.low, found.high) == pytest.approx((0.2, 0.8), abs=0.051)


def test_unpaired_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([True], [True, False])

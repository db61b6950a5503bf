"""What follows from pairs: by intervals and never by a point estimate; and where further pairs go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage import halving
from tutelage.config import EvidenceConfig
from tutelage.effects import Pair, Tally, destined, effect, finding, needed, tally
from tutelage.experience import Status
from tutelage.measures import Finding

CONFIG = EvidenceConfig()
SHOWN = frozenset({"exp_a"})


def pairs(both: int = 0, won: int = 0, lost: int = 0, neither: int = 0) -> list[Pair]:
    outcomes = [(True, True)] * both + [(True, False)] * won + [(False, True)] * lost + [(False, False)] * neither
    return [Pair(on, off, SHOWN) for on, off in outcomes]


def test_tally_counts_what_it_says() -> None:
    assert tally(pairs(3, 2, 1, 4)) == Tally(both=3, won=2, lost=1, neither=4)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Tally(won=6, neither=10), Finding.HELPS),
        (Tally(won=5, neither=10), Finding.UNDECIDED),  # the point estimate is +33 points
        (Tally(lost=6, neither=20), Finding.HARMS),
        (Tally(lost=12, both=4), Finding.HARMS),  # though the student is able without
        (Tally(lost=14), Finding.HARMS),
        (Tally(lost=5, both=30), Finding.HELD),  # worse with it by the point estimate only
        (Tally(both=25), Finding.HELD),
        (Tally(both=24), Finding.UNDECIDED),
        (Tally(neither=200), Finding.UNDECIDED),  # 0 % = 0 % is not absorption
        (Tally(both=40, won=20), Finding.HELPS),  # able, but better with it
        (Tally(), Finding.UNDECIDED),
    ],
)
def test_findings(found: Tally, said: Finding) -> None:
    assert finding(found, CONFIG) is said


@settings(deadline=None)
@given(counts=st.tuples(*[st.integers(0, 30)] * 4), status=st.sampled_from([Status.CANDIDATE, Status.ACTIVE]))
def test_a_status_never_moves_against_the_interval(counts: tuple[int, ...], status: Status) -> None:
    found = effect("toy/form", pairs(*counts), CONFIG, experience="exp_a")
    new, reason = destined(status, status, found, 0.0)
    difference = found.difference
    assert reason
    if new is Status.RETIRED:
        assert difference.high < 0
    if new is Status.ABSORBED:
        assert 0 <= difference.high < CONFIG.margin
        assert found.without.low >= CONFIG.able
    if (status, new) == (Status.CANDIDATE, Status.ACTIVE):
        assert difference.low > 0


def test_what_is_absorbed_comes_back_when_success_without_drops_or_it_helps_again() -> None:
    def due(found: list[Pair]) -> Status:
        return destined(Status.ABSORBED, Status.ACTIVE, effect("toy/form", found, CONFIG), able_then=0.7)[0]

    assert due(pairs(both=30)) is Status.ABSORBED
    assert due(pairs(both=10)) is Status.ABSORBED, "too little to say anything"
    assert due(pairs(both=2, won=9)) is Status.ACTIVE, "it helps again"
    assert due(pairs(neither=12, both=4)) is Status.ACTIVE, "without it success has dropped, and with it too"
    assert due(pairs(neither=40, lost=9)) is Status.RETIRED, "success has dropped, and it does harm"


def test_an_effect_of_one_experience_counts_the_pairs_that_showed_it() -> None:
    unshown = [Pair(True, False), Pair(False, True)]
    found = effect("toy/form", pairs(won=3) + unshown, CONFIG, experience="exp_a")
    assert (found.difference.pairs, found.difference.won, found.unshown) == (3, 3, 2)


def test_the_first_round_is_equal_and_later_pairs_go_where_a_decision_is_near() -> None:
    families = ["toy/a", "toy/b", "toy/c", "toy/d"]
    given_first = halving.first_round(families, 64)
    assert given_first == dict.fromkeys(families, 8)
    assert halving.first_round(families, 10) == {"toy/a": 4, "toy/b": 4}, "too few for all: the first ones"
    found = {
        "toy/a": Tally(neither=8),  # hopeless
        "toy/b": Tally(won=8),  # decided
        "toy/c": Tally(won=4, neither=4),
        "toy/d": Tally(won=1, both=3, neither=4),
    }
    assert list(halving.next_round(found, CONFIG, 32, 8)) == ["toy/c"]
    assert list(halving.next_round(found, CONFIG, 64, 8)) == ["toy/c", "toy/d"]
    assert halving.next_round(found, CONFIG, 0, 8) == {}
    assert needed(found["toy/a"], CONFIG, 10_000) is None


@settings(deadline=None, max_examples=25)
@given(
    budget=st.integers(0, 200),
    families=st.integers(0, 12),
    outcomes=st.lists(st.sampled_from(["won", "lost", "both", "neither"]), min_size=200, max_size=200),
)
def test_the_budget_is_never_exceeded(budget: int, families: int, outcomes: list[str]) -> None:
    names = [f"toy/{number}" for number in range(families)]
    left, found = budget, dict.fromkeys(names, Tally())
    given_now = halving.first_round(names, budget)
    size = max(given_now.values(), default=0)
    while given_now:
        for name, count in given_now.items():
            for _ in range(count):
                what = outcomes[left - 1]
                found[name] = found[name]._replace(**{what: getattr(found[name], what) + 1})
                left -= 1
        assert left >= 0
        given_now = halving.next_round(
            {name: counts for name, counts in found.items() if counts.pairs}, CONFIG, left, size
        )


def test_halving_keeps_the_nearest_to_a_decision_and_stays_in_budget() -> None:
    found = {"a": Tally(neither=6), "b": Tally(won=4, neither=2), "c": Tally(won=8), "d": Tally(both=5, lost=1)}
    assert halving.better_half(found, CONFIG, 100) == ["b", "d"]
    for candidates in range(1, 9):
        spent, going, rounds = 0, candidates, halving.halvings(candidates)
        for _ in range(rounds):
            spent += going * halving.share(40, rounds, going)
            going = (going + 1) // 2
        assert 40 - rounds * candidates < spent <= 40

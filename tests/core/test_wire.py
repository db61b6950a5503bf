"""Deadlines for work that does not keep to them."""

from threading import Event

import pytest

from tutelage import wire
from tutelage.wire import Late, within


def test_results_and_errors_come_through() -> None:
    assert within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        within(60, lambda: {}["x"])
    with pytest.raises(TimeoutError, match="inner"):
        within(60, lambda: (_ for _ in ()).throw(TimeoutError("inner")))


def test_never_too_many_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_LEFT", 3)
    monkeypatch.setattr(wire, "_left", set())
    release, begun = Event(), []

    def hang() -> None:
        begun.append(1)
        release.wait(60)

    for _ in range(5):
        with pytest.raises(Late):
            within(0.2, hang)
    assert len(begun) == 3
    left = list(wire._left)
    release.set()
    for thread in left:
        thread.join(60)
    assert within(60, lambda: "again") == "again"
    assert not wire._left


def test_it_is_given_up_in_time() -> None:
    release = Event()
    with pytest.raises(Late, match=r"0\.1 s"):
        within(0.1, lambda: release.wait(60))
    release.set()

"""A key gets so many requests a minute, however they are spread."""

from hypothesis import given
from hypothesis import strategies as st

from tutelage.serving.limits import Buckets


@given(
    per_minute=st.integers(1, 120),
    pauses=st.lists(st.floats(0, 90, allow_nan=False), max_size=200),
)
def test_never_more_than_a_bucket_and_what_came_since(per_minute: int, pauses: list[float]) -> None:
    now, taken = 0.0, 0
    buckets = Buckets(per_minute, clock=lambda: now)
    for pause in pauses:
        now += pause
        wait = buckets.take("ann")
        taken += wait == 0
        assert taken <= per_minute + now * per_minute / 60 + 1e-6
        if wait:
            now += wait + 1e-6
            assert buckets.take("ann") == 0, "it is let in when it was told to come back"
            taken += 1
    assert buckets.take("bob") == 0


def test_no_limit() -> None:
    assert all(Buckets(0).take("ann") == 0 for _ in range(1000))

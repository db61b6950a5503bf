"""Which scenarios are for training and which are held out. BFCL itself has no split.

The rule needs no data: a scenario's number decides, so that its four variants, and its first turn in
`bfcl-single`, fall into the same part. In each group of fifty (file system, vehicle, trading, travel) 30 are for
training, 10 for validation and 10 for testing. Scenarios that have a starting state of their main API, a first
message or a solution in common with another one are all for training: held-out scenarios are unlike any other.
"""

import hashlib
from functools import cache

from tutelage.types import Split

GROUPS = {"file system": range(50), "vehicle": range(50, 100), "trading": range(100, 150), "travel": range(150, 200)}
HELD_OUT = 10
"""Scenarios per group in each of the held-out parts."""
ALIKE = (
    (40, 43),  # the first message
    (53, 87),  # the state of the car; so on to 83
    (56, 59),
    (60, 65, 66, 70, 72, 74, 75),
    (63, 83),
    (76, 77),
    (100, 104, 133),  # the trading account; so on to 144
    (105, 147),
    (111, 142),
    (113, 114, 144),
    (120, 124),  # the solution
)


@cache
def numbers(split: Split) -> tuple[int, ...]:
    """The scenarios of a split, in order."""
    return tuple(number for number, part in _parts().items() if part is split)


@cache
def _parts() -> dict[int, Split]:
    alike = {number for group in ALIKE for number in group}
    parts = dict.fromkeys(range(200), Split.TRAIN)
    for group in GROUPS.values():
        drawn = sorted(set(group) - alike, key=_draw)
        parts |= dict.fromkeys(drawn[:HELD_OUT], Split.TEST)
        parts |= dict.fromkeys(drawn[HELD_OUT : 2 * HELD_OUT], Split.VALIDATION)
    return parts


def _draw(number: int) -> bytes:
    return hashlib.sha256(f"bfcl scenario {number}".encode()).digest()

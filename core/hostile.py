"""Whether a regular expression can be made to read a text over and over by whoever writes the text."""

import re
import time
from functools import cache

_PLAIN = re.compile(r"[^\\\[\](){}*+?.|^$]+")
"""Parts of a regular expression that stand for themselves, as far as can be told without parsing it."""
_UNITS = ("a", "0", " ", "-", "_", ".", "a ", "a0", "aA", "a-", "a.", "a@", "a@a.", "a,", "/", "\n", "\\", '"', "é")
_ENDS = ("", "!", "\x00")
"""What a text ends in that the pattern has matched up to there."""
_SIZES = (*range(10, 34, 2), 48, 64, 96, 128, 256, 512, 1000)
"""In small steps where the time may double with every character, so that the last one takes bearably longer."""
_SMALL, _LARGE = 8000, 32_000
"""Long enough that a quadratic time stands out from the slack on a fast machine too."""
_MOST_SECONDS, _MOST_GROWTH, _SLACK_SECONDS = 0.05, 8.0, 0.005
"""Of this thread's processor time: for a short text; of four times the text over once the text; and what is not told
from nothing."""


@cache
def hostile_text(pattern: re.Pattern[str]) -> str:
    """What a text repeats on which the time grows faster than the text; empty if nothing that is tried does so."""
    parts = _PLAIN.findall(pattern.pattern)
    for unit in dict.fromkeys([*parts, *(char for part in parts for char in part), *_UNITS]):
        for end in _ENDS:
            if _grows(pattern, unit, end):
                return unit
    return ""


def _grows(pattern: re.Pattern[str], unit: str, end: str) -> bool:
    if any(_seconds(pattern, unit, end, size) > _MOST_SECONDS for size in _SIZES):
        return True
    small, large = (_seconds(pattern, unit, end, size) for size in (_SMALL, _LARGE))
    if large <= _MOST_GROWTH * small + _SLACK_SECONDS:
        return False
    # Once more, at its best: something else may have been in the way.
    small, large = (min(_seconds(pattern, unit, end, size) for _ in range(3)) for size in (_SMALL, _LARGE))
    return large > _MOST_GROWTH * small + _SLACK_SECONDS


def _seconds(pattern: re.Pattern[str], unit: str, end: str, size: int) -> float:
    text = (unit * (size // len(unit) + 1))[:size] + end
    start = time.thread_time()
    for _ in pattern.finditer(text):
        pass
    return time.thread_time() - start

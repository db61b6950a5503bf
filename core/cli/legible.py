"""Text from outside as a terminal may show it."""

import unicodedata
from typing import TextIO

_ALLOWED = "\n\t"
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What makes a reader see a line in another order than it is written."""


def legible(text: str) -> str:
    """`text` with a mark in place of each character that a terminal would obey rather than show."""
    return "".join("\ufffd" if _obeyed(char) else char for char in text)


def tell(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print text that somebody else wrote; to stdout, as `print` does."""
    print(legible(text), file=file, flush=flush)


def _obeyed(char: str) -> bool:
    return char in _TURNING or (unicodedata.category(char) == "Cc" and char not in _ALLOWED)

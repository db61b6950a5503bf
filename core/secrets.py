"""Taking secrets out of what is shown or written down."""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

SECRET = "[secret]"
"""What stands in a secret's place."""

Span = tuple[int, int, str]
"""From, to, and what comes in its place."""

_KEY = re.compile(r"(?i)\b(?:sk|pk|gsk|xai|hf|ghp|gho|glpat)[-_]([\w\-*.]{6,})")
"""A key by its usual beginning, if there is a digit or a star in its rest. Whether there is one is asked after the
match: a look ahead for it would read the rest of the text anew from every beginning in it."""
_KEY_LIKE = re.compile(
    r"""(?ix)
    \bkey[-_](?=[a-z]*\d)[a-z0-9*]{12,}      # `key_columns` is none
    | \bbearer\s+(?=\S{12,}|\S*\d)\S+        # nor is `the bearer of`
    | (?-i:\bAIza[\w-]{20,} | \bAKIA[A-Z0-9]{12,})
    | (?<=://)[^\s/:@]*:[^\s/]+(?=@)         # user:password in an address
    """
)
_DIGIT_OR_STAR = re.compile(r"[\d*]")
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|passwd|authorization)$")
_SHORTEST, _SHORTEST_WITH_DIGIT = 12, 8
"""Characters of a value of the environment that counts as a secret. Shorter ones are ordinary words, such as the
``none`` or ``ollama`` that a local server wants for a key, and words must stay in what an agent reads."""


def without_secrets(text: str) -> str:
    """`text` without what looks like a key, and without the values of variables of this process that are named like
    one and are no mere words: at least 12 characters, or 8 with a digit among them."""
    for value in sorted(_environment(), key=len, reverse=True):
        text = text.replace(value, SECRET)
    return replaced(text, ((start, end, SECRET) for start, end in _keys(text)))


def replaced(text: str, spans: Iterable[Span]) -> str:
    """The text with these spans replaced; of overlapping ones the earliest, and of those the longest."""
    parts, at = [], 0
    for start, end, put in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= at and end > start:
            parts += [text[at:start], put]
            at = end
    return "".join([*parts, text[at:]])


def secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """From where to where there is what `without_secrets` takes out."""
    yield from _keys(text)
    for value in _environment():
        at = text.find(value)
        while at >= 0:
            yield at, at + len(value)
            at = text.find(value, at + len(value))


def cleaned(value: Any) -> Any:
    """A JSON value without secrets: every text in it, and whole texts under a name like ``api_key``."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {
            name: SECRET if isinstance(item, str) and _SECRET_NAME.search(str(name)) else cleaned(item)
            for name, item in value.items()
        }
    return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _keys(text: str) -> Iterator[tuple[int, int]]:
    for match in _KEY.finditer(text):
        if _DIGIT_OR_STAR.search(match[1]):
            yield match.span()
    for match in _KEY_LIKE.finditer(text):
        yield match.span()


def _environment() -> set[str]:
    return {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and _no_word(value)}


def _no_word(value: str) -> bool:
    return len(value) >= (_SHORTEST_WITH_DIGIT if any(map(str.isdigit, value)) else _SHORTEST)

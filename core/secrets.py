"""Taking secrets out of what is shown or written down."""

import os
import re
from typing import Any

SECRET = "[secret]"
"""What stands in a secret's place."""

KEY_LIKE = re.compile(
    r"""(?ix)
    \b(?:sk|pk|gsk|xai|hf|ghp|gho|glpat)[-_](?=[\w\-*.]*[\d*])[\w\-*.]{6,}  # keys by their usual beginnings
    | \bkey[-_](?=[a-z]*\d)[a-z0-9*]{12,}    # `key_columns` is none
    | \bbearer\s+(?=\S{12,}|\S*\d)\S+        # nor is `the bearer of`
    | (?-i:\bAIza[\w-]{20,} | \bAKIA[A-Z0-9]{12,})
    | (?<=://)[^\s/:@]+:[^\s/@]+(?=@)        # user:password in an address
    """
)
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|passwd|authorization)$")
_SHORTEST, _SHORTEST_WITH_DIGIT = 12, 8
"""Characters of a value of the environment that counts as a secret. Shorter ones are ordinary words, such as the
``none`` or ``ollama`` that a local server wants for a key, and words must stay in what an agent reads."""


def without_secrets(text: str) -> str:
    """`text` without what looks like a key, and without the values of variables of this process that are named like
    one and are no mere words: at least 12 characters, or 8 with a digit among them."""
    for value in sorted(_environment(), key=len, reverse=True):
        text = text.replace(value, SECRET)
    return KEY_LIKE.sub(SECRET, text)


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


def _environment() -> set[str]:
    return {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and _no_word(value)}


def _no_word(value: str) -> bool:
    return len(value) >= (_SHORTEST_WITH_DIGIT if any(map(str.isdigit, value)) else _SHORTEST)

"""Whether a text says something that can only come from a judge's hint.

No role but the judge is shown a hint, so this should never find anything; it is what still holds if a hint gets
out by a way that nobody thought of. It looks at wording: a hint that is retold in other words is not recognised.
"""

import re
import unicodedata
from collections.abc import Iterator

from tutelage.designs import Hint

SHARED_WORDS = 4
"""So many words in a row, the same in the hint and in the text and nowhere in public, are a repetition."""

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"([^"\n]{3,200})"|`([^`\n]{3,200})`|(?<!\w)\'([^\'\n]{3,200})\'(?!\w)')
_TOKEN = re.compile(r"\w+(?:[-./:@]\w+)*")
_IDENTIFIER = re.compile(r"\d.|.\d|_|[a-z][A-Z]|...[./:@]|[./:@]...")
"""What a number of two characters or more, an identifier, a file name or an address has and a common word has not. A
lone digit counts things and says little."""


def overlaps(text: str, hint: Hint, public: str) -> bool:
    """Whether `text` repeats words in a row, or a rare token, that `hint` has and `public` has not.

    Args:
        public: what the author of `text` may have seen: goal and transcript.
    """
    secret = hint.reveal()
    told, said, known = _words(secret), _words(text), f" {' '.join(_words(public))} "
    if any(f" {' '.join(stretch)} " not in known for stretch in _shared(told, said)):
        return True
    spoken = f" {' '.join(said)} "
    tokens = (f" {' '.join(words)} " for token in _rare(secret) if (words := _words(token)))
    return any(token in spoken and token not in known for token in tokens)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _shared(told: list[str], said: list[str]) -> Iterator[list[str]]:
    """The longest stretches of at least `SHARED_WORDS` words that both have."""
    places: dict[str, list[int]] = {}
    for at, word in enumerate(told):
        places.setdefault(word, []).append(at)
    for start, word in enumerate(said):
        for at in places.get(word, ()):
            if start and at and said[start - 1] == told[at - 1]:
                continue  # within a stretch that began before
            length = 1
            while said[start + length : start + length + 1] == told[at + length : at + length + 1] != []:
                length += 1
            if length >= SHARED_WORDS:
                yield said[start : start + length]


def _rare(text: str) -> Iterator[str]:
    """Quoted texts and what looks like an identifier or a number."""
    for match in _QUOTED.finditer(text):
        yield next(part for part in match.groups() if part)
    yield from (token for token in _TOKEN.findall(text) if _IDENTIFIER.search(token))

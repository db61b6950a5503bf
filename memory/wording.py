"""What a statement says, word by word: literals, limits, and for each word whether it is asserted or denied."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tutelage.memory.lexicon import (
    ARTICLES,
    DANGLING,
    DUTY,
    FILLERS,
    IDLE,
    MARKERS,
    MOVABLE,
    NEGATORS,
    NUMBERS,
    ORDERING,
    PARTICLES,
    PASSIVE,
    PHRASES,
    PREPOSITIONS,
    SUBORDINATORS,
    SYNONYMS,
)

_LITERAL = re.compile(
    r""""(?:[^"\\]|\\.)*"            # a quoted text
    |\{\w*\}|\*                     # a slot
    |https?://[^\s,;]+\w
    |(?<![\w'])'[^'\n]{1,200}'(?!\w)|`[^`\n]+`
    |(?<![\w.])[-+]?[$€£]?\d+(?:[.,:/-]\d+)*%?(?:st|nd|rd|th|[a-z]{1,3})?(?!\w)
    |/?(?:[\w.-]+/)+[\w.-]*\w|\w+(?:[._@-]\w+)*[._@]\w+
    |[A-Za-z]+\d\w*|\w+\((?:[^()]|\([^()]*\))*\)
    |(?<=[a-z,]\ )[A-Z](?![\w'])         # a key, an option
    |(?<!\w)-+(?!\w)|[^\w\s,;:.!?()'"`-]+  # a sign""",
    re.VERBOSE,
)
_PIECE = re.compile(r"\x00\d+\x00|[a-z]+(?:-[a-z]+)*|[^\W\d_a-z]+|[,;:.!?()]")
_STOPS = frozenset(",;:.!?()")
_PLACE = "\x00"
"""Stands for a literal while the words are read."""
_LEADING = re.compile(rf"^\s*((?:{'|'.join(sorted(SUBORDINATORS))})\b[^,;.]*),\s*(.+?)([.!]?)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Word:
    """One word that counts."""

    text: str
    """Without its inflection, or the literal as it stands."""
    denied: bool = False
    aside: bool = False
    """Whether it belongs to a circumstance (`if …`, `before …`)."""


@dataclass(frozen=True)
class Statement:
    """A text as what has to agree before it is taken for another."""

    words: tuple[Word, ...]
    """Words, limits and literals in order; circumstances and movable adverbs last."""
    literals: tuple[str, ...]
    markers: tuple[str, ...]
    """Both sorted."""
    ordered: bool
    """Whether the words' order counts even where the wording is passive."""
    passive: bool
    prepositions: tuple[str, ...]
    """Sorted, as far as they say anything."""


@lru_cache(maxsize=65536)
def read(text: str) -> Statement:
    """Read a statement; any text is one."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("\x00", " ")
    moved = _LEADING.match(text)
    if moved:
        text = f"{moved[2]} {moved[1]}"
    literals: list[str] = []

    def keep(match: re.Match[str]) -> str:
        literals.append(" ".join(match[0].split()))
        return f" \x00{len(literals) - 1}\x00 "

    plain = " ".join(_LITERAL.sub(keep, text).lower().split())
    for pattern, put in PHRASES:
        plain = pattern.sub(put, plain)
    passive = PASSIVE.search(plain) is not None
    pieces = _PIECE.findall(plain)
    found = list(_words(pieces, literals))
    values = sorted(word.text for word in found if word.text.startswith("="))
    return Statement(
        words=tuple(sorted(found, key=lambda word: word.text[1:] in MOVABLE)),
        literals=tuple(values),
        markers=tuple(sorted(word.text for word in found if word.text.startswith("~"))),
        ordered=len(values) > 1 or not ORDERING.isdisjoint(pieces),
        passive=passive,
        prepositions=tuple(sorted(_prepositions(pieces))),
    )


def _prepositions(pieces: list[str]) -> Iterator[str]:
    for before, piece in pairwise(["", *pieces]):
        if piece in PREPOSITIONS and before not in IDLE.get(piece, ()) and "there" not in pieces:
            yield piece


def _words(pieces: list[str], literals: list[str]) -> Iterator[Word]:
    """Literals begin with ``=``, limits with ``~``; a negation with nothing to deny is one of these."""
    denied = aside = idle = False
    before = ""
    for piece, after in pairwise([*pieces, ".", "."]):
        ends = piece in _STOPS or piece in SUBORDINATORS
        resets = ends or piece in DUTY or MARKERS.get(piece) == "but"
        if denied and idle and resets:
            yield Word("~not", aside=aside)
        if resets:
            denied, aside = False, piece in SUBORDINATORS or (aside and not ends)
        elif piece in NEGATORS:
            denied = idle = piece == "nor" or not denied
        text = _text(piece, before, after, literals)
        if text:
            yield Word(text, denied and not text.startswith("~"), aside)
            idle = idle and text.startswith("~")
        before = piece


def _text(piece: str, before: str, after: str, literals: list[str]) -> str:
    """What a piece counts as; empty if it does not, or has been counted with the one before it."""
    if piece.startswith(_PLACE):
        return f"={literals[int(piece.strip(_PLACE))]}"
    if piece == "?":
        return "~?"
    if piece in NUMBERS:
        return f"={NUMBERS[piece]}"
    if piece in MOVABLE and before not in ARTICLES:
        return f"~{piece}"
    if piece in MARKERS:
        return f"~{MARKERS[piece]}"
    base = stem(piece)
    if piece in _STOPS or piece in NEGATORS or piece in DUTY or piece in PARTICLES.get(stem(before), ()):
        return ""
    if after in PARTICLES.get(base, ()):
        base = f"{base}-{after}"
    elif (piece in FILLERS and not (piece in DANGLING and after in _STOPS)) or (
        base == "time" and (before in NUMBERS or before.startswith(_PLACE))
    ):
        return ""
    return _SAME.get(base, base)


def stem(word: str) -> str:
    """Without its inflection: steps 1a, 1b and 5a of Porter (1980), which leave `file` and `fill` two words."""
    if word.endswith("sses") or re.search(r"(?:x|ch|sh|zz)es$", word):
        word = word[:-2]
    elif word.endswith("ies") and len(word) > 4:
        word = f"{word[:-3]}y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ied", "ed", "ing"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 1 and re.search("[aeiouy]", rest) and not word.endswith("eed"):
            word = f"{rest}y" if ending == "ied" else _mended(rest)
            break
    if word.endswith("e") and (_measure(word[:-1]) > 1 or (_measure(word[:-1]) == 1 and not _short(word[:-1]))):
        word = word[:-1]
    return word


def _mended(rest: str) -> str:
    if rest.endswith(("at", "bl", "iz")):
        return f"{rest}e"
    if rest[-1:] == rest[-2:-1] and rest[-1] not in "aeioulsz":
        return rest[:-1]
    return f"{rest}e" if _measure(rest) == 1 and _short(rest) else rest


def _measure(text: str) -> int:
    """How often a consonant follows a vowel."""
    return len(re.findall(r"[aeiouy]+[^aeiouy]+", text))


def _short(text: str) -> bool:
    return re.search(r"(?:^|[^aeiouy])[aeiouy][^aeiouwxy]$", text) is not None


_SAME = {stem(word): stem(group) for word, group in SYNONYMS.items()}

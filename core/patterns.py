"""The small pattern language of guardrails and skills, and goals with slots instead of literals.

A pattern is literal text in which ``*`` stands for anything (also nothing), ``{goal}`` for a text that
occurs in the goal (case-sensitive, whole words) and ``{other}`` for one that does not. It covers the
whole text. Slots never reach across a double quote, so ``"{goal}"`` is one quoted name. Patterns come
from models and pages: they are matched position by position, never handed to a regex engine, so that
the cost is bounded by the limits below whatever they say.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import inf

MAX_PATTERN = 400
MAX_WILDCARDS = 16
MAX_TEXT = 1000
"""Characters; a longer text matches nothing, unless `fits` is asked."""
MAX_WORK = 200_000
"""Characters that `fits` looks at in a longer text, as often as it comes by them, where slots have to be tried."""
MAX_SLOTS = 8
"""Slots that `slotted` makes at most; ``*`` stands for the rest."""

GOAL, OTHER, ANY = "{goal}", "{other}", "*"

_TOKEN = re.compile(r"\{goal\}|\{other\}|\*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_TEXT = r'"(?P<text>[^"]+)"'
_PHRASES = r"""(?:(?<=\bSelect\ )|(?<=\btick\ ))(?:words\ similar\ to\ )?
        (?P<list>\S.*?)(?=\ and\ (?:click|press|hit)\b|\ (?:from|in|as|then)\ |\.?$)
    |(?:(?<=\bwrite\ )|(?<=\bas\ name\ and\ ))(?P<text2>\S.*?)(?=\ (?:as|then)\ )
    |(?<=\Apress\ )(?P<text3>.+)\Z"""
"""Texts that only the wording around them shows to be values."""
_LITERALS = r"""(?P<date>\b\d{1,4}[/-]\d{1,2}[/-]\d{1,4}\b)
    |(?P<time>\b\d{1,2}:\d{2}(?:\s?[AP]M)?\b)
    |(?<![\w@./'-])(?!and/or\b|[A-Za-z]\.[A-Za-z]\b)(?P<file>/?(?:[\w-][\w.-]*/)+(?:[\w-]+(?:\.[\w-]+)*)?
        |[\w-]+(?:\.[\w-]+)*\.[A-Za-z][A-Za-z0-9]{0,4}(?![\w@]))
    |(?P<number>(?<!\w)[-$]?\d+(?:[.,]\d+)*(?:st|nd|rd|th)?(?!\w))
    |(?P<name>(?<!\w)@\w+|(?<=[a-z,:]\ )(?!(?:Submit|Search|Login|Cancel|OK|Close|Tab|Enter|Next|Book|Order)\b)
        [A-Z][\w'-]*(?:\ [A-Z][\w'-]*)*)
    |(?<![\w'])'(?P<text4>[^']{2,})'(?!\w)
    |(?P<name2>(?<!\w)[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+(?!\w))"""
_SLOTS = re.compile(f"{_TEXT}|{_PHRASES}|{_LITERALS}", re.VERBOSE)
_VALUES = re.compile(f"{_TEXT}|{_LITERALS}", re.VERBOSE)
_CONTROLS = frozenset(
    [
        "submit",
        "search",
        "login",
        "cancel",
        "ok",
        "close",
        "enter",
        "next",
        "previous",
        "book",
        "order",
        "send",
        "save",
        "done",
    ]
)
"""Names of buttons that goals mention as fixed wording (``… and click Submit``)."""


@lru_cache(maxsize=4096)
def _tokens(pattern: str) -> tuple[str, ...]:
    """The pattern cut into literals and wildcards; empty literals left out."""
    tokens, at = [], 0
    for match in _TOKEN.finditer(pattern):
        tokens += [pattern[at : match.start()], match.group()]
        at = match.end()
    return tuple(token for token in [*tokens, pattern[at:]] if token)


@lru_cache(maxsize=4096)
def problem(pattern: str) -> str:
    """Why `pattern` is not usable, in one sentence; empty if it is. An unusable one matches nothing."""
    tokens = _tokens(pattern)
    wild = [token in (GOAL, OTHER, ANY) for token in tokens]
    if not pattern.strip():
        return "the pattern is empty"
    if len(pattern) > MAX_PATTERN:
        return f"the pattern has {len(pattern)} characters; the limit is {MAX_PATTERN}"
    if sum(wild) > MAX_WILDCARDS:
        return f"the pattern has {sum(wild)} wildcards; the limit is {MAX_WILDCARDS}"
    if any(a and b for a, b in pairwise(wild)):
        return "two wildcards stand side by side; put literal text such as a quote between them"
    return ""


def occurs(text: str, goal: str) -> bool:
    """Whether `text` stands in `goal` as whole words, as it is or with its JSON escapes read."""
    return any(_stands(form, goal) for form in {text, _unescape(text)} if form.strip())


def matches(pattern: str, text: str, goal: str) -> bool:
    """Whether the whole of `text` fits `pattern`; never raises."""
    if problem(pattern) or len(text) > MAX_TEXT:
        return False
    return bool(_reaches_end(_tokens(pattern), text, goal, inf))


def fits(pattern: str, text: str, goal: str) -> bool | None:
    """As `matches`, for a text of any length; None if it is too long to tell, and fits with anything in the slots."""
    if len(text) <= MAX_TEXT or problem(pattern):
        return matches(pattern, text, goal)
    tokens = _tokens(pattern)
    if not _fits_loosely(tokens, text):
        return False
    return _reaches_end(tokens, text, goal, MAX_WORK) if {GOAL, OTHER} & set(tokens) else True


def generalise(text: str, goal: str) -> str:
    """`text` with each quoted literal that occurs in the goal replaced by ``{goal}``.

    The goal's fixed wording stays: what it says outside of its values where it has any (``as name``),
    and the usual button names (``… and click Submit``).
    """
    values = [value for _, value in goal_values(goal)]
    wording = goal_template(goal) if values else ""

    def slot(match: re.Match[str]) -> str:
        literal = match[1]
        fixed = literal.casefold() in _CONTROLS or occurs(literal, wording)
        wanted = any(occurs(literal, value) for value in values) or (occurs(literal, goal) and not fixed)
        return f'"{GOAL}"' if wanted else match[0]

    return _QUOTED.sub(slot, text)


def slotted(text: str, goal: str, *, among: Sequence[str] | None = None) -> str:
    """A pattern for `text` with ``{goal}`` and ``{other}`` in the place of its literals; empty if there is none.

    Literals are the values that `goal` names, and what looks like one: quoted texts, file names, numbers, names.

    Args:
        among: texts. Given, every word that occurs in one of them counts as a literal too, and what occurs neither
            there nor in the goal stays as it is.
    """
    spans = _literal_spans(text, goal)
    if among is not None:
        spans = [(a, b) for a, b in spans if any(occurs(text[a:b], told) for told in (goal, *among))]
        words = (match.span() for match in re.finditer(r"[^\W\d]\w*", text))
        told = [(a, b) for a, b in words if any(occurs(text[a:b], other) for other in among)]
        spans = sorted(spans + [word for word in told if not _overlapping(word, spans)])
    pattern, at = "", 0
    for start, end in spans[:MAX_SLOTS]:
        pattern += text[at:start] + (GOAL if occurs(text[start:end], goal) else OTHER)
        at = end
    rest = text[at : spans[MAX_SLOTS][0]] + ANY if len(spans) > MAX_SLOTS else text[at:]
    return _fitting(pattern + rest, text, goal)


def goal_template(goal: str) -> str:
    """`goal` with ``{text}``, ``{list}``, ``{file}``, ``{date}``, ``{time}``, ``{number}`` and ``{name}`` instead of
    literals."""
    return _SLOTS.sub(lambda match: _fill(match, "{" + _slot(match) + "}"), goal)


def goal_values(goal: str) -> tuple[tuple[str, str], ...]:
    """The literals that `goal_template` replaces: (slot name, value), in order."""
    return tuple((_slot(match), match[str(match.lastgroup)]) for match in _SLOTS.finditer(goal))


def _literal_spans(text: str, goal: str) -> list[tuple[int, int]]:
    """Where the literals of `text` stand, in order and apart from each other; the goal's values go first."""
    named = sorted({value for _, value in goal_values(goal) if value.strip()}, key=len, reverse=True)
    spans: list[tuple[int, int]] = []
    if named:
        whole = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, named)) + r")(?!\w)")
        spans = [match.span() for match in whole.finditer(text)]
    for match in _VALUES.finditer(text):
        start, end = match.span(str(match.lastgroup))
        if match.lastgroup == "text" and _is_key(text, start - 1, end + 1):
            continue
        inside = _overlapping((start, end), spans)
        if not inside:
            spans += [(start, end)] if text[start:end].strip() else []
        elif "/" in text[start:end]:  # a path that begins or ends with what the goal names
            parts = (part.span() for part in re.finditer(r"[^/]+", text[start:end]))
            places = [(start + left, start + right) for left, right in parts]
            spans += [place for place in places if not _overlapping(place, inside)]
    return sorted(spans)


def _overlapping(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [other for other in others if other[0] < span[1] and span[0] < other[1]]


def _is_key(text: str, start: int, end: int) -> bool:
    """Whether the quoted text from `start` to `end` is a key of a JSON object."""
    return text[:start].rstrip().endswith(("{", ",")) and text[end:].lstrip().startswith(":")


def _fitting(pattern: str, text: str, goal: str) -> str:
    return pattern if matches(pattern, text, goal) else ""


def _slot(match: re.Match[str]) -> str:
    return str(match.lastgroup).rstrip("234")


def _fill(match: re.Match[str], filler: str) -> str:
    """The matched text with the value in it replaced; quotes and lead-in stay."""
    start, end = (at - match.start() for at in match.span(str(match.lastgroup)))
    return match[0][:start] + filler + match[0][end:]


def _reaches_end(tokens: Sequence[str], text: str, goal: str, work: float) -> bool | None:
    """Whether the whole of `text` fits; None if finding that out is more work than this."""
    if any(token not in text for token in tokens if token not in (GOAL, OTHER, ANY)):
        return False
    reached = {0}
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if token == ANY:
            work -= len(text)
            reached = set(range(min(reached), len(text) + 1))
        elif token in (GOAL, OTHER):
            reached, work = _after_slot(text, reached, following, goal, work, wanted=token == GOAL)
        else:
            reached = {at + len(token) for at in reached if text.startswith(token, at)}
        if work < 0:
            return None
        if not reached:
            return False
    return len(text) in reached


def _fits_loosely(tokens: Sequence[str], text: str) -> bool:
    """Whether `text` fits with anything in the place of slots too: each literal where it first can stand."""
    at, loose = 0, False
    for index, token in enumerate(tokens):
        if token in (GOAL, OTHER, ANY):
            loose = True
            continue
        if index == len(tokens) - 1:
            place = len(text) - len(token) if text.endswith(token) else -1
        else:
            place = text.find(token, at)
        if place < at or (place > at and not loose):
            return False
        at, loose = place + len(token), False
    return loose or at == len(text)


def _after_slot(
    text: str, starts: set[int], following: str | None, goal: str, work: float, *, wanted: bool
) -> tuple[set[int], float]:
    """Positions at which a slot that begins at one of `starts` may end, and what is left of `work`."""
    ends = set[int]()
    for start in starts:
        end = start
        while end < len(text) and text[end] != '"' and work >= 0:
            work -= 1
            end = min(end + (2 if text[end] == "\\" else 1), len(text))
            ready = end == len(text) if following is None else text.startswith(following, end)
            if ready and end not in ends:
                work -= end - start
                if text[start:end].strip() and occurs(text[start:end], goal) is wanted:
                    ends.add(end)
    return ends, work


def _stands(text: str, goal: str) -> bool:
    at = goal.find(text)
    while at >= 0:
        before, after = goal[at - 1 : at], goal[at + len(text) : at + len(text) + 1]
        if not (_wordy(before) and _wordy(text[0])) and not (_wordy(after) and _wordy(text[-1])):
            return True
        at = goal.find(text, at + 1)
    return False


def _wordy(character: str) -> bool:
    return character.isalnum() or character == "_"


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text

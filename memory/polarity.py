"""Whether two experiences say the same, the opposite, or something else. Decided by rule; nearness is no evidence.

Embeddings place "always confirm the order id" beside "never confirm the order id". Before two experiences become
one, their scope, their patterns and literals, what limits them, and who is denied what have to agree, and every word
that is not known to mean the same. What only a reader could tell is *unclear*; of that, code rules out what would
change a literal, a limit or the polarity, so that no reader can merge it by mistake.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from tutelage.experience import Experience, Guardrail, Skill, Sticker
from tutelage.memory.lexicon import ANTONYMS, DESCRIBES, ORDERS
from tutelage.memory.wording import Statement, Word, read, stem


class Agreement(StrEnum):
    """How two statements go together."""

    SAME = "same"
    OPPOSITE = "opposite"
    """The same with its polarity turned round; both cannot be right."""
    OTHER = "other"
    """They differ in something that counts; never merged, by nobody."""
    UNCLEAR = "unclear"
    """Other words; a reader may tell."""


class Finding(NamedTuple):
    """An agreement with its reason, which is one of few fixed phrases."""

    agreement: Agreement
    reason: str = ""
    mergeable: bool = False
    """Of what is unclear: whether a reader may call it the same."""


SAME = Finding(Agreement.SAME, "the same in all that counts", True)

_PLACE = ("tenant", "environment", "family", "kind")
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_PREFIXES = ("un", "dis", "de", "non", "in")
_OPPOSED = frozenset(
    frozenset((stem(first), stem(second))) for first, second in ANTONYMS if stem(first) != stem(second)
) | frozenset(frozenset(pair) for pair in (("~before", "~after"),))
_PARTICLES = frozenset(frozenset(pair) for pair in (("on", "off"), ("in", "out"), ("up", "down")))


def agreement(first: Experience, second: Experience) -> Finding:
    """How two experiences go together."""
    for name in _PLACE:
        if getattr(first, name) != getattr(second, name):
            return Finding(Agreement.OTHER, f"another {name}")
    goal = statements(first.goal, second.goal)
    if goal.agreement is not Agreement.SAME:
        return _no_contradiction(goal, "another goal")
    match first.content, second.content:
        case Skill() as one, Skill() as other:
            return _skills(one, other)
        case Guardrail() as one, Guardrail() as other:
            return _guardrails(one, other)
        case Sticker() as one, Sticker() as other:
            question = _no_contradiction(statements(one.question, other.question), "another question")
            return _worst([_lists(one.conditions, other.conditions), question])
    raise AssertionError("content of the same kind has the same type")


@lru_cache(maxsize=65536)
def statements(first: str, second: str) -> Finding:
    """How two texts go together."""
    if first == second:
        return SAME
    one, other = read(first), read(second)
    if not (one.words and other.words):
        return Finding(Agreement.UNCLEAR, "hardly a word")
    if one.literals != other.literals:
        return Finding(Agreement.OTHER, "other literals")
    only_one, only_other = (_left(a, b) for a, b in ((one, other), (other, one)))
    pairs = _opposed_pairs(only_one, only_other)
    for a, b in pairs:
        only_one.remove(a)
        only_other.remove(b)
    rest = [*only_one, *only_other]
    if any(word.text.startswith("~") for word in rest):
        return Finding(Agreement.OTHER, "other limits")
    turned = _denied(one) != _denied(other)
    if rest:
        sound = not pairs and sum(_denied(one).values()) == sum(_denied(other).values())
        return Finding(Agreement.UNCLEAR, "other words", mergeable=sound)
    flips = [(a.aside or b.aside) and not a.text.startswith("~") for a, b in pairs] + _turned(one, other) * turned
    if not flips:
        if not _same_order(one, other):
            return Finding(Agreement.OTHER, "another order")
        alike = one.prepositions == other.prepositions
        return SAME if alike else Finding(Agreement.UNCLEAR, "other prepositions", mergeable=True)
    if len(flips) > 1:
        return Finding(Agreement.UNCLEAR, "several opposites")
    waits = "~until" in one.markers  # "not until" says when, not that it must not be
    if flips[0] or waits or not _same_order(one, other, {a.text: b.text for a, b in pairs}):
        return Finding(Agreement.OTHER, "another circumstance")
    return Finding(Agreement.OPPOSITE, "opposite polarity")


def _skills(one: Skill, other: Skill) -> Finding:
    if len(one.procedure) != len(other.procedure):
        return Finding(Agreement.OTHER, "another procedure")
    steps = [_pattern_or_text(*pair) for pair in zip(one.procedure, other.procedure, strict=True)]
    return _worst(
        [
            *steps,
            _lists(one.preconditions, other.preconditions),
            _no_contradiction(_lists(one.verification, other.verification), "another verification"),
        ]
    )


def _guardrails(one: Guardrail, other: Guardrail) -> Finding:
    if _call(one.forbidden) != _call(other.forbidden) or {*one.trigger} != {*other.trigger}:
        return Finding(Agreement.OTHER, "another rule")
    # The rule in code is the same; why and what instead are words to its reader.
    cause = statements(one.root_cause, other.root_cause)
    return _worst([statements(one.remedy, other.remedy), _no_contradiction(cause, "another cause")])


def _pattern_or_text(first: str, second: str) -> Finding:
    if _CALL.fullmatch(first.strip()) or _CALL.fullmatch(second.strip()):
        return SAME if _call(first) == _call(second) else Finding(Agreement.OTHER, "another procedure")
    return statements(first, second)


def same_pattern(first: str, second: str) -> bool:
    """Whether two patterns over actions are one, however their arguments are written."""
    return _call(first) == _call(second)


def _call(text: str) -> str:
    """A pattern of an action, with the arguments of a tool in one order."""
    match = _CALL.fullmatch(text.strip())
    try:
        return f"{match[1]}({json.dumps(json.loads(match[2]), sort_keys=True)})" if match else " ".join(text.split())
    except ValueError:
        return " ".join(text.split())


def _lists(first: Sequence[str], second: Sequence[str]) -> Finding:
    """Two sets of lines; each line of one is paired with the line of the other that is nearest to saying the same."""
    left, right = list(first), list(second)
    found = [SAME]
    for wanted in (Agreement.SAME, Agreement.OPPOSITE, Agreement.UNCLEAR):
        for line in list(left):
            match = next((other for other in right if statements(line, other).agreement is wanted), None)
            if match is not None:
                left.remove(line)
                right.remove(match)
                if wanted is Agreement.OPPOSITE and _describes(line) and _describes(match):
                    found.append(Finding(Agreement.OTHER, "another situation"))
                else:
                    found.append(statements(line, match))
    for line in (*left, *right):
        said = read(line)
        plain = not said.literals and not said.markers and not any(word.denied for word in said.words)
        if left and right:
            found.append(Finding(Agreement.OTHER, "other lines"))
        else:
            found.append(Finding(Agreement.UNCLEAR if plain else Agreement.OTHER, "further lines", mergeable=plain))
    return _worst(found)


def _describes(line: str) -> bool:
    return DESCRIBES.search(line) is not None and ORDERS.search(line) is None


def _worst(found: Iterable[Finding]) -> Finding:
    """What two wholes are by what their parts are."""
    parts = list(found)
    for wanted in (Agreement.OTHER, Agreement.OPPOSITE):
        for part in parts:
            if part.agreement is wanted:
                return part
    unclear = [part for part in parts if part.agreement is Agreement.UNCLEAR]
    return min(unclear, key=lambda part: part.mergeable, default=SAME)


def _no_contradiction(found: Finding, reason: str) -> Finding:
    """Of parts whose opposites do not contradict each other, such as two goals."""
    return Finding(Agreement.OTHER, reason) if found.agreement in (Agreement.OPPOSITE, Agreement.OTHER) else found


def _left(one: Statement, other: Statement) -> list[Word]:
    """Words of one that the other has not, whether denied or not."""
    known = Counter(word.text for word in other.words)
    rest = []
    for word in one.words:
        if known[word.text]:
            known[word.text] -= 1
        else:
            rest.append(word)
    return rest


def _opposed_pairs(first: Sequence[Word], second: Sequence[Word]) -> list[tuple[Word, Word]]:
    free, pairs = list(second), []
    for word in first:
        other = next((item for item in free if opposed(word.text, item.text)), None)
        if other is not None:
            free.remove(other)
            pairs.append((word, other))
    return pairs


def opposed(first: str, second: str) -> bool:
    """Whether two words, without their inflection, are opposites."""
    if frozenset((first, second)) in _OPPOSED:
        return True
    (verb, _, particle), (verb2, _, particle2) = first.partition("-"), second.partition("-")
    if particle and verb == verb2 and frozenset((particle, particle2)) in _PARTICLES:
        return True
    return any(
        len(a) > 2 and f"{prefix}{a}" == b for prefix in _PREFIXES for a, b in ((first, second), (second, first))
    )


def _denied(statement: Statement) -> Counter[str]:
    return Counter(word.text for word in statement.words if word.denied)


def _turned(one: Statement, other: Statement) -> list[bool]:
    """Whether what is denied in one of them only belongs to a circumstance; one entry, as it is one negation."""
    differing = {*(_denied(one) - _denied(other)), *(_denied(other) - _denied(one))}
    words = [word for word in (*one.words, *other.words) if word.text in differing]
    return [any(word.aside for word in words)]


def _same_order(one: Statement, other: Statement, put: dict[str, str] | None = None) -> bool:
    """Whether the words come in one order; that of a passive wording may begin elsewhere than
    that of an active one.

    Args:
        put: words of `one` with their opposites in `other`; where it is given, what is denied does not count.
    """
    first, second = (
        [
            ((put or {}).get(word.text, word.text) if side is one else word.text, put is None and word.denied)
            for word in side.words
        ]
        for side in (one, other)
    )
    if first == second:
        return True
    if one.ordered or other.ordered or one.passive is other.passive:
        return False
    return any(first[at:] + first[:at] == second for at in range(len(first)))

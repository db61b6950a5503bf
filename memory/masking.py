"""Texts with everything masked that is not a common word, a slot or the frame of an action, a line or a known claim."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from tutelage.memory.vocabulary import KEYS, PAGE_VERBS, ROLES, known, known_name
from tutelage.patterns import ANY, GOAL, OTHER, occurs, problem
from tutelage.types import Cause

MAX_WORDS = 4
"""Common words in a row that a name may have; more of them could be a sentence."""
READS, CALLED = "The goal reads: ", "What is called in such tasks: "
INCOMPLETE = "Some steps are left out of it."
LONGEST_GOAL = 300
"""Characters."""
MAX_TARGETS = 6
"""Controls, or tools, that a sticker names."""
NO_CALL = "No tool was called yet."
"""What a tool environment shows first; its words are ours."""

CAUSES = {
    Cause.NO_EFFECT: "It changed nothing.",
    Cause.REPEATED: "It was done before in the same situation.",
    Cause.INVALID_ACTION: "It is not an action of this environment.",
    Cause.UNKNOWN_TARGET: "It names something that is not there.",
    Cause.ACTION_FAILED: "It could not be carried out.",
    Cause.WRONG_END: "It ended the task, and the task was not solved.",
}
"""Root causes by the diagnosis of the step."""

_TOKEN = re.compile(r"\{\w+\}|\*|[^\W\d_]+(?:'s)?|\d+|_|\s+|.", re.DOTALL)
SLOT = re.compile(r"\{(?:goal|other|text|list|file|date|time|number|name)\}")
_PLAIN = frozenset(" .,:;-/()?!=[]'\"")
_CALL = re.compile(r"([A-Za-z_][\w.\-]*)\((.*)\)", re.DOTALL)
STRING = r'"(?:[^"\\]|\\.)*"'
_ARGUMENT = re.compile(rf"(?:([A-Za-z_]\w*)=)?(?:([a-z]+)(?:\s+({STRING}))?|({STRING})|([^\",]+))(?:,\s*|$)")
_ATTRIBUTES = re.compile(
    rf"(?P<slot>\{{(?:goal|other)\}})|(?P<ref>\[r[\d*]+\])|(?P<attribute>\b(?:value|checked|selected|expanded|disabled)=)(?P<value>{STRING}|true|false)"
    rf"|(?P<flag>\b(?:focused|disabled|selected)\b)|(?P<name>{STRING})|(?P<word>[A-Za-z]+)|(?P<rest>[^\"\[{{A-Za-z]+|.)",
    re.DOTALL,
)
_FORMS = (
    (re.compile(r"(The goal names \d+ (?:text|list|file|date|time|number|name|value)s?\.)()()"), None),
    (re.compile(r"(The page has (?:an? )?)(\S.*?)( that the goal names\.|\.)"), "line"),
    (re.compile(r"((?:At first it shows|It already shows) )(\S.*?)(\.)"), "line"),
    (re.compile(r"(Before the last action: )(\S.*)()"), "line"),
    (re.compile(r"(Not everything is set yet: )(\S.*)(\.)"), "line"),
    (re.compile(r"()(\S.*\))( ends the task\.)"), "action"),
    (re.compile(r"(Do )(\S.*\))( instead\.)"), "action"),
    (re.compile(rf"()(\S.*\))( did not work here: (?:{'|'.join(map(re.escape, CAUSES.values()))}))"), "action"),
)
"""Forms of claims, with what stands in their middle."""
_ABOUT = re.compile(
    r"The (?:goal (?:names|gives|quotes|has)|(?:page|form|list|result) (?:has|shows|lists)) (?P<what>[A-Za-z ,]+)\."
)
_AVAILABLE = re.compile(r"([A-Za-z_][\w.\-]*) is available\.?")
_COUNTED = frozenset({"a", "an", "the", "one", "two", "three", "four", "and", "its", "of", "each", "several", "both"})


def masked(text: str, *, limit: int = MAX_WORDS) -> str:
    """`text` with ``*`` for everything but common words, slots and plain punctuation; ``*`` alone if that leaves more
    than `limit` words. As a pattern it matches whatever `text` matched."""
    parts = _masked(text)
    words = sum(part[0].isalpha() for part in parts)
    return ANY if words > limit else _tidy("".join(parts))


def masked_goal(goal: str) -> str:
    """The same for a goal, which is a sentence: of any words in a row without a slot between them, `MAX_WORDS` at most
    stay, or none."""
    made, row = [], list[str]()
    for part in [*_masked(goal), "{}"]:
        if part[0].isalpha() or part.isspace():
            row.append(part)
            continue
        long = sum(word[0].isalpha() for word in row) > MAX_WORDS
        made += [" ", ANY, " "] if long else row
        made.append(part)
        row = []
    return _tidy("".join(made[:-1]))


def _masked(text: str) -> list[str]:
    parts = []
    for token in _TOKEN.findall(text):
        plain = SLOT.fullmatch(token) or token in _PLAIN or known(token.removesuffix("'s"))
        parts.append(" " if token.isspace() else token if plain else ANY)
    return parts


def claims(texts: Iterable[str], offered: Collection[str] = ()) -> Iterator[str]:
    """Those of the texts that have one of the known forms, with their middle masked; `offered` as for an action."""
    for text in texts:
        for form, middle in _FORMS:
            match = form.fullmatch(text)
            if match is None:
                continue
            inner = (
                masked_line(match[2])
                if middle == "line"
                else masked_action(match[2], (), offered=offered)
                if middle == "action"
                else ""
            )
            if middle is None or (inner and inner.strip("* ")):
                yield f"{match[1]}{inner}{match[3]}"
            break
        else:
            told = _sentence(text, offered)
            if told:
                yield told


def _sentence(text: str, offered: Collection[str]) -> str:
    """A claim that is a sentence of common words only; empty if it is none."""
    if text.startswith(READS) and len(text) < LONGEST_GOAL:
        reads = masked_goal(text.removeprefix(READS))
        return f"{READS}{reads}" if reads.strip("* .") else ""
    if text.startswith(CALLED):
        called = text.removeprefix(CALLED).removesuffix(".").split(", ")
        return text if len(called) <= MAX_TARGETS and all(known_name(name, offered=offered) for name in called) else ""
    there = _AVAILABLE.fullmatch(text)
    if there:
        return text if known_name(there[1], offered=offered) else ""
    about = _ABOUT.fullmatch(text)
    words = re.findall(r"[A-Za-z]+", about["what"]) if about else []
    return text if text == INCOMPLETE or (words and all(known(word) or word in _COUNTED for word in words)) else ""


def masked_action(action: str, goals: Sequence[str], *, exactly: bool = False, offered: Collection[str] = ()) -> str:
    """The action with common names and slots only; empty if not even its verb is known.

    Args:
        goals: a literal value that stands in each of them becomes ``{goal}``.
        exactly: it is one to forbid: nothing may be left out, for the result must match whatever `action` matched, and
            its verb may be one that gives away or destroys.
        offered: names of tools and arguments that the environment lists.
    """
    match = _CALL.fullmatch(action.strip())
    if match is None or not (match[1] in PAGE_VERBS or known_name(match[1], prohibited=exactly, offered=offered)):
        return ""
    arguments, at = [], 0
    while at < len(match[2]):
        found = _ARGUMENT.match(match[2], at)
        if found is None or not found[0]:
            return ""
        at = found.end()
        told = _argument(*found.groups(), goals=goals, offered=offered, prohibited=exactly)
        if told:
            arguments.append(told)
        elif exactly:
            return ""
    made = f"{match[1]}({', '.join(arguments)})"
    common = match[1] in PAGE_VERBS or known_name(match[1], prohibited=exactly)
    if not (common or exactly or GOAL in action):
        return ""  # a tool of an uncommon name that takes nothing from the goal need not have been asked for
    return "" if problem(made) else made


def _argument(
    key: str | None,
    role: str | None,
    name: str | None,
    text: str | None,
    bare: str | None,
    *,
    goals: Sequence[str],
    offered: Collection[str],
    prohibited: bool,
) -> str:
    if key and not known_name(key, prohibited=prohibited, offered=offered):
        return ""
    lead = f"{key}=" if key else ""
    if role in ("true", "false", "null") and name is None:
        return f"{lead}{role}"
    if role is not None:
        if role not in ROLES:
            return f"{lead}{OTHER}" if key and name is None else ""
        return f"{lead}{role}" + (f' "{masked(name[1:-1])}"' if name is not None else "")
    if text is not None:
        return f'{lead}"{_value(text[1:-1], goals)}"'
    assert bare is not None
    return f"{lead}{bare.strip()}" if bare.strip() in (ANY, GOAL, OTHER) else f"{lead}{OTHER}"


def _value(text: str, goals: Sequence[str]) -> str:
    """Of a text that is entered or passed on, only slots stay, and the names of keys."""
    if text in KEYS or text == "":
        return text
    if re.fullmatch(r"(?:\{goal\}|\{other\}|\*|[ /.,:-])+", text):
        return _tidy(text)
    if any(slot in text for slot in (GOAL, OTHER, ANY)):
        return ANY
    return GOAL if goals and all(occurs(text, goal) for goal in goals) else OTHER


def masked_trigger(pattern: str) -> str:
    negated = pattern.startswith("not ")
    told = masked_line(pattern.removeprefix("not "))
    if negated:  # a wider pattern under a negation makes the rule apply less often, never more
        return f"not {told}" if told.strip("* ") else ""
    return told


def masked_line(pattern: str) -> str:
    """A pattern for a line of an observation with roles, attributes and common names only."""
    if pattern == NO_CALL:
        return pattern
    parts = []
    for match in _ATTRIBUTES.finditer(pattern):
        if match["attribute"]:
            value = match["value"]
            parts.append(match["attribute"] + (f'"{_state(value[1:-1])}"' if value.startswith('"') else value))
        elif match["name"]:
            parts.append(f'"{masked(match["name"][1:-1])}"')
        elif match["ref"] or match["flag"] or match["slot"]:
            parts.append(ANY if match["ref"] else match["flag"] or match["slot"])
        elif match["word"]:
            parts.append(match["word"] if match["word"] in ROLES or known(match["word"]) else ANY)
        else:
            parts.append("".join(_masked(match["rest"])))
    made = _tidy("".join(parts))
    words = re.findall(r"[a-z]{2,}", re.sub(STRING, "", made))
    return ANY if len(words) > MAX_WORDS + 2 or problem(made) else made


def _state(value: str) -> str:
    """A value that a trigger names: a slot, one digit or at most two common words."""
    return value if value in ("", GOAL, OTHER, ANY) or re.fullmatch(r"\d", value) else masked(value, limit=2)


def _tidy(pattern: str) -> str:
    """The pattern with no two wildcards side by side; a run with nothing but blanks in it is one ``*``."""
    before = ""
    while pattern != before:
        before = pattern
        pattern = re.sub(r"\*(?:[\s*]*\*)+", ANY, pattern)
        pattern = re.sub(r"(?:\{\w+\}|\*)(?:\{\w+\}|\*)+", ANY, pattern)
        pattern = " ".join(pattern.split())
    return pattern

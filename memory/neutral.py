"""Text made inert: of whatever a page, a tool, a file or a model wrote, one line is left that gives no orders.

This is done to every experience when it is admitted, trusted or not, and once more when it is rendered. It knows the
usual forms by their looks (invisible characters, chat-template tokens, role markers, fences, encoded payloads, orders
to forget what was said). An order in plain words passes: that is what trust (`memory.admission`) is for.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from tutelage.experience import Experience, Guardrail, Scope, Skill, Sticker

REMOVED = "(removed)"
"""What stands in the place of what was taken out."""

_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef\u3164\uffa0\u115f\u1160\u2800]")
"""Characters that are shown as nothing although they count as letters or marks."""
_TEMPLATE = re.compile(
    r"""<\|[^<>|\n]{0,60}\|>                     # <|im_start|>
    |\|(?:im_start|im_end|endoftext|eot_id)\|
    |<(?:start|end)_of_turn>
    |\[/?(?:INST|SYS|SYSTEM|AVAILABLE_TOOLS|TOOL_CALLS)\]|<</?SYS>>
    |</?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|function_calls?)>
    |</?(?:system|assistant|user|human|developer|instructions?|prompt|transcript|meanings|tools|reason|existing|experience
        s?|hint|guide|situation|draft|feedback|pair)>
    |<!--|-->|`{3,}|~{3,}""",
    re.VERBOSE | re.IGNORECASE,
)
_ROLE = re.compile(
    r"(?im)(?:(?<=[.!?;>)\n])|^)(?:[\s#*>\-]*(?:system|assistant|developer|human|ai|instructions?|new instructions?|"
    r"system prompt|system message)[\s*]*:(?=\s|$))+"
)
_EARLIER = (
    r"(?:previous|prior|above|earlier|preceding|former|existing|other|your|these|those|the|any|all|every|what|of)"
)
_ORDER = re.compile(
    rf"""\b(?:ignore|disregard|forget|override|bypass|discard|neglect)\s+(?:{_EARLIER}\s+){{1,5}}
        (?:instructions?|rules?|prompts?|guidelines?|directions?|orders?|goals?|tasks?|messages?|context|said|told|before)\b
    |\b(?:ignore|disregard|forget)\s+(?:everything|anything|all\s+(?:of\s+)?(?:this|that))\b
    |\byou\s+are\s+now\s+(?:an?|the|in)\b
    |\b(?:reveal|print|repeat|output)\s+(?:your|the)\s+(?:system\s+)?(?:prompt|instructions)\b
    |\b(?:new|updated|real|actual)\s+(?:system\s+)?instructions?\s*(?::|are\b|is\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_BLOB = re.compile(r"(?<![\w+/=])(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[A-Za-z0-9+/=_-]{40,}(?![\w+/=])")
_ESCAPES = re.compile(r"(?i)(?:\\x[0-9a-f]{2}){4,}|(?:\\u[0-9a-f]{4}){3,}|(?:&#x?[0-9a-f]+;){3,}|(?:%[0-9a-f]{2}){6,}")
_MARKUP = re.compile(
    r"(?i)!\[[^\]\n]*\]\([^)\n]*\)|<(?:img|script|iframe|svg|object|embed)\b[^>]*>?|\b(?:data|javascript):[^\s\"']+"
)
_ADDRESS = re.compile(r"(?i)\b(?:https?|ftp|hxxps?|wss?|file)\s?:\s?//[^\s\"'<>)]+")
_ODD = re.compile(r"[^\x20-\x7e]|[<`~\[\\%&!:]|--|\||[\w+/=-]{40}")
_PASSES = 12
_CUES = (
    "ignore",
    "disregard",
    "forget",
    "override",
    "bypass",
    "discard",
    "neglect",
    "you are now",
    "prompt",
    "instruction",
)
"""What every text has, this or that, of which something is to be taken out; most texts have nothing of it."""


@lru_cache(maxsize=8192)
def neutral(text: str) -> str:
    """`text` as one inert line; ordinary text, patterns with slots and resolved actions come out as they are.

    Scripts that join letters by invisible characters lose them (U+200C, U+200D).
    """
    seen = " ".join(text.split())
    low = seen.lower()
    if not _ODD.search(seen) and not any(cue in low for cue in _CUES):
        return seen
    seen = text
    for _ in range(_PASSES):  # what is taken out may bring together what was apart
        before = seen
        seen = _SELECTORS.sub("", "".join(_visible(character) for character in seen))
        for pattern in (_TEMPLATE, _MARKUP, _ORDER, _BLOB, _ESCAPES):
            seen = pattern.sub(REMOVED, seen)
        seen = _ROLE.sub(" ", seen)
        seen = " ".join(seen.split())
        if seen == before:
            return seen
    return REMOVED  # nested on purpose: nothing in it is worth a further pass


def neutralised(experience: Experience, shown: Callable[[], str] | None = None) -> tuple[Experience, tuple[str, ...]]:
    """The experience with all its texts made inert, and the texts that had to be changed, as they were.

    Args:
        shown: all that its sources showed, asked for where there are addresses; one that does not occur there is taken
            out. None: not known, as for what was written by hand, and addresses stay.
    """
    changed: list[str] = []

    def inert(text: str) -> str:
        made = neutral(text)
        if shown is not None and "//" in made and _ADDRESS.search(made):
            told = shown()
            made = _ADDRESS.sub(lambda match: match[0] if match[0] in told else REMOVED, made)
        if made != " ".join(text.split()):
            changed.append(text)
        return made

    return rewritten(experience, inert), tuple(dict.fromkeys(changed))


def rewritten(experience: Experience, change: Callable[[str], str]) -> Experience:
    """The experience with `change` applied to each of its texts; entries of lists that come out empty are left out."""

    def every(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text for text in map(change, texts) if text)

    match experience.content:
        case Sticker(conditions=conditions, question=question):
            fields = {"conditions": every(conditions) or (REMOVED,), "question": change(question)}
        case Skill(preconditions=pre, procedure=procedure, verification=ver):
            fields = {
                "preconditions": every(pre),
                "procedure": every(procedure) or (REMOVED,),
                "verification": every(ver),
            }
        case Guardrail(trigger=trigger, root_cause=cause, forbidden=forbidden, remedy=remedy):
            fields = {
                "trigger": tuple(map(change, trigger)),  # one that is left out would let the rule apply more often
                "root_cause": change(cause),
                "forbidden": change(forbidden),
                "remedy": change(remedy),
            }
    scopes = (
        Scope(type=scope.type, key=change(scope.key), label=change(scope.label), relevance=scope.relevance)
        for scope in experience.scopes
    )
    return experience.model_copy(
        update={
            "goal": change(experience.goal),
            "content": experience.content.model_copy(update=fields),
            "core": change(experience.core),
            "scopes": tuple(scope for scope in scopes if scope.key),
            "touched": every(experience.touched),
            "author": change(experience.author),
            "verbatim": change(experience.verbatim),
        }
    )


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if character in "\n\t\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return "\n" if character == "\n" else " "
    return "" if kind in _INVISIBLE else character

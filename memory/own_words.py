"""An experience told again in words of our own, for sources that are not trusted.

What stays of the words of a page, a tool, a file or a stranger's goal is what says nothing by itself: slots, roles,
values of attributes, common names of controls and tools (`memory.vocabulary`), and claims of a few fixed forms about
goal and page. Everything else becomes ``*`` or ``{other}``, or is left out; a reason is replaced by the enumerated
diagnosis of the step it rests on. So nobody's sentence survives, in whatever words it was put, and none has to be
recognised as an order.
"""

import re
from collections.abc import Iterable, Sequence

from tutelage.experience import Content, Experience, Guardrail, Skill, Sticker
from tutelage.memory.vocabulary import KEYS, PAGE_VERBS, ROLES, known, known_name
from tutelage.patterns import ANY, GOAL, OTHER, matches, occurs, problem
from tutelage.types import FINE, Cause, Step, Trajectory

MAX_WORDS = 4
"""Common words in a row that a name may have; more of them could be a sentence."""
QUESTION = "Which actions fulfil the goal?"
NO_CALL = "No tool was called yet."
"""What a tool environment shows first; its words are ours."""
UNKNOWN_CAUSE = "It did not lead to the goal."
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
_SLOT = re.compile(r"\{(?:goal|other|text|list|file|date|time|number|name)\}")
_PLAIN = frozenset(" .,:;-/()?!=[]'\"")
_CALL = re.compile(r"([A-Za-z_][\w.\-]*)\((.*)\)", re.DOTALL)
_STRING = r'"(?:[^"\\]|\\.)*"'
_ARGUMENT = re.compile(rf"(?:([A-Za-z_]\w*)=)?(?:([a-z]+)(?:\s+({_STRING}))?|({_STRING})|([^\",]+))(?:,\s*|$)")
_ATTRIBUTES = re.compile(
    rf"(?P<ref>\[r[\d*]+\])|(?P<attribute>\b(?:value|checked|selected|expanded|disabled)=)(?P<value>{_STRING}|true|false)"
    rf"|(?P<flag>\b(?:focused|disabled|selected)\b)|(?P<name>{_STRING})|(?P<word>[A-Za-z]+)|(?P<rest>[^\"\[A-Za-z]+|.)",
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
)
"""Forms of claims, with what stands in their middle."""
_ABOUT = re.compile(
    r"The (?:goal (?:names|gives|quotes|has)|(?:page|form|list|result) (?:has|shows|lists)) (?P<what>[A-Za-z ,]+)\."
)
_COUNTED = frozenset({"a", "an", "the", "one", "two", "three", "four", "and", "its", "of", "each", "several", "both"})


def in_own_words(experience: Experience, sources: Sequence[Trajectory]) -> tuple[Experience | None, str]:
    """The experience with nothing in it that somebody else put into words, and why there is none if nothing is left.

    Args:
        sources: those of its source trajectories that are known; none for what was written by hand or imported. Where
            there are any, an action must have been taken in one of them, with an effect.
    """
    content, reason = _content(experience.content, experience, sources)
    if content is None:
        return None, reason
    update = {
        "content": content,
        "goal": masked(experience.goal, limit=12),
        "core": "",
        "scopes": (),
        "touched": (),
        "verbatim": _action(experience.verbatim, ()) or "",
        "author": masked(experience.author) if any(item.origin != "own" for item in experience.sources) else None,
    }
    kept = {name: value for name, value in update.items() if value is not None}
    return experience.model_copy(update=kept), ""


def masked(text: str, *, limit: int = MAX_WORDS) -> str:
    """`text` with ``*`` for everything but common words, slots and plain punctuation; ``*`` alone if that leaves more
    than `limit` words. As a pattern it matches whatever `text` matched."""
    parts = _masked(text)
    words = sum(part[0].isalpha() for part in parts)
    return ANY if words > limit else _tidy("".join(parts))


def _masked(text: str) -> list[str]:
    parts = []
    for token in _TOKEN.findall(text):
        plain = _SLOT.fullmatch(token) or token in _PLAIN or known(token.removesuffix("'s"))
        parts.append(" " if token.isspace() else token if plain else ANY)
    return parts


# -- the three kinds ----------------------------------------------------------------------------


def _content(content: Content, item: Experience, sources: Sequence[Trajectory]) -> tuple[Content | None, str]:
    match content:
        case Skill():
            return _skill(content, sources)
        case Sticker():
            return _sticker(content, item.goal, sources), ""
        case Guardrail():
            return _guardrail(content, sources)


def _skill(skill: Skill, sources: Sequence[Trajectory]) -> tuple[Skill | None, str]:
    goals = [source.goal for source in sources]
    taken = [action for action in skill.procedure if not sources or _taken(action, sources)]
    procedure = [told for action in taken if (told := _action(action, goals))]
    if not procedure:
        return None, "nothing of its procedure can be told without the words of a source that is not trusted"
    return Skill(
        preconditions=tuple(_claims(skill.preconditions)),
        procedure=tuple(procedure),
        verification=tuple(_claims(skill.verification)),
    ), ""


def _sticker(sticker: Sticker, goal: str, sources: Sequence[Trajectory]) -> Sticker:
    conditions = list(_claims(sticker.conditions))
    if sticker.question == QUESTION and tuple(conditions) == sticker.conditions:
        return sticker
    if not any(condition.startswith("The goal") for condition in conditions):
        conditions.insert(0, f"The goal names {_count(goal)}.")
    targets = list(dict.fromkeys(_targets(sources)))[:6]
    has = [f"The page has a {target}." for target in targets]
    conditions += [condition for condition in has if condition not in conditions]
    return Sticker(conditions=tuple(dict.fromkeys(conditions)), question=QUESTION)


def _guardrail(rule: Guardrail, sources: Sequence[Trajectory]) -> tuple[Guardrail | None, str]:
    forbidden = _action(rule.forbidden, (), exactly=True)
    if not forbidden:
        return None, "what it forbids cannot be told without the words of a source that is not trusted"
    trigger = tuple(dict.fromkeys(_negatable(pattern) for pattern in rule.trigger))
    trigger = tuple(pattern for pattern in trigger if pattern.strip("* .:"))
    if not trigger and not _narrow(forbidden):
        return None, "it forbids an action whatever the situation, and its source is not trusted"
    made = Guardrail(trigger=trigger, root_cause=UNKNOWN_CAUSE, forbidden=forbidden, remedy=_remedy(rule, trigger))
    steps = [(step, source.goal) for source in sources for step in source.steps if stops(made, step, source.goal)]
    if sources and not any(step.diagnosis.cause in CAUSES for step, _ in steps):
        return None, "none of its sources shows a mistake that it would have stopped"
    if any(step.diagnosis.fine for step, _ in steps):
        return None, "in other words it would stop a right step of its own sources"
    causes = [CAUSES[step.diagnosis.cause] for step, _ in steps if step.diagnosis.cause in CAUSES]
    ours = rule.root_cause in (*CAUSES.values(), UNKNOWN_CAUSE)
    told = rule.root_cause if ours else next(iter(_claims([rule.root_cause])), "")
    root = told or (causes[0] if causes else UNKNOWN_CAUSE)
    return made.model_copy(update={"root_cause": root}), ""


def _remedy(rule: Guardrail, trigger: Sequence[str]) -> str:
    kept = next((claim for claim in _claims([rule.remedy]) if claim.startswith("Do ")), "")
    if kept:
        return kept
    empty = next((line for line in trigger if 'value=""' in line or "checked=false" in line), "")
    if empty:
        return f"Set this before: {empty.strip('* ')}"
    return "Look at what is there before." if NO_CALL in trigger else "Do something else."


# -- claims, actions and lines ------------------------------------------------------------------


def _claims(texts: Iterable[str]) -> Iterable[str]:
    """Those of the texts that have one of the known forms, with their middle masked."""
    for text in texts:
        for form, middle in _FORMS:
            match = form.fullmatch(text)
            if match is None:
                continue
            inner = _line(match[2]) if middle == "line" else _action(match[2], ()) if middle == "action" else ""
            if middle is None or (inner and inner.strip("* ")):
                yield f"{match[1]}{inner}{match[3]}"
            break
        else:
            about = _ABOUT.fullmatch(text)
            if about and all(known(word) or word in _COUNTED for word in re.findall(r"[A-Za-z]+", about["what"])):
                yield text


def _action(action: str, goals: Sequence[str], *, exactly: bool = False) -> str:
    """The action with common names and slots only; empty if not even its verb is known.

    Args:
        goals: a literal value that stands in each of them becomes ``{goal}``.
        exactly: it is one to forbid: nothing may be left out, for the result must match whatever `action` matched, and
            its verb may be one that gives away or destroys.
    """
    match = _CALL.fullmatch(action.strip())
    if match is None or not (match[1] in PAGE_VERBS or known_name(match[1], prohibited=exactly)):
        return ""
    arguments, at = [], 0
    while at < len(match[2]):
        found = _ARGUMENT.match(match[2], at)
        if found is None or not found[0]:
            return ""
        at = found.end()
        told = _argument(*found.groups(), goals=goals)
        if told:
            arguments.append(told)
        elif exactly:
            return ""
    made = f"{match[1]}({', '.join(arguments)})"
    return "" if problem(made) else made


def _argument(
    key: str | None, role: str | None, name: str | None, text: str | None, bare: str | None, *, goals: Sequence[str]
) -> str:
    if key and not known_name(key):
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


def _negatable(pattern: str) -> str:
    negated = pattern.startswith("not ")
    told = _line(pattern.removeprefix("not "))
    if negated:  # a wider pattern under a negation makes the rule apply less often, never more
        return f"not {told}" if told.strip("* ") else ""
    return told


def _line(pattern: str) -> str:
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
        elif match["ref"] or match["flag"]:
            parts.append(ANY if match["ref"] else match["flag"])
        elif match["word"]:
            parts.append(match["word"] if match["word"] in ROLES or known(match["word"]) else ANY)
        else:
            parts.append("".join(_masked(match["rest"])))
    made = _tidy("".join(parts))
    words = re.findall(r"[a-z]{2,}", re.sub(_STRING, "", made))
    return ANY if len(words) > MAX_WORDS + 2 or problem(made) else made


def _state(value: str) -> str:
    """A value that a trigger names: a slot, one digit or at most two common words."""
    return value if value in ("", GOAL, OTHER, ANY) or re.fullmatch(r"\d", value) else masked(value, limit=2)


# -- small parts --------------------------------------------------------------------------------


def _tidy(pattern: str) -> str:
    """The pattern with no two wildcards side by side; a run with nothing but blanks in it is one ``*``."""
    pattern = re.sub(r"\*(?:[\s*]*\*)+", ANY, pattern)
    pattern = re.sub(r"(?:\{(?:goal|other)\}|\*)(?:\{(?:goal|other)\}|\*)+", ANY, pattern)
    return " ".join(pattern.split())


def _count(goal: str) -> str:
    slots = _SLOT.findall(goal)
    return f"{len(slots)} value{'s' if len(slots) > 1 else ''}" if slots else "what is wanted"


def _targets(sources: Sequence[Trajectory]) -> Iterable[str]:
    """What was acted upon with an effect, by role and masked name."""
    for source in sources:
        for step in source.steps:
            match = re.match(rf"\w+\(([a-z]+)(?: ({_STRING}))?[,)]", step.meaning) if step.diagnosis.fine else None
            if match and match[1] in ROLES:
                name = match[2][1:-1] if match[2] else ""
                shown = GOAL if name and occurs(name, source.goal) else masked(name)
                yield f'{match[1]} "{shown}"' if name else match[1]


def _taken(action: str, sources: Sequence[Trajectory]) -> bool:
    verb = action.partition("(")[0]
    return any(
        step.diagnosis.cause in FINE
        and step.meaning.partition("(")[0] == verb
        and (action == step.meaning or matches(action, step.meaning, source.goal))
        for source in sources
        for step in source.steps
    )


def _narrow(forbidden: str) -> bool:
    """Whether a pattern covers less than all uses of its verb on a thing."""
    return OTHER in forbidden or '"*' in forbidden.replace('"*"', "")


def stops(rule: Guardrail, step: Step, goal: str) -> bool:
    """As `tutelage.agents.guard` reads a rule, which memory does not import."""
    if not step.meaning or not matches(rule.forbidden, step.meaning, goal):
        return False
    lines = [line.strip() for line in step.observation.splitlines()]
    return all(
        any(matches(pattern.removeprefix("not "), line, goal) for line in lines) is not pattern.startswith("not ")
        for pattern in rule.trigger
    )

"""The compound form of an experience: its core, one exact detail, what it is about, and what its source touched.

After Structured Distillation for agent memory (2603.13017). Where we depart from it: nothing here asks a model. What a
distiller wrote is kept as far as the source bears it out, and the rest follows from the steps by rule. Files and
addresses are found by pattern alone, as there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from tutelage.experience import Experience, Guardrail, Scope, Skill, Sticker
from tutelage.types import Step, Trajectory

LONGEST_CORE = 240
"""Characters."""
LONGEST_DETAIL = 300
"""Characters."""
PER_TYPE = 3
"""Scopes of one type at most: those that most steps name."""
TOUCHED = 16
"""Files and addresses at most, in order of first appearance."""

_URL = re.compile(r"\bhttps?://[^\s\"'<>()\[\]{}]+[^\s\"'<>()\[\]{}.,;:!?]")
_FILE = re.compile(
    r"(?<![\w/.@-])(?:(?:[\w-]+/)*[\w-]+(?:\.[\w-]+)*\.[A-Za-z][A-Za-z0-9]{1,7}|(?:/[\w.-]*\w){2,})(?![\w/@])"
)
"""A name with an extension of two characters or more, with or without folders before it, or an absolute path."""
_CALL = re.compile(r"(\w+)\(\s*(?:([a-z]+)\b(?![=\w]))?")
"""A call's tool and, on pages, the role of the element that it is used on."""


def compound(experience: Experience, source: Trajectory | None) -> Experience:
    """The experience with core, verbatim, scopes and touched filled in from its first source.

    One that has core and scopes already is taken as it is, so that doing it again, with or without the source, changes
    nothing. A verbatim detail that does not stand in the source is replaced by one that does. Without a source, as for
    what was written by hand, files and addresses are those in its own words.
    """
    if experience.core and experience.scopes:
        return experience
    steps = cited(experience, source) if source else []
    spoken = [source.goal, *_words_of(steps)] if source else _own_words(experience)
    return experience.model_copy(
        update={
            "core": experience.core or core(experience),
            "verbatim": detail(experience.verbatim, source, steps) if source else experience.verbatim,
            "scopes": experience.scopes or scopes(experience, steps),
            "touched": experience.touched or tuple(touched(spoken))[:TOUCHED],
        }
    )


def cited(experience: Experience, source: Trajectory) -> list[Step]:
    """The steps of its first source that it rests on."""
    wanted = set(experience.sources[0].steps)
    return [step for index, step in enumerate(source.steps) if not wanted or index in wanted]


def core(experience: Experience) -> str:
    """What it comes to, in one or two sentences made of its own words."""
    goal = experience.goal.strip().rstrip(".?!")
    match experience.content:
        case Skill(procedure=procedure):
            text = f"{goal}: {'; '.join(procedure)}."
        case Sticker(conditions=conditions):
            telling = [line for line in conditions if goal not in line]
            text = " ".join((f"{goal}.", *telling[:2]))
        case Guardrail(forbidden=forbidden, remedy=remedy):
            text = f"{goal}: never {forbidden}. {remedy}"
    return _shortened(text, LONGEST_CORE)


def detail(wanted: str, source: Trajectory, steps: Sequence[Step]) -> str:
    """`wanted` if it stands in the source, else the goal, else what was done."""
    said = " ".join(wanted.split())
    if said and any(said in " ".join(text.split()) for text in _texts(source)):
        return _shortened(wanted, LONGEST_DETAIL)
    others = (source.goal, *(step.meaning or step.action for step in steps))
    return next((_shortened(text, LONGEST_DETAIL) for text in others if text.strip()), "")


def scopes(experience: Experience, steps: Sequence[Step]) -> tuple[Scope, ...]:
    """What it is about: the workflow, and the tools, concepts (roles of elements) and files that its steps name.

    The relevance of all but the workflow is the share of the steps that name it.
    """
    workflow = Scope(type="workflow", key=f"{experience.environment}/{experience.family}", label=experience.goal)
    calls = [match.groups() for step in steps if (match := _CALL.match(step.meaning))]
    named: tuple[tuple[Literal["tool", "concept", "file"], list[set[str]]], ...] = (
        ("tool", [{tool} for tool, _ in calls]),
        ("concept", [{role} for _, role in calls if role]),
        ("file", [set(touched([step.meaning or step.action])) for step in steps]),
    )
    found = [workflow]
    for kind, names in named:
        counts = Counter(key for keys in names for key in sorted(keys))
        for key, count in counts.most_common(PER_TYPE):
            found.append(Scope(type=kind, key=key, label=key.rpartition("/")[2], relevance=count / len(steps)))
    return tuple(found)


def touched(texts: Iterable[str]) -> list[str]:
    """The files and addresses in the texts, each once, in order of first appearance."""
    found: dict[str, None] = {}
    for text in texts:
        rest = text
        for match in _URL.finditer(text):
            found.setdefault(match.group())
            rest = rest.replace(match.group(), " ")
        found |= dict.fromkeys(_FILE.findall(rest))
    return list(found)


def _words_of(steps: Iterable[Step]) -> list[str]:
    return [step.meaning or step.action for step in steps]


def _own_words(experience: Experience) -> list[str]:
    values = experience.content.model_dump(exclude={"kind"}).values()
    return [experience.goal, *(part for value in values for part in ([value] if isinstance(value, str) else value))]


def _texts(source: Trajectory) -> Iterable[str]:
    yield source.goal
    for step in source.steps:
        yield from (step.observation, step.action, step.meaning, step.after, step.diagnosis.evidence)


def _shortened(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"

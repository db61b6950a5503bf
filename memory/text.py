"""Experiences as text: one line for the prompt, the gist for vectors, verbatim text for keywords."""

import re
from collections.abc import Mapping

from tutelage.experience import Experience, Guardrail, Skill, Status, Sticker
from tutelage.memory.neutral import neutral
from tutelage.types import Shown, Trajectory

ON_TRIAL = "(on trial) "
"""What the text of a candidate begins with where an agent sees it."""
SOURCES = 8
"""Sources whose words can be searched for; an experience of a hundred would be found by any word."""
_WORDS = re.compile(r"[^\W_]+(?:\.[^\W_]+)*")


def render(experience: Experience) -> str:
    """One short line for an agent's prompt, inert whatever was let in (`tutelage.memory.neutral`)."""
    match experience.content:
        case Skill(procedure=procedure):
            text = f"Procedure: {'; '.join(procedure)}"
        case Sticker(conditions=conditions, question=question):
            text = f"Conditions: {'; '.join(conditions)}. Question: {question}"
        case Guardrail(trigger=trigger, forbidden=forbidden, remedy=remedy):
            when = f" when {' and '.join(trigger)}" if trigger else ""
            text = f"Never {forbidden}{when}. {remedy}"
    return neutral(text)


def shown(experience: Experience) -> Shown:
    """As an agent sees it, marked where its effect is unmeasured."""
    mark = ON_TRIAL if experience.status is Status.CANDIDATE else ""
    return Shown(id=experience.id, version=experience.version, text=mark + render(experience))


def distilled(experience: Experience) -> str:
    """All it says: the goal first, then the content. Near-duplicates are found by this."""
    match experience.content:
        case Skill() as skill:
            parts = [*skill.preconditions, *skill.procedure, *skill.verification]
        case Sticker() as sticker:
            parts = [*sticker.conditions, sticker.question]
        case Guardrail() as rule:
            parts = [*rule.trigger, rule.forbidden, rule.root_cause, rule.remedy]
    return "\n".join([experience.goal, *parts])


def gist(experience: Experience) -> str:
    """What vectors are made of: its core, its exact detail and what it is about.

    Vectors of words, as the default embedder's, are means over all words: in a longer text each one counts for less.
    """
    return "\n".join([experience.core or distilled(experience), experience.verbatim, *about(experience)])


def verbatim(experience: Experience, sources: Mapping[str, Trajectory]) -> str:
    """What keywords are looked up in: words as they stood in the first few sources, not as they were distilled.

    Keyword search over distilled text loses quality (arXiv 2603.13017), so it gets the exact detail, each source's own
    goal, what was done in the steps the experience rests on, and the names of what it is about.

    Args:
        sources: trajectories by id; of the experience's own first `SOURCES`, those that are missing are passed over.
    """
    parts = [experience.verbatim]
    for source in experience.sources[:SOURCES]:
        trajectory = sources.get(source.trajectory)
        if trajectory is not None:
            cited = set(source.steps) or range(len(trajectory.steps))
            parts.append(trajectory.goal)
            parts += [step.meaning or step.action for index, step in enumerate(trajectory.steps) if index in cited]
    return "\n".join([*parts, *about(experience)])


def about(experience: Experience) -> list[str]:
    """The names of its scopes as words."""
    return [" ".join(_WORDS.findall(scope.key)) for scope in experience.scopes]

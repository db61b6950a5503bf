"""Experiences as text: one line for the prompt, distilled text for vectors, verbatim text for keywords."""

from tutelage.experience import Experience, Guardrail, Skill, Sticker
from tutelage.types import Trajectory


def render(experience: Experience) -> str:
    """One short line for an agent's prompt."""
    match experience.content:
        case Skill(procedure=procedure):
            text = f"Procedure: {'; '.join(procedure)}"
        case Sticker(conditions=conditions, question=question):
            text = f"Conditions: {'; '.join(conditions)}. Question: {question}"
        case Guardrail(trigger=trigger, forbidden=forbidden, remedy=remedy):
            when = f" when {' and '.join(trigger)}" if trigger else ""
            text = f"Never {forbidden}{when}. {remedy}"
    return " ".join(text.split())


def distilled(experience: Experience) -> str:
    """What vectors are made of: the goal first, then the content."""
    match experience.content:
        case Skill() as skill:
            parts = [*skill.preconditions, *skill.procedure, *skill.verification]
        case Sticker() as sticker:
            parts = [*sticker.conditions, sticker.question]
        case Guardrail() as rule:
            parts = [*rule.trigger, rule.forbidden, rule.root_cause, rule.remedy]
    return "\n".join([experience.goal, *parts])


def verbatim(experience: Experience, source: Trajectory | None) -> str:
    """What keywords are looked up in: words as they stood in the first source, not as they were distilled.

    Keyword search over distilled text loses quality (arXiv 2603.13017), so it gets the exact detail, the
    source's own goal, and what was done in the steps the experience rests on.
    """
    parts = [experience.verbatim]
    if source is not None:
        cited = set(experience.sources[0].steps) or range(len(source.steps))
        parts.append(source.goal)
        parts += [step.meaning or step.action for index, step in enumerate(source.steps) if index in cited]
    return "\n".join(parts)

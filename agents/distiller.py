"""The distiller: one trajectory in, experiences out; every claim is checked against the trajectory.

Successes give stickers (after Sticker-TTS, 2509.05007) and skills, failures give guardrails (both after
Steve-Evolving, 2603.13131). A model writes them; the code here believes none of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from tutelage.agents.guard import NEGATION, covers
from tutelage.agents.requests import distiller_request
from tutelage.agents.views import distiller_view
from tutelage.errors import TutelageError
from tutelage.llm import LLM
from tutelage.patterns import goal_template, matches, problem
from tutelage.types import Content, Experience, Guardrail, Kind, Skill, Source, Step, Sticker, Trajectory, Verdict

MAX_EXISTING = 12
"""Existing experiences shown to the distiller at most, the newest ones."""


class Draft(BaseModel):
    """Base of the reply's parts; unknown fields are ignored, the checks below decide."""

    model_config = ConfigDict(extra="ignore")


class StickerDraft(Draft):
    conditions: list[str] = []
    question: str = ""


class SkillDraft(Draft):
    preconditions: list[str] = []
    procedure: list[str] = []
    verification: list[str] = []


class GuardrailDraft(Draft):
    trigger: list[str] = []
    root_cause: str = ""
    forbidden: str = ""
    remedy: str = ""


class Distillation(Draft):
    """The distiller's reply."""

    stickers: list[StickerDraft] = []
    skills: list[SkillDraft] = []
    guardrails: list[GuardrailDraft] = []
    note: str = ""
    """Why there is nothing to say, if there is not."""


@dataclass(frozen=True)
class Rejection:
    """Something that was proposed and not taken."""

    trajectory: str
    kind: Kind | None
    """None if the distiller had nothing to say."""
    reason: str
    """One of few fixed phrases, fit for counting."""
    detail: str = ""


class _Unfounded(ValueError):
    """A draft that the trajectory does not bear out."""


Distilled = tuple[list[Experience], list[Rejection]]
"""Candidate experiences of one trajectory, and what was dropped and why."""


def distil(trajectory: Trajectory, verdict: Verdict, existing: Sequence[Experience], llm: LLM) -> Distilled:
    """Distil one trajectory.

    Raises:
        PolicyFailed: no usable answer after all retries.
        BudgetSpent: a limit was reached.
    """
    result = distil_many([(trajectory, verdict)], existing, llm)[0]
    if isinstance(result, TutelageError):
        raise result
    return result


def distil_many(
    cases: Sequence[tuple[Trajectory, Verdict]], existing: Sequence[Experience], llm: LLM
) -> list[Distilled | TutelageError]:
    """Distil each case, asked for at once; one that could not be had is its error in the list.

    Args:
        existing: experiences the distiller shall not repeat; it is shown those of the case's own family.
    """
    asked = [case for case in cases if case[0].success or case[1].cited]
    views = (distiller_view(trajectory, verdict, _related(existing, trajectory)) for trajectory, verdict in asked)
    requests = [distiller_request(view) for view in views]
    replies = iter(llm.structured_many(requests, Distillation))
    results: list[Distilled | TutelageError] = []
    for trajectory, verdict in cases:
        if not trajectory.success and not verdict.cited:
            results.append(([], [Rejection(trajectory.id, None, "the judge cites no mistake", verdict.reason)]))
            continue
        reply = next(replies)
        results.append(reply if isinstance(reply, TutelageError) else _read(reply, trajectory, verdict, llm.label))
    return results


def _related(existing: Sequence[Experience], trajectory: Trajectory) -> list[Experience]:
    task = trajectory.task
    same = [item for item in existing if (item.environment, item.family) == (task.environment, task.family)]
    return same[-MAX_EXISTING:]


def _read(reply: Distillation, trajectory: Trajectory, verdict: Verdict, author: str) -> Distilled:
    drafts = [*reply.stickers, *reply.skills, *reply.guardrails]
    if not drafts:
        return [], [Rejection(trajectory.id, None, "the distiller found nothing to say", reply.note)]
    experiences, rejections = [], []
    for draft in drafts:
        try:
            content, steps = _checked(draft, trajectory, verdict)
        except _Unfounded as error:
            rejections.append(Rejection(trajectory.id, _kind(draft), str(error), draft.model_dump_json()))
            continue
        experiences.append(_experience(content, steps, trajectory, author=author))
    return experiences, rejections


def _experience(content: Content, steps: tuple[int, ...], trajectory: Trajectory, *, author: str) -> Experience:
    mistake = content.kind == "guardrail"
    return Experience(
        environment=trajectory.task.environment,
        family=trajectory.task.family,
        goal=goal_template(trajectory.goal),
        content=content,
        sources=(Source(trajectory=trajectory.id, task=trajectory.task.id, steps=steps),),
        author=author,
        verbatim=trajectory.steps[steps[0]].meaning if mistake else trajectory.goal,
    )


def _kind(draft: Draft) -> Kind:
    if isinstance(draft, StickerDraft):
        return "sticker"
    return "skill" if isinstance(draft, SkillDraft) else "guardrail"


def _checked(draft: Draft, trajectory: Trajectory, verdict: Verdict) -> tuple[Content, tuple[int, ...]]:
    """The draft as content, and the steps that bear it out."""
    if isinstance(draft, GuardrailDraft) == trajectory.success:
        raise _Unfounded("this kind does not come from this outcome")
    if isinstance(draft, StickerDraft):
        return _sticker(draft), (0,)
    if isinstance(draft, SkillDraft):
        return _skill(draft, trajectory)
    assert isinstance(draft, GuardrailDraft)
    return _guardrail(draft, trajectory, verdict)


def _sticker(draft: StickerDraft) -> Sticker:
    conditions = _lines(draft.conditions)
    if not conditions or not draft.question.strip():
        raise _Unfounded("a sticker without conditions or question")
    return Sticker(conditions=conditions, question=_line(draft.question))


def _skill(draft: SkillDraft, trajectory: Trajectory) -> tuple[Skill, tuple[int, ...]]:
    procedure = _lines(draft.procedure)
    if not procedure:
        raise _Unfounded("a skill without a procedure")
    steps: set[int] = set()
    for action in procedure:
        found = {
            index
            for index, step in enumerate(trajectory.steps)
            if step.diagnosis.fine and _names(action, step, trajectory.goal)
        }
        if not found:
            raise _Unfounded("a skill names an action that did not occur")
        steps |= found
    content = Skill(
        preconditions=_lines(draft.preconditions), procedure=procedure, verification=_lines(draft.verification)
    )
    return content, tuple(sorted(steps))


def _names(action: str, step: Step, goal: str) -> bool:
    """Whether `action` is this step's meaning, or the same kind of action with slots."""
    same_verb = action.partition("(")[0] == step.meaning.partition("(")[0]
    return bool(step.meaning) and (action == step.meaning or (same_verb and matches(action, step.meaning, goal)))


def _guardrail(draft: GuardrailDraft, trajectory: Trajectory, verdict: Verdict) -> tuple[Guardrail, tuple[int, ...]]:
    if not draft.root_cause.strip() or not draft.remedy.strip():
        raise _Unfounded("a guardrail without root cause or remedy")
    rule = Guardrail(
        trigger=tuple(pattern.strip() for pattern in draft.trigger),
        root_cause=_line(draft.root_cause),
        forbidden=draft.forbidden.strip(),
        remedy=_line(draft.remedy),
    )
    if any(problem(pattern.removeprefix(NEGATION)) for pattern in (*rule.trigger, rule.forbidden)):
        raise _Unfounded("a guardrail with an unusable pattern")
    cited = [(index, trajectory.steps[index]) for index in verdict.cited]
    steps = tuple(
        index for index, step in cited if step.meaning and covers(rule, step.meaning, step.observation, trajectory.goal)
    )
    if not steps:
        raise _Unfounded("a guardrail that would not have stopped the cited mistake")
    return rule, steps


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(line for line in map(_line, texts) if line)

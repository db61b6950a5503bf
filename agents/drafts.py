"""The distiller's reply, and what of it a trajectory bears out.

A reply is read draft by draft: one that has the wrong form, is too long or claims what did not happen is dropped for
its own reason, and the others stay.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    WrapValidator,
    model_validator,
)

from tutelage.agents.guard import NEGATION, covers
from tutelage.experience import Content, Guardrail, Kind, Skill, Sticker
from tutelage.patterns import matches, problem
from tutelage.types import Step, Trajectory, Verdict

MAX_DRAFTS = 8
"""Drafts of one kind that are looked at."""
MAX_LINES = 40
"""Entries of one list of a draft."""
MAX_LINE = 2000
"""Characters of one entry; patterns have a limit of their own (`tutelage.patterns`)."""


class Unfounded(ValueError):
    """A draft that the trajectory does not bear out; the message is one of few fixed phrases, fit for counting."""


def _number(value: object) -> object:
    """A whole number or None, whatever was written."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class Draft(BaseModel):
    """Base of the reply's parts; unknown fields are ignored, the checks below decide."""

    model_config = ConfigDict(extra="ignore")

    same_as: Annotated[int | None, BeforeValidator(_number)] = None
    """Number of the existing experience that says this already."""
    _fault: str = PrivateAttr("")
    """What was wrong with the form of what was written; the fields are then their defaults."""

    def sound(self) -> None:
        """Check form and length.

        Raises:
            Unfounded: wrong form, or too long.
        """
        if self._fault:
            raise Unfounded("a draft of the wrong form")
        fields = [value for value in self.__dict__.values() if isinstance(value, str | list)]
        lists = [value if isinstance(value, list) else [value] for value in fields]
        if any(len(value) > MAX_LINES or any(len(line) > MAX_LINE for line in value) for value in lists):
            raise Unfounded("a draft that is too long")


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


D = TypeVar("D", bound=Draft)


def _singly(kind: type[D]) -> WrapValidator:
    """Reads one draft; what does not fit becomes an empty one with its fault instead of spoiling the reply."""

    def read(value: Any, fitting: Callable[[Any], D]) -> D:
        try:
            return fitting(value)
        except ValidationError as error:
            draft = kind()
            draft._fault = "; ".join(
                f"{'.'.join(map(str, part['loc'])) or 'draft'}: {part['msg']}" for part in error.errors()[:2]
            )
            return draft

    return WrapValidator(read)


def _listed(value: object) -> object:
    """A list, also where one draft or nothing was written in its place."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class Distillation(BaseModel):
    """The distiller's reply."""

    model_config = ConfigDict(extra="ignore")

    stickers: Annotated[list[Annotated[StickerDraft, _singly(StickerDraft)]], BeforeValidator(_listed)] = []
    skills: Annotated[list[Annotated[SkillDraft, _singly(SkillDraft)]], BeforeValidator(_listed)] = []
    guardrails: Annotated[list[Annotated[GuardrailDraft, _singly(GuardrailDraft)]], BeforeValidator(_listed)] = []
    note: Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")] = ""
    """Why there is nothing to say, if there is not."""

    @model_validator(mode="after")
    def _not_all_malformed(self) -> Self:
        """A reply without one readable draft may be asked for again."""
        faults = [draft._fault for draft in self.drafts()]
        if faults and all(faults):
            raise ValueError(faults[0])
        return self

    def drafts(self) -> list[Draft]:
        return [*self.stickers, *self.skills, *self.guardrails]


def kind_of(draft: Draft) -> Kind:
    if isinstance(draft, StickerDraft):
        return "sticker"
    return "skill" if isinstance(draft, SkillDraft) else "guardrail"


def founded(draft: Draft, trajectory: Trajectory, verdict: Verdict) -> tuple[Content, tuple[int, ...]]:
    """The draft as content, and the steps that bear it out.

    Raises:
        Unfounded: the trajectory does not bear it out, or it has no usable form.
    """
    draft.sound()
    if isinstance(draft, GuardrailDraft) == trajectory.success:
        raise Unfounded("this kind does not come from this outcome")
    content = _content(draft)
    return content, borne_out(content, trajectory, verdict)


def borne_out(content: Content, trajectory: Trajectory, verdict: Verdict) -> tuple[int, ...]:
    """The steps of the trajectory that bear out content of its own family.

    Raises:
        Unfounded: there are none.
    """
    if isinstance(content, Sticker):
        return (0,)
    if isinstance(content, Skill):
        return _occurred(content.procedure, trajectory)
    cited = [(index, trajectory.steps[index]) for index in verdict.cited]
    steps = tuple(
        index
        for index, step in cited
        if step.meaning and covers(content, step.meaning, step.observation, trajectory.goal)
    )
    if not steps:
        raise Unfounded("a guardrail that would not have stopped the cited mistake")
    return steps


def names(action: str, step: Step, goal: str) -> bool:
    """Whether `action` is this step's meaning, or the same kind of action with slots."""
    same_verb = action.partition("(")[0] == step.meaning.partition("(")[0]
    return bool(step.meaning) and (action == step.meaning or (same_verb and matches(action, step.meaning, goal)))


def sticker(draft: StickerDraft) -> Sticker:
    """
    Raises:
        Unfounded: it has no conditions or no question.
    """
    conditions = _lines(draft.conditions)
    if not conditions or not draft.question.strip():
        raise Unfounded("a sticker without conditions or question")
    return Sticker(conditions=conditions, question=_line(draft.question))


def _content(draft: Draft) -> Content:
    if isinstance(draft, StickerDraft):
        return sticker(draft)
    if isinstance(draft, SkillDraft):
        procedure = _lines(draft.procedure)
        if not procedure:
            raise Unfounded("a skill without a procedure")
        return Skill(
            preconditions=_lines(draft.preconditions), procedure=procedure, verification=_lines(draft.verification)
        )
    assert isinstance(draft, GuardrailDraft)
    return _guardrail(draft)


def _occurred(procedure: Sequence[str], trajectory: Trajectory) -> tuple[int, ...]:
    steps: set[int] = set()
    for action in procedure:
        found = {
            index
            for index, step in enumerate(trajectory.steps)
            if step.diagnosis.fine and names(action, step, trajectory.goal)
        }
        if not found:
            raise Unfounded("a skill names an action that did not occur")
        steps |= found
    return tuple(sorted(steps))


def _guardrail(draft: GuardrailDraft) -> Guardrail:
    if not draft.root_cause.strip() or not draft.remedy.strip():
        raise Unfounded("a guardrail without root cause or remedy")
    rule = Guardrail(
        trigger=tuple(pattern.strip() for pattern in draft.trigger),
        root_cause=_line(draft.root_cause),
        forbidden=draft.forbidden.strip(),
        remedy=_line(draft.remedy),
    )
    if any(problem(pattern.removeprefix(NEGATION)) for pattern in (*rule.trigger, rule.forbidden)):
        raise Unfounded("a guardrail with an unusable pattern")
    return rule


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(line for line in map(_line, texts) if line)

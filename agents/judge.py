"""The judge: decides from the transcript alone whether an episode was successful. It never sees rewards.

Where an environment has a programmatic check, that check decides what is accepted and the verdict is
kept beside it. Where a task was designed freely, the judge may see its designer's hint; its verdict then says so, and
its reason goes to no other role.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from tutelage.agents.requests import judge_request
from tutelage.agents.views import judge_view
from tutelage.designs import Hint
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.llm import LLM
from tutelage.types import Trajectory, Verdict

OPTIMALITIES = range(1, 5)


class Judgement(BaseModel):
    """The judge's reply; what a model leaves out but the decision and its reason has a default."""

    successful: bool
    reason: str = Field(min_length=1)
    cited: list[int] = []
    side_effects: bool = False
    looped: bool = False
    optimality: int = 0

    @field_validator("cited", "side_effects", "looped", "optimality", mode="before")
    @classmethod
    def _said_nothing(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if value is None else value

    @field_validator("optimality")
    @classmethod
    def _on_the_scale(cls, value: int) -> int:
        return value if value in OPTIMALITIES else 0


def judge(trajectory: Trajectory, llm: LLM, *, hint: Hint | None = None, votes: int = 1) -> Verdict:
    """Judge one trajectory, as `judge_many` does.

    Raises:
        PolicyFailed: no usable answer after all retries.
        BudgetSpent: a limit was reached.
    """
    hints = {} if hint is None else {trajectory.id: hint}
    verdict = judge_many([trajectory], llm, hints=hints, votes=votes)[0]
    if isinstance(verdict, TutelageError):
        raise verdict
    return verdict


def judge_many(
    trajectories: Sequence[Trajectory], llm: LLM, *, hints: Mapping[str, Hint] | None = None, votes: int = 1
) -> list[Verdict | TutelageError]:
    """Verdicts in order, asked for at once; one that could not be had is its error in the list.

    Args:
        llm: with several votes its temperature should be above 0, or they all say the same.
        hints: what a designer says about the wanted end, by the id of the trajectory.
        votes: how often each trajectory is judged. The majority decides, and a tie is not a success. Where some votes
            got no answer, those that did decide if they are at least half. Where the budget forbade one, there is no
            verdict, for it would be kept as if the others had been asked in vain.
    """
    known = hints or {}
    asked = [judge_request(judge_view(item, known.get(item.id))) for item in trajectories for _ in range(votes)]
    replies = llm.structured_many(asked, Judgement)
    label = judge_label(llm, votes)
    return [
        _verdict(replies[index * votes : (index + 1) * votes], trajectory, label, hinted=trajectory.id in known)
        for index, trajectory in enumerate(trajectories)
    ]


def judge_label(llm: LLM, votes: int = 1) -> str:
    """What its verdicts name as their judge; several votes of a model are another judge than one."""
    return llm.label if votes == 1 else f"{llm.label}, {votes} votes"


def _verdict(
    ballot: Sequence[Judgement | TutelageError], trajectory: Trajectory, label: str, *, hinted: bool
) -> Verdict | TutelageError:
    replies = [reply for reply in ballot if isinstance(reply, Judgement)]
    errors = [reply for reply in ballot if isinstance(reply, TutelageError)]
    spent = next((error for error in errors if isinstance(error, BudgetSpent)), None)
    if spent is not None:
        return spent
    if len(replies) * 2 < len(ballot):
        return errors[0]
    successful = _most(reply.successful for reply in replies)
    agreeing = [reply for reply in replies if reply.successful is successful]
    return Verdict(
        trajectory=trajectory.id,
        judge=label,
        successful=successful,
        reason=agreeing[0].reason,
        cited=_cited(agreeing, len(trajectory.steps)),
        votes=tuple(reply.successful for reply in replies) if len(ballot) > 1 else (),
        side_effects=_most(reply.side_effects for reply in agreeing),
        looped=_most(reply.looped for reply in agreeing),
        optimality=_median([reply.optimality for reply in agreeing if reply.optimality]),
        hinted=hinted,
    )


def _cited(agreeing: Sequence[Judgement], steps: int) -> tuple[int, ...]:
    """Steps that more than half of these replies cite, as far as they exist, in the order of first mention."""
    mentions = Counter(step for reply in agreeing for step in dict.fromkeys(reply.cited) if 0 <= step < steps)
    return tuple(step for step, count in mentions.items() if count * 2 > len(agreeing))


def _most(answers: Iterable[bool]) -> bool:
    """Whether more than half say yes."""
    said = list(answers)
    return sum(said) * 2 > len(said)


def _median(grades: Sequence[int]) -> int:
    """The lower one of two; 0 if there are none."""
    return sorted(grades)[(len(grades) - 1) // 2] if grades else 0

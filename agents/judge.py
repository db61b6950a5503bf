"""The judge: decides from the transcript alone whether an episode was successful. It never sees rewards.

Where an environment has a programmatic check, that check decides what is accepted and the verdict is
kept beside it.
"""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from tutelage.agents.requests import judge_request
from tutelage.agents.views import judge_view
from tutelage.errors import TutelageError
from tutelage.llm import LLM
from tutelage.types import Trajectory, Verdict


class Judgement(BaseModel):
    """The judge's reply."""

    successful: bool
    reason: str = Field(min_length=1)
    cited: list[int] = []


def judge(trajectory: Trajectory, llm: LLM) -> Verdict:
    """Judge one trajectory; citations of steps that do not exist are left out.

    Raises:
        PolicyFailed: no usable answer after all retries.
        BudgetSpent: a limit was reached.
    """
    return _verdict(llm.structured(judge_request(judge_view(trajectory)), Judgement), trajectory, llm)


def judge_many(trajectories: Sequence[Trajectory], llm: LLM) -> list[Verdict | TutelageError]:
    """Verdicts in order, asked for at once; one that could not be had is its error in the list."""
    replies = llm.structured_many([judge_request(judge_view(trajectory)) for trajectory in trajectories], Judgement)
    return [
        reply if isinstance(reply, TutelageError) else _verdict(reply, trajectory, llm)
        for trajectory, reply in zip(trajectories, replies, strict=True)
    ]


def _verdict(reply: Judgement, trajectory: Trajectory, llm: LLM) -> Verdict:
    return Verdict(
        trajectory=trajectory.id,
        judge=llm.label,
        successful=reply.successful,
        reason=reply.reason,
        cited=tuple(dict.fromkeys(step for step in reply.cited if 0 <= step < len(trajectory.steps))),
    )

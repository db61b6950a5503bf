"""What followed on a reply, as a reward and a correction in words (after OpenClaw-RL, 2603.10165).

Each turn is judged from its successor alone: the user's next message or the tool's result. Several votes are asked
for; the majority decides, and without one the turn is unclear (0). Departures from the paper: a reward of -1 or +1
weights no policy gradient here but decides which turns of a conversation are learned from; of the corrections of the
votes that agree the longest is kept, as there, but it stands beside the turn and no teacher is conditioned on it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, field_validator

from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import fence, one_line
from tutelage.completion import AttemptFailed
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.llm import LLM
from tutelage.types import Frozen, Message

LENGTH = 400
"""Characters of a correction at most."""
SHORTEST = 10
"""A correction that is no longer than this says nothing."""
SEEN = 6000
"""Characters of each text that the judge is shown, from its end: what was asked, and what came of it, stand there."""


@dataclass(frozen=True)
class Exchange:
    """A reply, what it answered, and what came next."""

    situation: str
    reply: str
    successor: str
    by: Literal["user", "tool"]
    """Whose words came next."""


class Opinion(BaseModel):
    """One vote."""

    score: Literal[-1, 0, 1]
    correction: str = ""

    @field_validator("correction", mode="before")
    @classmethod
    def _said_nothing(cls, value: object) -> object:
        return "" if value is None else value


class Signal(Frozen):
    """What a turn's successor says about it."""

    reward: int = 0
    """-1, 0 or +1."""
    correction: str = ""
    """Where it is negative, and somebody could say it."""
    votes: tuple[int, ...] = ()


def signals(exchanges: Sequence[Exchange], llm: LLM, *, votes: int) -> list[Signal]:
    """What each successor says, in order; votes without a usable answer are missing among the votes, as long as at
    least half are usable.

    Args:
        votes: per exchange; an embedded judge, which always says the same, is asked once.

    Raises:
        BudgetSpent: a limit was reached, or the provider refuses every call.
        AttemptFailed: the provider cannot be reached now.
        TutelageError: the judge gives no usable answers; that says nothing about the reply.
    """
    count = 1 if llm.embedded else votes
    asked = [feedback_request(item) for item in exchanges for _ in range(count)]
    answers = llm.structured_many(asked, Opinion)
    for answer in answers:
        if isinstance(answer, BudgetSpent) or (isinstance(answer, AttemptFailed) and answer.failure.transient):
            raise answer
    ballots = [answers[start : start + count] for start in range(0, len(answers), count)]
    for ballot in ballots:
        failed = [answer for answer in ballot if isinstance(answer, TutelageError)]
        if len(failed) * 2 > len(ballot):
            raise failed[0]
    return [_signal(ballot) for ballot in ballots]


def feedback_request(item: Exchange) -> list[Message]:
    body = [
        f"Next: {item.by}",
        fence("situation", item.situation[-SEEN:]),
        fence("reply", item.reply[-SEEN:]),
        fence("feedback", item.successor[-SEEN:]),
    ]
    return [Message(role="system", content=prompt("feedback")), Message(role="user", content="\n".join(body))]


def _signal(ballot: Sequence[Opinion | TutelageError]) -> Signal:
    opinions = [answer for answer in ballot if isinstance(answer, Opinion)]
    counted = Counter(opinion.score for opinion in opinions)
    reward = next((score for score, count in counted.items() if count * 2 > len(ballot)), 0)
    said = [one_line(opinion.correction) for opinion in opinions if opinion.score == reward == -1]
    best = max(said, key=len, default="")
    return Signal(
        reward=reward,
        correction=best[:LENGTH] if len(best) > SHORTEST else "",
        votes=tuple(opinion.score for opinion in opinions),
    )

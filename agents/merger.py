"""The merger: whether two notes of memory that are alike in their words say the same.

What has to agree whatever a model says (`tutelage.memory.polarity`) is decided before it is asked, by rule.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import fence
from tutelage.agents.views import MergerView, merger_view
from tutelage.errors import TutelageError
from tutelage.experience import Experience
from tutelage.llm import LLM
from tutelage.types import Message

Relation = Literal["same", "opposite", "different"]


class Comparison(BaseModel):
    """The merger's reply."""

    reason: str = ""
    relation: Relation


def relate_many(pairs: Sequence[tuple[Experience, Experience]], llm: LLM) -> list[Relation | TutelageError]:
    """What the merger says of each pair, in order; one that could not be had is its error in the list."""
    replies = llm.structured_many([merger_request(merger_view(*pair)) for pair in pairs], Comparison)
    return [reply.relation if isinstance(reply, Comparison) else reply for reply in replies]


def merger_request(view: MergerView) -> list[Message]:
    notes = "\n".join(f"{n}: {content.model_dump_json()}" for n, content in enumerate((view.first, view.second), 1))
    body = [f"Environment: {view.environment}", f"Family: {view.family}", fence("existing", notes)]
    return [Message(role="system", content=prompt("merger")), Message(role="user", content="\n".join(body))]

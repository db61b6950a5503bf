"""A language model as an acting policy; the embedded expert is one of them."""

from collections.abc import Sequence

from tutelage.errors import BudgetSpent, TutelageError
from tutelage.llm import LLM
from tutelage.types import Context, Reply


class LLMPolicy:
    """Asks an `LLM` once per context; a context that fails for good is an error reply, not an exception."""

    def __init__(self, llm: LLM, label: str | None = None) -> None:
        self._llm = llm
        self._label = label or llm.label

    @property
    def label(self) -> str:
        return self._label

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in order.

        Raises:
            BudgetSpent: the budget allows no further call.
        """
        return [_reply(answer) for answer in self._llm.complete_many([context.messages for context in contexts])]

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept between calls."""


def _reply(answer: str | TutelageError) -> Reply:
    if isinstance(answer, BudgetSpent):
        raise answer
    return Reply("", error=str(answer)) if isinstance(answer, TutelageError) else Reply(answer)

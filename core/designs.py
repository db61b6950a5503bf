"""What task design adds to the nouns of `tutelage.types`: personas, designed tasks, and the judge's hints."""

from typing import Any, Final

from pydantic import Field

from tutelage.types import Frozen, Task

DESIGNED: Final = "designed"
"""Family of the tasks that were designed freely."""
CUTS: Final = 3
"""Places in one exploration at which the designer is asked; the first step is none, as in A3."""
EXPLORED: Final = "explored"
"""Family of the episodes in which an explorer looks around; nothing solves them."""


class Persona(Frozen):
    """Somebody who would use an environment; makes designed tasks differ (after A3, 2604.07776)."""

    name: str = Field(min_length=1, max_length=80)
    description: str = Field(min_length=1, max_length=400)
    interests: tuple[str, ...] = Field((), max_length=8)

    def __str__(self) -> str:
        likes = f" Interests: {', '.join(self.interests)}." if self.interests else ""
        return f"{self.name}: {self.description}{likes}"


class Design(Frozen):
    """A task that was designed rather than drawn: what an environment needs to play it.

    The hint that its designer wrote for the judge is kept apart (`Hint`); there is no field for it here.
    """

    task: Task
    """Of the family `DESIGNED` or `EXPLORED`, split train; its seed is its number within the environment."""
    base: Task
    """A task of the train split; the designed one begins in its start state."""
    goal: str = Field(min_length=1)
    end: dict[str, Any] | None = None
    """The wanted end in the environment's own form (`Environment.design_guide`); None: nothing solves it."""
    template: str = ""
    values: dict[str, str] = {}
    persona: str = ""
    """Name of the persona it was designed for."""
    author: str = ""
    """Label of the designer."""
    by_rule: bool = False
    """Whether a program filled in the end, so that the environment's check alone decides what is accepted."""


class Hint:
    """What a designer tells the judge, and nobody else.

    Not a text, and not to be had as one by accident: formatting, joining and JSON give it away nowhere. Only the
    judge's request calls `reveal`.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for the judge's request and for keeping it."""
        return self._text

    def __repr__(self) -> str:
        return "<hint withheld>"

    __str__ = __repr__

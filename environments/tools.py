"""What environments of tools share: tools offered per episode, calls checked against their schemas."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tutelage import tools as tooling
from tutelage.calls import Call
from tutelage.environments.base import Environment, Outcome
from tutelage.tools import check_call, with_listing
from tutelage.types import Cause, Diagnosis, Tool

NOTHING_YET = "No tool was called yet."
"""First observation where there is nothing else to see."""
OBSERVATION_LENGTH = 1200
"""Characters of a result that the agent sees; a small student's context is short."""


class ToolEnvironment(Environment):
    """An environment whose actions are calls to tools.

    A subclass implements `start`, which calls `offer`, and `invoke`. The result of a call is the next
    observation; it is data, whatever it says.
    """

    system: str = ""
    example = 'tool({"argument": "value"})'
    intro: ClassVar[str]
    """What the environment is, as the first line of the system message; the tools follow it."""

    @classmethod
    def meaning(cls, action: str, observation: str) -> str:
        return tooling.meaning(action)

    def offer(self, tools: Sequence[Tool]) -> None:
        """Offer these tools in this episode; the system message says so."""
        self.tools = tuple(tools)
        self.system = with_listing(self.intro, self.tools)

    def act(self, call: Call) -> Outcome:
        return self.invoke(call.name, check_call(call, self.tools))

    @abstractmethod
    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """Carry out one call whose arguments fit the tool's schema.

        Raises:
            ActionRefused: the tool could not do it; its message for the agent.
            EnvironmentBroken: the environment itself failed.
        """

    def diagnose(self, before: str, action: str, outcome: Outcome) -> Diagnosis:
        """As everywhere, but a call whose result reads like the one before it is not without effect."""
        found = super().diagnose(before, action, outcome)
        return found.model_copy(update={"cause": Cause.PROGRESS, "evidence": ""}) if _same(found) else found


def shorten(text: str, length: int = OBSERVATION_LENGTH) -> str:
    """`text` with its middle left out, saying how much, where it is longer than `length` characters."""
    if len(text) <= length:
        return text
    head, tail = text[: 2 * length // 3], text[-(length // 3) :]
    return f"{head}\n[... {len(text) - len(head) - len(tail)} characters left out ...]\n{tail}"


def _same(found: Diagnosis) -> bool:
    return found.cause is Cause.NO_EFFECT

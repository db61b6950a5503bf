"""BFCL v4 multi-turn as an episode: the user asks, tools are called, `end_turn()` gives the user the floor.

An episode is won only if every turn passes the official checkers, which see full results; the agent sees long ones
shortened. The reference solution of a task is at `gold`, for the oracle and for nothing else.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from tutelage.environments.base import Outcome
from tutelage.environments.bfcl import data
from tutelage.environments.bfcl.checker import Referee
from tutelage.environments.bfcl.data import Scenario
from tutelage.environments.bfcl.offer import END_TURN, added_tools, first_tools
from tutelage.environments.bfcl.split import numbers
from tutelage.environments.bfcl.world import World, is_error
from tutelage.environments.tools import NOTHING_YET, ToolEnvironment, shorten
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.tools import signature, write_call
from tutelage.types import Cause, Diagnosis, Split, Task

OVER = "The user has no more requests."
OVERGROWN = "The file system cannot be searched any more; the session ends."


class Bfcl(ToolEnvironment):
    """200 scenarios, each in four families; the seed is the scenario's number."""

    name: ClassVar[str] = "bfcl"
    trust: ClassVar[float] = 1.0
    intro: ClassVar[str] = (
        "You do what the user asks by calling tools, one call per reply, with one JSON object: "
        'tool({"argument": value}). When nothing is left to call, or something is missing, reply end_turn(); '
        "the user may then ask for more."
    )
    turns: ClassVar[int | None] = None
    """Turns of a scenario that are played; None means all."""
    most_tools: ClassVar[int] = 14

    _world: World | None = None

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return data.FAMILIES

    @classmethod
    def seeds(cls, split: Split, family: str) -> Sequence[int]:
        return numbers(split)

    @classmethod
    def gold(cls, task: Task) -> tuple[str, ...]:
        """The actions of BFCL's reference solution, `end_turn()` included.

        Raises:
            UnknownName: there is no such task.
        """
        written: list[str] = []
        for turn in cls._scenario(task).gold[: cls.turns]:
            written += [write_call(call.name, call.arguments) for call in turn]
            written.append(f"{END_TURN.name}()")
        return tuple(written)

    def start(self, task: Task) -> tuple[str, str]:
        scenario = self._scenario(task)
        self._playing = scenario
        self._length = len(scenario.turns[: self.turns])
        self._world, self._referee = World(scenario), Referee(scenario)
        self._problem = ""
        self.offer(first_tools(scenario, self._length, self.most_tools))
        return scenario.turns[0], NOTHING_YET

    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if self._world is None:
            raise EnvironmentBroken("there is no episode; reset the environment first")
        if name == END_TURN.name:
            return self._hand_over(self._world)
        result = self._world.call(name, arguments)
        if self._world.overgrown():
            self._world = None
            return Outcome(OVERGROWN, terminated=True)
        self._referee.saw(result)
        self._problem = is_error(result)
        return Outcome(shorten(result), credit=self._credit)

    def diagnose(self, before: str, action: str, outcome: Outcome) -> Diagnosis:
        """As for all tools; a call that the API answered with an error has failed."""
        found = super().diagnose(before, action, outcome)
        problem, self._problem = self._problem, ""
        if outcome.terminated or not problem:
            return found
        return found.model_copy(update={"cause": Cause.ACTION_FAILED, "evidence": shorten(problem, 200)})

    @property
    def _credit(self) -> float:
        return self._referee.passed / self._length

    def _hand_over(self, world: World) -> Outcome:
        """Close the turn; the user goes on, or the episode is over."""
        self._referee.close_turn(world)
        self._visited.clear()  # a new request is a new situation
        turn = self._referee.turn
        if turn == self._length:
            self._world = None
            return Outcome(OVER, float(self._referee.all_passed), terminated=True, credit=self._credit)
        # The system message of a running conversation cannot change, so the user's message brings new tools along.
        new = added_tools(self._playing, turn)
        self.tools = (*self.tools, *new)
        lines = [f"User: {self._playing.turns[turn] or data.more_tools_message()}"]
        if new:
            lines += ["New tools:", *map(signature, new)]
        return Outcome("\n".join(lines), credit=self._credit)

    @classmethod
    def _scenario(cls, task: Task) -> Scenario:
        return data.scenario(task.family, task.seed)


class BfclSingle(Bfcl):
    """The first turn of the base scenarios: what a small student can hope to learn."""

    name: ClassVar[str] = "bfcl-single"
    turns: ClassVar[int | None] = 1
    most_tools: ClassVar[int] = 8

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return ("base",)

    @classmethod
    def _scenario(cls, task: Task) -> Scenario:
        if task.family not in cls.families():
            raise UnknownName(f"unknown bfcl-single family {task.family!r}; known: {', '.join(cls.families())}")
        return super()._scenario(task)

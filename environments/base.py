"""The environment protocol: Gymnasium's `Env` over text, with tasks, meanings and diagnoses."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium

from tutelage.calls import Call, CallError, parse_call
from tutelage.designs import Design
from tutelage.errors import DesignRefused, TutelageError
from tutelage.registry import names, resolve
from tutelage.types import Cause, Diagnosis, Split, Task, Tool

BUILTIN = {
    "bfcl": "tutelage.environments.bfcl:Bfcl",
    "bfcl-single": "tutelage.environments.bfcl:BfclSingle",
    "files": "tutelage.environments.files:Files",
    "mcp": "tutelage.environments.mcp:Mcp",
    "miniwob": "tutelage.environments.miniwob:MiniWoB",
    "research": "tutelage.environments.research:Research",
    "sqlite": "tutelage.environments.sqlite:Sqlite",
    "toy": "tutelage.environments.toy:Toy",
}
ENTRY_POINTS = "tutelage.environments"
SEEDS_PER_SPLIT = 1_000_000
UNTRUSTED = 0.2
"""Trust in what an environment shows that says nothing about itself."""


class TargetError(CallError):
    """The action names something that the observation does not show."""


class ActionRefused(TutelageError):
    """The action is well-formed but could not be carried out; the message is for the agent."""


@dataclass(frozen=True)
class Outcome:
    """What an action led to. `terminated` with a reward above 0 means solved."""

    observation: str
    reward: float = 0.0
    terminated: bool = False
    credit: float = 0.0
    """Share of the task that is done, 0 to 1, where the environment can tell. It may shape a training reward and is
    never the score."""


class Environment(gymnasium.Env[str, str]):
    """One episode at a time; instances are independent and may run in threads of their own.

    A subclass names itself (`name`, `system`), lists its task `families`, and implements `start` and
    `act`; it never diagnoses by itself. The same task gives the same episode.
    """

    name: ClassVar[str]
    system: str
    """System message: what this environment is and which actions it takes; may differ by episode."""
    tools: tuple[Tool, ...] = ()
    """Tools of the present episode that the system message lists (`tutelage.environments.tools`)."""
    example: str = 'click("r1")'
    """A call as this environment takes it, shown to an agent whose reply is none."""

    trust: ClassVar[float] = UNTRUSTED
    """How far the words that it shows are trusted, 0 to 1, unless `memory.trust.environments` says otherwise. 1 for a
    sandbox in which everything to be read was made by its own code; what others can write into is not trusted."""
    design_guide: ClassVar[str] = ""
    """For a task designer: what the wanted end of a task may be and how it is written, with an example; empty where
    tasks cannot be designed freely."""
    designs: ClassVar[Mapping[str, Design]] = {}
    """Designed tasks that this class can play, by the task's id (`with_designs`)."""

    task: Task
    observation: str = ""

    @classmethod
    @abstractmethod
    def families(cls) -> tuple[str, ...]:
        """All task families, sorted."""

    @classmethod
    def configured(cls, **settings: Any) -> "type[Environment]":
        """The class that these settings stand for. Override where they decide which tasks there are, and return a
        class that has them built in and needs none to be made."""
        return cls

    @classmethod
    def for_evaluation(cls, **settings: Any) -> "Environment":
        """An instance that carries nothing over from one episode to the next; override where the
        ordinary one reuses anything."""
        return cls(**settings)

    @classmethod
    def with_designs(cls, designs: Sequence[Design]) -> "type[Environment]":
        """The class that can also play these designed tasks; `start` finds them in `designs`."""
        known = {**cls.designs, **{design.task.id: design for design in designs}}
        return type(cls.__name__, (cls,), {"designs": known, "__module__": cls.__module__, "__doc__": cls.__doc__})

    @classmethod
    def check_design(cls, design: Design) -> None:
        """Whether the design can be played, checked, and is not solved at its start.

        Raises:
            DesignRefused: it is not; one line for its designer.
        """
        raise DesignRefused(f"tasks of the {cls.name} environment are drawn, not designed")

    @classmethod
    def seeds(cls, split: Split, family: str) -> Sequence[int]:
        """The seeds of a family's tasks in a split; those of different splits are disjoint. Override where the
        tasks are a fixed set."""
        first = list(Split).index(split) * SEEDS_PER_SPLIT
        return range(first, first + SEEDS_PER_SPLIT)

    @classmethod
    def tasks(cls, split: Split, families: Sequence[str] = (), *, count: int = 1, start: int = 0) -> list[Task]:
        """`count` tasks of each family from the `start`-th on; after its last task a family begins again."""
        found = []
        for family in families or cls.families():
            seeds = cls.seeds(split, family)
            places = range(start, start + count) if seeds else ()
            found += [
                Task(environment=cls.name, family=family, seed=seeds[place % len(seeds)], split=split)
                for place in places
            ]
        return found

    @abstractmethod
    def start(self, task: Task) -> tuple[str, str]:
        """Begin the task; returns goal and first observation.

        Raises:
            EnvironmentBroken: the environment itself failed.
        """

    @abstractmethod
    def act(self, call: Call) -> Outcome:
        """Carry out one well-formed call.

        Raises:
            CallError: no such action, or wrong arguments.
            TargetError: the target is not in the observation.
            ActionRefused: it could not be carried out.
            EnvironmentBroken: the environment itself failed.
        """

    @classmethod
    def meaning(cls, action: str, observation: str) -> str:
        """`action` with its references replaced by what `observation` shows there, e.g.
        ``click(button 'Submit')``; the empty string where it is not well-formed. Text only, so that
        guardrails can be checked before anything runs and skills can be read without the page."""
        try:
            return str(parse_call(action))
        except CallError:
            return ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; `options` holds ``{"task": Task}`` or ``{"family": name}`` beside `seed`.

        Returns:
            The first observation and ``{"goal": str}``.
        """
        super().reset(seed=seed)
        options = options or {}
        family = options.get("family") or self.families()[0]
        self.task = options.get("task") or self.tasks(Split.TRAIN, [family], start=seed or 0)[0]
        self._visited: set[tuple[str, str]] = set()
        goal, self.observation = self.start(self.task)
        return self.observation, {"goal": goal}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action, well-formed or not.

        Returns:
            Observation, reward, terminated, truncated (always False; the runner limits steps) and
            ``{"diagnosis": Diagnosis, "credit": float}``.

        Raises:
            EnvironmentBroken: the environment itself failed.
        """
        before = self.observation
        problem: Diagnosis | None = None
        try:
            outcome = self.act(parse_call(action, self.example))
        except TargetError as error:
            outcome, problem = Outcome(before), Diagnosis(cause=Cause.UNKNOWN_TARGET, evidence=str(error))
        except CallError as error:
            outcome, problem = Outcome(before), Diagnosis(cause=Cause.INVALID_ACTION, evidence=str(error))
        except ActionRefused as error:
            outcome, problem = Outcome(before), Diagnosis(cause=Cause.ACTION_FAILED, evidence=str(error))
        self.observation = outcome.observation
        diagnosis = problem or self.diagnose(before, action, outcome)
        info = {"diagnosis": diagnosis, "credit": outcome.credit}
        return outcome.observation, outcome.reward, outcome.terminated, False, info

    def diagnose(self, before: str, action: str, outcome: Outcome) -> Diagnosis:
        """The enumerated cause and the difference in lines between the two observations."""
        old, new = before.splitlines(), outcome.observation.splitlines()
        added = tuple(line.strip() for line in new if line not in old)
        removed = tuple(line.strip() for line in old if line not in new)
        if outcome.terminated:
            cause = Cause.SOLVED if outcome.reward > 0 else Cause.WRONG_END
            evidence = "" if outcome.reward > 0 else "The task ended and was not accepted."
        elif (before, action) in self._visited:
            cause, evidence = Cause.REPEATED, "You did this before in the same situation; do something else."
        elif old == new:
            cause, evidence = Cause.NO_EFFECT, "Nothing changed."
        else:
            cause, evidence = Cause.PROGRESS, ""
        self._visited.add((before, action))
        return Diagnosis(cause=cause, evidence=evidence, added=added, removed=removed)


def environment_class(name: str) -> type[Environment]:
    """The environment class that `name` stands for.

    Raises:
        UnknownName: listing what exists.
    """
    return resolve(name, BUILTIN, what="environment", group=ENTRY_POINTS)


def environment_names() -> dict[str, str]:
    """Short name → dotted path of every environment known here."""
    return names(BUILTIN, ENTRY_POINTS)

"""The oracle: replays the reference solution that an environment keeps for a task.

It is no teacher. It looks the solution up by the task's identity, which no language model is shown, so its
success says that the environment and its checks are in order and nothing about learning; its label says *oracle*
wherever results are shown. It is open loop as well: a solution is one path, so in a state off that path it has no
label to give, and gives none.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from tutelage.calls import CallError, parse_call
from tutelage.conversation import split_reply
from tutelage.environments.base import environment_class
from tutelage.errors import ConfigError, UnknownName
from tutelage.types import Context, Message, Reply, Split, Task

LABEL = "oracle (gold replay)"
OFF_PATH = "the oracle has no label off the gold path"


class HasGold(Protocol):
    """What the oracle needs of an environment's class beside the protocol of all environments."""

    def gold(self, task: Task) -> tuple[str, ...]:
        """The actions that solve a task, in order."""
        ...


def gold_of(task: Task) -> tuple[str, ...]:
    """The reference solution that the task's environment keeps.

    Raises:
        UnknownName: there is no such environment or no such task.
        ConfigError: the environment keeps no reference solutions.
    """
    environment = environment_class(task.environment)
    if not callable(getattr(environment, "gold", None)):
        raise ConfigError(f"environment {task.environment!r} keeps no reference solutions; the oracle needs them")
    return cast(HasGold, environment).gold(task)


class Oracle:
    """A policy that replays reference solutions, for checking environments; never a source of held-out labels."""

    def __init__(self, gold: Callable[[Task], tuple[str, ...]] = gold_of) -> None:
        self._gold = gold

    @property
    def label(self) -> str:
        return LABEL

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """The next action of each task's solution; a reply with an error where the episode has left it.

        Raises:
            UnknownName: a context is of no task that exists.
            ConfigError: its environment keeps no reference solutions.
        """
        return [self._next(context) for context in contexts]

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept."""

    def _next(self, context: Context) -> Reply:
        gold = self._gold(task_of(context.key))
        taken = [split_reply(message.content)[1] for message in context.messages if message.role == "assistant"]
        if len(taken) >= len(gold) or not all(map(_same, taken, gold)) or _blocked(context.messages):
            return Reply("", error=f"{OFF_PATH} ({context.key}, step {len(taken)})")
        return Reply(gold[len(taken)])


def task_of(key: str) -> Task:
    """The task that an episode's key names: ``environment/family@seed#place``.

    Raises:
        UnknownName: it names none.
    """
    name, _, _ = key.rpartition("#")
    environment, _, rest = name.partition("/")
    family, _, seed = rest.rpartition("@")
    try:
        number = int(seed)
    except ValueError as error:
        raise UnknownName(f"{key!r} is not the key of an episode") from error
    cls = environment_class(environment)
    split = next((split for split in Split if number in cls.seeds(split, family)), None)
    if split is None:
        raise UnknownName(f"{environment}/{family} has no task {number}")
    return Task(environment=environment, family=family, seed=number, split=split)


def _same(taken: str, gold: str) -> bool:
    try:
        return parse_call(taken) == parse_call(gold)
    except CallError:
        return False


def _blocked(messages: Sequence[Message]) -> bool:
    """Whether a guardrail kept some action from being carried out; the conversation still shows it as taken."""
    notes = (message.content.partition("Observation:\n")[0] for message in messages[2:] if message.role == "user")
    return any("Blocked: " in note for note in notes)

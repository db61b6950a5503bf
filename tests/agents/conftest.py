"""Real toy episodes for judge and distiller: demonstrations, and the same with injected mistakes."""

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.config import ActConfig
from tutelage.environments.toy import Toy
from tutelage.llm import LLM
from tutelage.types import Context, Reply, Split, Trajectory


class Script:
    """Plays these actions in order."""

    label = "script (scripted)"

    def __init__(self, *actions: str) -> None:
        self.actions = actions

    def act(self, contexts: list[Context]) -> list[Reply]:
        turns = [sum(message.role == "assistant" for message in context.messages) for context in contexts]
        return [Reply(self.actions[turn]) for turn in turns]

    def forget(self, keys: object) -> None:
        pass


def expert(role: str) -> LLM:
    return LLM("expert/toy", role=role)


@pytest.fixture(scope="session")
def toy_episodes() -> list[Trajectory]:
    """Four demonstrations and eight mistaken episodes of each toy family."""
    teacher, act = LLMPolicy(expert("teacher")), ActConfig(width=4)
    demonstrations = run_episodes(Toy.tasks(Split.TRAIN, count=4), teacher, lambda _: Toy(), act=act)
    mistaken = Mistaken(teacher, rate=0.5, seed=1)
    return demonstrations + run_episodes(
        Toy.tasks(Split.TRAIN, count=8, start=100), mistaken, lambda _: Toy(), act=act, seed=1
    )


@pytest.fixture(scope="session")
def script() -> type[Script]:
    """A policy that is told what to do."""
    return Script

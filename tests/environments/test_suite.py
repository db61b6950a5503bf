"""Several environments as one sequence of tasks."""

from collections import Counter

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.agents.per_environment import PerEnvironment
from tutelage.calls import Call
from tutelage.config import ActConfig
from tutelage.environments.base import Environment, Outcome
from tutelage.environments.suite import Part, Suite
from tutelage.environments.toy import Toy
from tutelage.errors import ConfigError, UnknownName
from tutelage.types import Context, Reply, Split, Task


class Few(Environment):
    """Three train tasks and no others; what to answer is the seed."""

    name, system = "few", "Write say(n)."

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return ("only",)

    @classmethod
    def seeds(cls, split: Split, family: str) -> tuple[int, ...]:
        return (5, 8, 9) if split is Split.TRAIN else ()

    def start(self, task: Task) -> tuple[str, str]:
        return f"say {task.seed}", "go on"

    def act(self, call: Call) -> Outcome:
        return Outcome("over", float(call.args == (self.task.seed,)), terminated=True)


BOTH = Suite([Part(Toy, ("copy", "form", "press")), Part(Few, ("only",))])


def test_environments_and_families_have_equal_shares() -> None:
    tasks = BOTH.tasks(Split.TRAIN, 0, 60)
    assert Counter(task.environment for task in tasks) == {"toy": 30, "few": 30}
    assert Counter(task.family for task in tasks) == {"copy": 10, "form": 10, "press": 10, "only": 30}
    assert len({task.id for task in tasks}) == 33, "a fixed set begins again, and the rest does not repeat"


def test_stretches_are_disjoint_and_a_split_without_tasks_gives_none() -> None:
    first, second = BOTH.tasks(Split.TRAIN, 0, 30), BOTH.tasks(Split.TRAIN, 30, 30)
    assert {task.id for task in first if task.environment == "toy"}.isdisjoint(task.id for task in second)
    assert {task.environment for task in BOTH.tasks(Split.TEST, 0, 20)} == {"toy"}


def test_choosing_families_and_environments() -> None:
    assert BOTH.only(["toy/copy", "only"]).families == ("toy/copy", "few/only")
    assert BOTH.only(environments=["few"]).families == ("few/only",)
    with pytest.raises(ConfigError, match="chess"):
        BOTH.only(["chess"])
    with pytest.raises(ConfigError, match="named once"):
        Suite.open([("toy", ["copy"], {}), ("toy", ["form"], {})])
    with pytest.raises(ConfigError, match="no task family chess"):
        Suite.open([("toy", ["chess"], {})])


class Says:
    """Says the number that the goal names, or presses whatever there is."""

    def __init__(self, label: str) -> None:
        self.label = label

    def act(self, contexts: list[Context]) -> list[Reply]:
        return [Reply(self._answer(context.messages[1].content)) for context in contexts]

    def _answer(self, text: str) -> str:
        goal = text.partition("\n")[0]
        return f"say({goal.split()[-1]})" if self.label == "few" else 'click("r2")'

    def forget(self, keys: list[str]) -> None:
        """Nothing is kept."""


def test_one_run_plays_in_all_of_them() -> None:
    made: Counter[str] = Counter()

    def make(name: str) -> Environment:
        made[name] += 1
        return BOTH.make(name)

    policy = PerEnvironment({"few": Says("few"), "toy": Says("toy")})
    found = run_episodes(BOTH.tasks(Split.TRAIN, 0, 12), policy, make, act=ActConfig(width=2, max_steps=2))
    assert all(item.success for item in found if item.task.environment == "few")
    assert {item.system for item in found} == {Few.system, Toy.system}
    assert made["few"] <= 2, "environments are kept"
    assert made["toy"] <= 2
    with pytest.raises(UnknownName, match="toy"):
        run_episodes(BOTH.tasks(Split.TRAIN, 0, 2), PerEnvironment({"few": Says("few")}), make, act=ActConfig())

"""The research expert: solves unseen questions from the text alone, and copes with mistakes made before it."""

from collections.abc import Iterator
from random import Random

import pytest

from tutelage.agents.experts import NoExpert, View, acceptable, advise, covered_families
from tutelage.environments.research import Research
from tutelage.tools import write_call
from tutelage.types import Split, Task

WRONG = (
    write_call("search", {"query": "Bridge"}),
    write_call("search", {"query": "xyzzy"}),
    write_call("python", {"code": "print(1 + 1)"}),
    write_call("python", {"code": "print(1 +"}),
    write_call("python", {"code": "x = 3"}),
    write_call("python", {"code": "print('[1] Orne: The Orne is a river of 9 km. Its bridges are A and B.')"}),
    "search(Orne)",
    "no action",
)


@pytest.fixture(scope="module")
def environment() -> Iterator[Research]:
    made = Research()
    yield made
    made.close()


def _play(environment: Research, task: Task, mistakes: Random | None = None) -> tuple[float, list[str]]:
    """Reward and actions of an episode; with `mistakes`, two of three actions are wrong up to the eighth."""
    observation, info = environment.reset(options={"task": task})
    observations, actions, reward, over = [observation], [], 0.0, False
    while not over and len(actions) < 20:
        action = advise("research", View(info["goal"], tuple(observations), tuple(actions))).actions[0]
        if mistakes and len(actions) < 8 and mistakes.random() < 0.6:
            action = mistakes.choice([*WRONG, *actions[-1:]])
        observation, reward, over, _, _ = environment.step(action)
        observations.append(observation)
        actions.append(action)
    return reward, actions


@pytest.mark.parametrize("family", Research.families())
def test_expert_solves_unseen_questions_in_two_to_five_calls(
    environment: Research, family: str, full_counts: bool
) -> None:
    for task in Research.tasks(Split.TEST, [family], count=60 if full_counts else 20):
        reward, actions = _play(environment, task)
        assert reward == 1.0, task.id
        assert 2 <= len(actions) <= 5, task.id
        assert any(action.startswith("search(") for action in actions)
        assert any(action.startswith("python(") for action in actions)


@pytest.mark.parametrize("family", Research.families())
def test_expert_copes_with_wrong_searches_wrong_code_and_malformed_calls(environment: Research, family: str) -> None:
    for task in Research.tasks(Split.VALIDATION, [family], count=10):
        assert _play(environment, task, Random(task.id))[0] == 1.0, task.id


def test_look_ups_and_operands_come_in_any_order() -> None:
    goal = "What is the combined population of the towns Aham and Bton?"
    first = View(goal, ("No tool was called yet.",))
    assert advise("research", first).actions == ('search({"query": "Aham"})', 'search({"query": "Bton"})')
    found = "[1] Aham: Aham is a town of 12 people.\n[2] Bton: The town of Bton has 30 people."
    second = View(goal, (*first.observations, found), ('search({"query": "Aham Bton"})',))
    assert acceptable("research", second, 'python({"code": "print(30 + 12)"})')
    assert not acceptable("research", second, 'python({"code": "print(30 - 12)"})')
    assert not acceptable("research", second, 'answer({"value": "18"})')


def test_a_wrong_result_is_not_answered_and_an_equal_one_is() -> None:
    goal = "What is the mean height in m of the bridges over the Orne? Round to one decimal."
    found = "[1] Orne: Its bridges are A Bridge and B Bridge.\n[2] A Bridge: 10 m high\n[3] B Bridge: 15 m high"
    for printed, answered in [("25", False), ("12.5", True), ("12.50", True), ("mean 12.5", False)]:
        view = View(goal, (found, f"Printed: {printed}"), ('python({"code": "print(m)"})',))
        assert advise("research", view).actions[0].startswith("answer(" if answered else "python(")


def test_other_goals_are_not_its_own() -> None:
    assert covered_families("research") == Research.families()
    with pytest.raises(NoExpert, match="does not know this goal"):
        advise("research", View("What is the capital of France?", ("No tool was called yet.",)))

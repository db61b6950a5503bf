"""The scripted experts on real pages: a sample always, every covered family with --full-counts."""

from collections import Counter
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright")

from tutelage.agents.experts import View, expert_for
from tutelage.agents.experts.miniwob import COVERED
from tutelage.environments.miniwob import MiniWoB
from tutelage.types import Split, Task

SAMPLE = (
    "choose-list",
    "click-checkboxes-large",
    "click-tab-2-hard",
    "email-inbox-reply",
    "enter-date",
    "login-user-popup",
    "multi-layouts",
    "search-engine",
)
FIRST_SEED = 7000
"""None of the episodes from here on was looked at while the experts were written."""
LONGEST = 40


@pytest.fixture(scope="module")
def environment() -> Iterator[MiniWoB]:
    miniwob = MiniWoB()
    yield miniwob
    miniwob.close()


def solves(environment: MiniWoB, task: Task) -> bool:
    expert = expert_for("miniwob")
    observation, info = environment.reset(options={"task": task})
    observations, actions = [observation], []
    while len(actions) < LONGEST:
        _, action = expert(View(info["goal"], tuple(observations), tuple(actions)))
        observation, reward, over, _, _ = environment.step(action)
        if over:
            return reward > 0
        observations.append(observation)
        actions.append(action)
    return False


def test_experts_solve_what_they_claim(environment: MiniWoB, full_counts: bool) -> None:
    families, count = (COVERED, 20) if full_counts else (SAMPLE, 3)
    tasks = MiniWoB.tasks(Split.TRAIN, families, count=count, start=FIRST_SEED)
    solved = Counter(task.family for task in tasks if solves(environment, task))
    weak = {family: f"{solved[family]}/{count}" for family in families if solved[family] < 0.95 * count}
    assert not weak

"""The oracle through the acting graph: the official checkers accept every reference solution."""

import time

from tutelage.agents.graph import run_episodes
from tutelage.agents.oracle import Oracle
from tutelage.config import ActConfig
from tutelage.environments import environment_class
from tutelage.environments.bfcl import Bfcl
from tutelage.types import Ending, Split, Task


def test_oracle_solves_every_task(full_counts: bool) -> None:
    """All 800 in under a minute of processor time; as a sample, every tenth scenario in all four families."""
    tasks: list[Task] = []
    for family in Bfcl.families():
        for split in Split:
            seeds = [seed for seed in Bfcl.seeds(split, family) if full_counts or seed % 10 == 3]
            tasks += [Task(environment="bfcl", family=family, seed=seed, split=split) for seed in seeds]
    begun = time.process_time()
    done = run_episodes(tasks, Oracle(), lambda name: environment_class(name)(), act=ActConfig(width=8, max_steps=40))
    seconds = time.process_time() - begun
    assert len(done) == (800 if full_counts else 80)
    assert [trajectory.task.id for trajectory in done if trajectory.ending is not Ending.SOLVED] == []
    assert {trajectory.policy for trajectory in done} == {Oracle().label}
    assert seconds < 60

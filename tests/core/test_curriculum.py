"""Drawn tasks follow the student's need and are never taken twice."""

from collections import Counter

from tutelage.curriculum import choose, need, needs
from tutelage.environments.suite import Suite
from tutelage.types import Ending, Split, Task, Trajectory


def played(family: str, seed: int, *, success: bool) -> Trajectory:
    task = Task(environment="toy", family=family, seed=seed, split=Split.VALIDATION)
    ending = Ending.SOLVED if success else Ending.FAILED
    return Trajectory(task=task, goal="g", system="s", policy="student@1", memory=False, ending=ending)


def test_the_frontier_comes_before_what_always_fails_and_that_before_what_is_mastered() -> None:
    assert need(5, 10) > need(0, 10) > need(10, 10) > 0
    assert need(0, 0) == need(1, 2)


def test_families_are_drawn_by_need() -> None:
    suite = Suite.open([("toy", (), {})])
    mastered, frontier = suite.parts[0].families[:2]
    episodes = [played(mastered, n, success=True) for n in range(40)]
    episodes += [played(frontier, n, success=n % 2 == 0) for n in range(40)]
    weights = needs(suite.families, episodes)
    assert weights[f"toy/{frontier}"] > 5 * weights[f"toy/{mastered}"]
    drawn = Counter(task.family for task in choose(suite, 60, episodes, lambda task: False, seed=3))
    assert drawn[frontier] > drawn[mastered]


def test_used_and_held_out_tasks_are_never_taken() -> None:
    suite = Suite.open([("toy", (), {})])
    first = choose(suite, 30, [], lambda task: False, seed=1)
    taken = {task.id for task in first}
    second = choose(suite, 30, [], lambda task: task.id in taken, seed=1)
    assert len({task.id for task in first + second}) == 60
    assert all(task.split is Split.TRAIN for task in first + second)


def test_a_fixed_set_of_tasks_may_run_out() -> None:
    suite = Suite.open([("bfcl-single", (), {})])
    every = choose(suite, 10_000, [], lambda task: False, seed=0)
    assert 0 < len(every) == len({task.id for task in every}) < 10_000

"""A paced stage spends its rollouts at the frontier, the same ones whenever it is run."""

import json
from collections import Counter

from tutelage.environments.toy import Toy
from tutelage.stage_config import GrpoConfig
from tutelage.training.curriculum import Curriculum
from tutelage.types import Ending, Split, Trajectory

STAGE = GrpoConfig(curriculum="paced")
TASKS = Toy.tasks(Split.TRAIN, ["press", "form", "tick"], count=3)


def played(family, success, count=1, *, memory=False):
    (task,) = Toy.tasks(Split.TRAIN, [family])
    ending = Ending.SOLVED if success else Ending.FAILED
    one = Trajectory(task=task, goal="g", system="s", policy="student@1", memory=memory, ending=ending)
    return [one] * count


def test_families_are_drawn_by_what_the_student_can_half_do():
    before = (
        played("press", True, 30) + played("form", False, 30) + played("tick", True, 15) + played("tick", False, 15)
    )
    drawn = Counter(task.family for task in Curriculum(STAGE, TASKS, before, seed=1).draw(0, 300))
    # Laplace: 31/32 · 1/32 = 0.030, the same for never, and 1/4 for half.
    assert drawn["tick"] > 200
    assert drawn["press"] > 0 < drawn["form"]
    hard = STAGE.model_copy(update={"paced_alpha": 0.0, "paced_beta": 3.0})
    drawn = Counter(task.family for task in Curriculum(hard, TASKS, before, seed=1).draw(0, 300))
    assert drawn["form"] > drawn["tick"] > drawn["press"]


def test_only_what_was_played_without_memory_counts():
    curriculum = Curriculum(STAGE, TASKS)
    start = curriculum.weights()
    assert set(start.values()) == {0.25}
    curriculum.saw(played("press", True, 10, memory=True))
    assert curriculum.weights() == start
    curriculum.saw(played("press", True, 10))
    assert curriculum.weights()["toy/press"] < 0.1


def test_the_same_draw_after_going_on_and_every_task_in_turn():
    one, other = (Curriculum(STAGE, TASKS, seed=3) for _ in range(2))
    first = one.draw(0, 12)
    for family in ("press", "form", "tick"):
        mine = [task for task in first if task.family == family]
        assert mine == [TASKS[TASKS.index(mine[0]) + place % 3] for place in range(len(mine))]
    one.saw(played("form", True, 5))
    other.load(json.loads(json.dumps(one.state())))
    assert one.draw(1, 12) == other.draw(1, 12)
    assert one.draw(2, 12) != first


def test_an_extreme_exponent_still_draws():
    stage = STAGE.model_copy(update={"paced_alpha": 5000.0})
    assert len(Curriculum(stage, TASKS, seed=1).draw(0, 4)) == 4

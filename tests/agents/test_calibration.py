"""Calibration: figures as counted by hand, and episodes that tell a judge from a coin."""

import pytest

from tutelage.agents.calibration import calibrate, calibration_episodes
from tutelage.agents.judge import judge_many
from tutelage.agents.review import CANNOT_TELL, UNKNOWN_GOAL
from tutelage.config import ActConfig
from tutelage.environments.base import Environment
from tutelage.environments.files import Files
from tutelage.environments.toy import Toy
from tutelage.llm import LLM
from tutelage.stats import rate
from tutelage.types import Split, Trajectory, Verdict


def said(successful: bool, reason: str = "Because.", judge: str = "j") -> Verdict:
    return Verdict(trajectory="t", judge=judge, successful=successful, reason=reason)


CASES = [
    *[(said(True), True)] * 5,
    *[(said(True), False)] * 2,
    *[(said(False), True)] * 3,
    *[(said(False), False)] * 6,
    *[(said(False, CANNOT_TELL), True), (said(False, UNKNOWN_GOAL), False)],
]


def test_figures_are_as_counted_by_hand() -> None:
    found = calibrate(CASES, unanswered=4)
    assert (found.tp, found.fp, found.fn, found.tn) == (5, 2, 3, 6)
    assert (found.judge, found.n, found.positives, found.cannot_tell, found.unanswered) == ("j", 16, 8, 2, 4)
    assert (found.precision, found.recall, found.agreement) == (rate(5, 7), rate(5, 8), rate(11, 16))


@pytest.mark.parametrize(
    ("cases", "min_precision", "fit", "reason"),
    [
        (CASES, 0.7, True, "precision of j is 0.71 (0.36 to 0.92, 5 of 7), at least the 0.70 asked for"),
        (CASES, 0.8, False, "precision of j is 0.71 (0.36 to 0.92, 5 of 7), below the 0.80 asked for"),
        (
            [(said(False), False)] * 9,
            0.0,
            False,
            "j called none of 9 episodes successful, too few to know its precision",
        ),
        (
            [(said(True), True)] * 4 + [(said(False), False)] * 9,
            0.8,
            False,
            "j called 4 of 13 episodes successful, too",
        ),
        ([(said(True), True)] * 5, 0.8, True, "precision of j is 1.00 (0.57 to 1.00, 5 of 5), at least the 0.80"),
        (CASES[-2:], 0.0, False, "j judged no episode (it could not tell about 2,"),
        ([], 0.0, False, "j judged no episode"),
    ],
)
def test_a_judge_is_fit_by_its_measured_precision(
    cases: list[tuple[Verdict, bool]], min_precision: float, fit: bool, reason: str
) -> None:
    found = calibrate(cases, "j")
    assert found.fit(min_precision) is fit
    assert found.why(min_precision).startswith(reason)


def test_one_judge_at_a_time() -> None:
    with pytest.raises(ValueError, match="j, k"):
        calibrate([(said(True), True), (said(True, judge="k"), True)])


def make(name: str) -> Environment:
    return Toy() if name == "toy" else Files()


def told(trajectories: list[Trajectory]) -> dict[str, tuple[str, list[str]]]:
    return {item.task.id: (item.policy, [step.reply for step in item.steps]) for item in trajectories}


def test_episodes_are_solved_and_failed_ones_of_every_environment_and_the_same_each_time() -> None:
    tasks = [*Toy.tasks(Split.TRAIN, count=3), *Files.tasks(Split.TRAIN, ["append", "find", "move"], count=3)]
    finished: list[Trajectory] = []
    found = calibration_episodes(tasks, make, act=ActConfig(width=4), seed=3, on_finished=finished.append)
    assert sorted(item.task.id for item in found) == sorted(task.id for task in tasks)
    assert {item.id for item in finished} == {item.id for item in found}
    for name in ("toy", "files"):
        mine = [item for item in found if item.task.environment == name]
        assert {item.success for item in mine} == {True, False}
        by_expert = [item for item in mine if "mistakes" not in item.policy]
        assert all(item.success for item in by_expert)
        assert {item.task.family for item in by_expert} == {item.task.family for item in mine}
        assert len(by_expert) * 3 == len(mine)
    known = frozenset(task.id for task in tasks[::2])
    rest = calibration_episodes(tasks, make, act=ActConfig(width=2), seed=3, known=known)
    assert told(rest) == {task: done for task, done in told(found).items() if task not in known}


def test_the_scripted_judge_is_found_fit_and_one_that_always_agrees_is_not() -> None:
    tasks = Files.tasks(Split.TRAIN, ["append", "copy", "find", "rename"], count=6)
    episodes = calibration_episodes(tasks, make, act=ActConfig(width=4))
    verdicts = judge_many(episodes, LLM("expert/files", role="judge"))
    cases = [(verdict, item.success) for verdict, item in zip(verdicts, episodes, strict=True) if
             isinstance(verdict, Verdict)]  # fmt: skip
    assert len(cases) == len(tasks)
    scripted = calibrate(cases)
    assert scripted.fit(0.9)
    assert scripted.recall.rate > 0.9
    assert not calibrate([(said(True), solved) for _, solved in cases]).fit(0.9)

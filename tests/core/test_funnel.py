"""Who is accepted: the environment's check decides, and where a model wrote it the judge has to agree."""

from tutelage.designs import DESIGNED, Design
from tutelage.funnel import UNFIT, funnel, refusal
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory, Verdict


def task(number: int, family: str = DESIGNED) -> Task:
    return Task(environment="files", family=family, seed=number, split=Split.TRAIN)


def design(number: int, *, by_rule: bool) -> Design:
    return Design(task=task(number), base=task(1, "move"), goal=f"Goal {number}", end={"gone": ["a"]}, by_rule=by_rule)


def episode(number: int, ending: Ending, cause: Cause = Cause.PROGRESS) -> Trajectory:
    step = Step(observation="o", reply="done()", action="done()", diagnosis=Diagnosis(cause=cause), after="p")
    return Trajectory(
        task=task(number), goal="g", system="s", policy="teacher", memory=False, ending=ending, steps=(step,)
    )


def verdict(item: Trajectory, *, successful: bool) -> Verdict:
    return Verdict(trajectory=item.id, judge="j", successful=successful, reason="r", hinted=True)


def test_a_check_by_rule_decides_alone() -> None:
    solved = episode(1, Ending.SOLVED)
    rule = design(1, by_rule=True)
    assert refusal(solved, verdict(solved, successful=False), rule, fit=False) == ""
    assert refusal(solved, None, rule, fit=True) == "not judged"
    late = episode(1, Ending.STEP_LIMIT)
    assert refusal(late, verdict(late, successful=True), rule, fit=True) == "step limit"


def test_a_check_by_a_model_needs_a_fit_judge_that_agrees() -> None:
    solved, written = episode(1, Ending.SOLVED), design(1, by_rule=False)
    agrees, doubts = verdict(solved, successful=True), verdict(solved, successful=False)
    assert refusal(solved, agrees, written, fit=True) == ""
    assert refusal(solved, agrees, written, fit=False) == UNFIT
    assert refusal(solved, doubts, written, fit=True) == "the judge is not convinced"
    assert refusal(solved, None, written, fit=True) == "not judged"
    failed = episode(1, Ending.FAILED)
    assert refusal(failed, verdict(failed, successful=True), written, fit=True) == "failed"
    assert refusal(episode(1, Ending.SOLVED, Cause.NO_EFFECT), agrees, written, fit=True)


def test_every_loss_is_counted_once() -> None:
    designs = [design(number, by_rule=number < 3) for number in range(6)]
    episodes = [
        episode(0, Ending.SOLVED),
        episode(1, Ending.FAILED),
        episode(2, Ending.ENVIRONMENT_ERROR),
        episode(3, Ending.SOLVED),
        episode(4, Ending.SOLVED),
    ]
    # The judge had no answer for the first one; the third broke.
    verdicts = {item.id: verdict(item, successful=item.task.seed != 4) for item in episodes[1:] if item.task.seed != 2}
    found = funnel(
        asked={"files": 5},
        designs=designs,
        drawn=0,
        lost=["not a proposal", "not a proposal", "designed before"],
        episodes=episodes,
        verdicts=verdicts,
        fit=True,
        cycle=0,
    )
    counts = dict(found.counts)
    assert counts == {"asked": 5, "designed": 9, "valid": 6, "annotated": 5, "judged": 3, "accepted": 1}
    assert found.outcomes[episodes[0].task.id] == "not judged"
    lost = {point: sum(number for at, _, number in found.losses if at == point) for point in counts}
    assert counts["designed"] - lost["designed"] == counts["valid"]
    assert counts["valid"] - lost["valid"] == counts["annotated"]
    assert counts["annotated"] - lost["annotated"] == counts["judged"]
    assert counts["judged"] - lost["judged"] == counts["accepted"]


def test_a_failure_counts_as_one_only_if_its_check_can_be_believed() -> None:
    def failures(*, by_rule: bool, fit: bool, judge_says: bool | None) -> int:
        item = episode(1, Ending.FAILED)
        verdicts = {} if judge_says is None else {item.id: verdict(item, successful=judge_says)}
        found = funnel(
            asked={"files": 1},
            designs=[design(1, by_rule=by_rule)],
            drawn=0,
            lost=[],
            episodes=[item],
            verdicts=verdicts,
            fit=fit,
            cycle=0,
        )
        return len(found.failed)

    assert failures(by_rule=True, fit=False, judge_says=True) == 1
    assert failures(by_rule=False, fit=True, judge_says=False) == 1
    assert failures(by_rule=False, fit=True, judge_says=True) == 0, "the check may be wrong"
    assert failures(by_rule=False, fit=False, judge_says=False) == 0
    assert failures(by_rule=True, fit=True, judge_says=None) == 0

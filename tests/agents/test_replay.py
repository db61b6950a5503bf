"""Guardrails are active only on enough right actions that they leave alone, and on a mistake that they stop."""

import pytest

from tutelage.agents.replay import graded, replayed, standing
from tutelage.config import EvidenceConfig
from tutelage.experience import Experience, Guardrail, Source, Status
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory, Verdict

RULE = Guardrail(
    trigger=('*textbox "name" value=""',),
    root_cause="The name was missing.",
    forbidden='click(button "submit")',
    remedy="Fill it in first.",
)


def a_step(observation: str, meaning: str, cause: Cause = Cause.PROGRESS) -> Step:
    diagnosis = Diagnosis(cause=cause)
    return Step(observation=observation, reply="", action=meaning, meaning=meaning, diagnosis=diagnosis, after="")


EMPTY, FILLED = '[r1] textbox "name" value=""', '[r1] textbox "name" value="ann"'
FILL, SUBMIT = 'fill(textbox "name", "ann")', 'click(button "submit")'


def an_episode(seed: int, *steps: Step, solved: bool = True, family: str = "form") -> Trajectory:
    return Trajectory(
        task=Task(environment="toy", family=family, seed=seed, split=Split.TRAIN),
        goal="name ann then submit",
        system="",
        policy="p",
        memory=False,
        steps=steps,
        ending=Ending.SOLVED if solved else Ending.FAILED,
    )


def right(seed: int, family: str = "form") -> Trajectory:
    return an_episode(seed, a_step(EMPTY, FILL), a_step(FILLED, SUBMIT), family=family)


WRONG = an_episode(900, a_step(EMPTY, SUBMIT, Cause.WRONG_END), solved=False)
VERDICTS = {WRONG.id: Verdict(trajectory=WRONG.id, judge="j", successful=False, reason="early", cited=(0,))}
GUARDRAIL = Experience(
    environment="toy",
    family="form",
    goal="name ann then submit",
    content=RULE,
    sources=(Source(trajectory=WRONG.id, task=WRONG.task.id, steps=(0,)),),
    author="test",
)
STRICT = EvidenceConfig(max_blocked=0.05)


def outcome(trajectories: list[Trajectory], config: EvidenceConfig = STRICT) -> tuple[Status | None, str]:
    return standing(replayed(GUARDRAIL, trajectories, VERDICTS, config.confidence), config)


@pytest.mark.parametrize(("right_episodes", "status"), [(25, Status.CANDIDATE), (26, Status.ACTIVE)])
def test_active_once_the_upper_bound_of_wrongly_blocked_is_low_enough(right_episodes: int, status: Status) -> None:
    found = replayed(GUARDRAIL, [*map(right, range(right_episodes)), WRONG], VERDICTS, STRICT.confidence)
    made = graded(GUARDRAIL, found, STRICT, by="extraction")
    assert made is not None
    assert (made.status, made.version, made.change.by) == (status, GUARDRAIL.version, "extraction")
    numbers = made.change.numbers
    assert (numbers["mistakes stopped"], numbers["mistakes seen"]) == (1, 1)
    assert (numbers["right actions stopped"], numbers["right actions seen"]) == (0, 2 * right_episodes)
    assert (numbers["right actions high"] <= STRICT.max_blocked) is (status is Status.ACTIVE)


def test_one_right_action_in_a_few_refutes_it_and_one_in_very_many_does_not() -> None:
    stopped = an_episode(500, a_step(EMPTY, SUBMIT))
    assert outcome([*map(right, range(30)), stopped, WRONG]) == (None, "a guardrail that would stop a right step")
    assert outcome([*map(right, range(100)), stopped, WRONG])[0] is Status.ACTIVE


def test_what_does_not_count() -> None:
    """Other families, mistakes that were put right later, steps that did nothing, and broken episodes."""
    later = an_episode(501, a_step(EMPTY, SUBMIT), a_step(EMPTY, FILL))
    verdicts = VERDICTS | {later.id: Verdict(trajectory=later.id, judge="j", successful=True, reason="r", cited=(0,))}
    idle = an_episode(502, a_step(EMPTY, SUBMIT, Cause.NO_EFFECT), a_step(EMPTY, FILL))
    broken = an_episode(503, a_step(EMPTY, SUBMIT)).model_copy(update={"ending": Ending.ENVIRONMENT_ERROR})
    elsewhere = an_episode(504, a_step(EMPTY, SUBMIT), family="other")
    found = replayed(GUARDRAIL, [later, idle, broken, elsewhere, WRONG], verdicts, 0.9)
    assert (found.blocked.successes, found.blocked.episodes, found.stopped.successes) == (0, 2, 1)


def test_nothing_to_test_it_on_and_nothing_to_stop() -> None:
    assert outcome([WRONG])[0] is None
    assert outcome([right(seed) for seed in range(60)]) == (None, "a guardrail that would stop no recorded mistake")

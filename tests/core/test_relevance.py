"""Grades follow from what was done: an experience fits an episode, is kin to it, or is neither."""

from tutelage.experience import Content, Experience, Guardrail, Skill, Source, Sticker
from tutelage.questions import asked_in, details
from tutelage.relevance import grades
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory

GOAL = 'Enter "{}" into the text field and press Submit.'
TEMPLATE = GOAL.format("{text}")
FILL, SUBMIT = 'fill(textbox, "{goal}")', 'click(button "Submit")'


def _episode(word: str, *meanings: str, seed: int = 1, success: bool = True, family: str = "enter-text") -> Trajectory:
    page = f'[r1] textbox value="{word if success else ""}"\n[r2] button "Submit"'
    causes = [Cause.PROGRESS] * (len(meanings) - 1) + [Cause.SOLVED if success else Cause.WRONG_END]
    return Trajectory(
        task=Task(environment="miniwob", family=family, seed=seed, split=Split.TRAIN),
        goal=GOAL.format(word),
        system="",
        policy="expert/miniwob (scripted)",
        memory=False,
        steps=tuple(
            Step(observation=page, reply=m, action=m, meaning=m, diagnosis=Diagnosis(cause=cause), after="")
            for m, cause in zip(meanings, causes, strict=True)
        ),
        ending=Ending.SOLVED if success else Ending.FAILED,
    )


def _drawn(id: str, content: Content, source: Trajectory, **changes: object) -> Experience:
    values = {"id": id, "environment": "miniwob", "family": "enter-text", "goal": TEMPLATE, "author": "rules"}
    where = Source(trajectory=source.id, task=source.task.id)
    return Experience.model_validate({**values, "content": content, "sources": (where,), **changes})


def _skill(*procedure: str) -> Skill:
    return Skill(preconditions=(), procedure=procedure, verification=())


WAY, SHORT = _episode("cat", 'fill(textbox, "cat")', SUBMIT), _episode("", SUBMIT, seed=2)
EARLY = Guardrail(trigger=('*textbox value=""*',), root_cause="empty", forbidden=SUBMIT, remedy=f"Do {FILL} instead.")
STICKER = Sticker(conditions=("c",), question="q")
POOL = [
    _drawn("way", _skill(FILL, SUBMIT), WAY),
    _drawn("its sticker", STICKER, WAY),
    _drawn("part", _skill(SUBMIT), SHORT),
    _drawn("other sticker", STICKER, SHORT),
    _drawn("more", _skill(FILL, 'click(button "Help")', SUBMIT), SHORT),
    _drawn("early", EARLY, SHORT),
    _drawn("other rule", Guardrail(trigger=(), root_cause="r", forbidden="press(*)", remedy="m"), SHORT),
    _drawn("same goal", _skill(FILL, SUBMIT), WAY, family="enter-text-dynamic"),
    _drawn("other goal", _skill(FILL, SUBMIT), WAY, family="login-user", goal="Log in."),
    _drawn("elsewhere", _skill(FILL, SUBMIT), WAY, environment="toy"),
]


def test_a_success_is_fitted_by_the_whole_way_and_by_what_was_drawn_with_it() -> None:
    found = grades(_episode("dog", 'fill(textbox, "dog")', SUBMIT, seed=3), POOL)
    assert {key for key, grade in found.items() if grade == 2} == {"way", "its sticker", "same goal"}
    assert {key for key, grade in found.items() if grade == 1} == {
        "part", "other sticker", "more", "early", "other rule",
    }  # fmt: skip


def test_a_failure_is_fitted_by_the_rule_that_would_have_stopped_it() -> None:
    found = grades(_episode("dog", SUBMIT, seed=3, success=False), POOL)
    assert {key for key, grade in found.items() if grade == 2} == {"early"}
    # The same action in a success was no mistake.
    assert grades(_episode("", SUBMIT, seed=3), POOL)["early"] == 1


def test_questions_have_an_answer_that_was_not_drawn_from_their_own_task() -> None:
    def group(environment: str, family: str) -> str:
        return f"{environment}/{family}"

    again = _episode("dog", 'fill(textbox, "dog")', SUBMIT, seed=3)
    late = _episode("dog", SUBMIT, seed=4, success=False)
    episodes = [WAY, again, late]
    (asked,) = asked_in("situation", POOL, episodes, 2, group)
    assert (asked.task, asked.kinds) == (again.task.id, ("skill", "sticker"))
    assert asked.text == f"{again.goal}\n{again.first_observation}"
    assert not {"early", "other rule"} & asked.grades.keys()
    (mistake,) = asked_in("mistake", POOL, episodes, 2, group)
    assert (mistake.task, mistake.grades) == (late.task.id, {"early": 2, "other rule": 1})
    (goal,) = asked_in("goal", POOL, episodes, 2, group)
    assert (goal.text, goal.environment, goal.kinds) == (again.goal, None, ())
    (detail,) = details(POOL, [WAY], 2, group, seed=0)
    assert "cat" in detail.text
    assert {key for key, grade in detail.grades.items() if grade == 2} == {
        "way", "its sticker", "same goal", "other goal", "elsewhere",
    }  # fmt: skip

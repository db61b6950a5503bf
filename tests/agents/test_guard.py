"""Guardrails in code: triggers, negation, slots, and what is never blocked."""

import pytest

from tutelage.agents.guard import forbids
from tutelage.experience import Experience, Guardrail, Skill, Source

GOAL = "Select tea, soup and click Submit"
PAGE = '[r1] checkbox "tea" checked=true\n  [r2] checkbox "soup" checked=false\n[r3] button "Submit"'


def rule(*trigger: str, forbidden: str = 'click(button "Submit")') -> Experience:
    content = Guardrail(trigger=trigger, root_cause="too early", forbidden=forbidden, remedy="tick it first")
    source = Source(trajectory="trj_1", task="toy/boxes@0")
    return Experience(environment="toy", family="boxes", goal="", content=content, sources=(source,), author="test")


@pytest.mark.parametrize(
    ("guardrail", "meaning", "blocked"),
    [
        (rule('*checkbox "{goal}" checked=false'), 'click(button "Submit")', True),
        (rule('*checkbox "{goal}" checked=false'), 'click(button "Cancel")', False),
        (rule('*checkbox "{other}" checked=false'), 'click(button "Submit")', False),
        (rule('not *checkbox "{other}"*'), 'click(button "Submit")', True),
        (rule('not *checkbox "{goal}"*'), 'click(button "Submit")', False),
        (rule('*"soup"*', "not *dialog*", forbidden='click(checkbox "{other}")'), 'click(checkbox "milk")', True),
        (rule(), 'click(button "Submit")', True),
        (rule("*button*", forbidden="*"), "", False),
        (rule("not *{goal}"), 'click(button "Submit")', False),
    ],
)
def test_forbids(guardrail: Experience, meaning: str, blocked: bool) -> None:
    assert forbids([guardrail], meaning, PAGE, GOAL) == (guardrail if blocked else None)


def test_the_first_matching_guardrail_is_named_and_other_kinds_are_passed_over() -> None:
    skill = rule().model_copy(update={"content": Skill(preconditions=(), procedure=("*",), verification=())})
    miss, hit = rule('*radio "*"'), rule('*checkbox "soup"*')
    assert forbids([skill, miss, hit, rule()], 'click(button "Submit")', PAGE, GOAL) == hit

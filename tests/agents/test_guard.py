"""Guardrails in code: triggers, negation, slots, and what is never blocked."""

import random

import pytest

from tutelage.agents.guard import forbids
from tutelage.experience import Experience, Guardrail, Skill, Source
from tutelage.patterns import fits, matches, problem

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


@pytest.mark.parametrize(
    ("guardrail", "meaning", "page", "blocked"),
    [
        (rule(forbidden='write("{goal}", "*")'), f'write("tea", "{"a" * 5000}")', PAGE, True),
        (rule(forbidden='write("{goal}", "*")'), f'write("milk", "{"a" * 5000}")', PAGE, False),
        (rule(forbidden='write(*"{goal}"*)'), "write(" + '"milk", ' * 90_000 + ")", PAGE, True),  # cannot be told
        (rule(forbidden='send(*"{goal}"*)'), "write(" + '"milk", ' * 90_000 + ")", PAGE, False),
        (rule('*"soup"*', forbidden="*"), "noop()", f'"soup" {"x" * 5000}', True),
        (rule('not *"soup"*', forbidden="*"), "noop()", f'"soup" {"x" * 5000}', False),
        (rule('not *"{goal}"*', forbidden="*"), "noop()", '"milk", ' * 90_000, True),  # neither
        (rule('*"{goal}"*', forbidden="*"), "noop()", '"milk", ' * 90_000, True),
    ],
)
def test_who_is_careful_looks_at_long_texts_too(guardrail: Experience, meaning: str, page: str, blocked: bool) -> None:
    assert bool(forbids([guardrail], meaning, page, GOAL, careful=True)) is blocked


def test_a_long_text_fits_as_a_short_one_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, goal = random.Random(1), "a b ab"
    cases = [
        ("".join(draw.choices(["a", "b", '"', "ab", "*", "{goal}", "{other}"], k=draw.randint(1, 6))), text)
        for text in ("".join(draw.choices('ab"\\ ', k=draw.randint(0, 9))) for _ in range(5000))
    ]
    expected = [matches(pattern, text, goal) for pattern, text in cases]
    monkeypatch.setattr("tutelage.patterns.MAX_TEXT", -1)
    assert [fits(pattern, text, goal) for pattern, text in cases if not problem(pattern)] == [
        found for found, (pattern, _) in zip(expected, cases, strict=True) if not problem(pattern)
    ]
    assert sum(expected) > 100

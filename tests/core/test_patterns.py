"""The pattern language: what it matches, what it refuses, and that hostile input stays cheap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.patterns import MAX_TEXT, generalise, goal_template, matches, problem

LOGIN = 'Enter the username "bob" and the password "x\\y" and press login.'
BOXES = "Select tea, green soup and click Submit"


@pytest.mark.parametrize(
    ("pattern", "text", "goal", "expected"),
    [
        ('click(button "Submit")', 'click(button "Submit")', BOXES, True),
        ('click(button "Submit")', 'click(button "Submit")!', BOXES, False),
        ('*textbox "*" value=""*', '[r1] textbox "User" value="" focused', LOGIN, True),
        ('*checkbox "{goal}" checked=false', '[r1] checkbox "green soup" checked=false', BOXES, True),
        ('*checkbox "{goal}" checked=false', '[r1] checkbox "gree" checked=false', BOXES, False),
        ('*checkbox "{goal}" checked=false', '[r1] checkbox "Tea" checked=false', BOXES, False),
        ('click(checkbox "{other}")', 'click(checkbox "milk")', BOXES, True),
        ('click(checkbox "{other}")', 'click(checkbox "tea")', BOXES, False),
        ('click(checkbox "{other}")', 'click(checkbox "")', BOXES, False),
        ('fill(textbox "*", "{goal}")', 'fill(textbox "a", "bob")', LOGIN, True),
        ('fill(textbox "*", "{goal}")', r'fill(textbox "a", "x\\y")', LOGIN, True),
        ('*"{goal}"*"{goal}"*', 'a "no" b "bob" c "x\\\\y" d', LOGIN, True),
        ('*"{goal}"', '"bob" "eve"', LOGIN, False),
        ("a(.*)+$", "aaaa", "", False),
        ("*{goal}", "bob", LOGIN, False),
        ("", "", "", False),
    ],
)
def test_matches(pattern: str, text: str, goal: str, expected: bool) -> None:
    assert matches(pattern, text, goal) is expected


def test_an_unusable_pattern_says_why() -> None:
    assert "side by side" in problem("*{goal}")
    assert "limit" in problem("a*" * 20)
    assert "empty" in problem(" ")
    assert problem('click(link "{other}")') == ""


def test_generalise_keeps_the_fixed_wording() -> None:
    form = "write red as name and dog as place then press submit"
    assert generalise('fill(textbox "place", "dog")', form) == 'fill(textbox "place", "{goal}")'
    assert generalise('click(link "dog")', "go to the dog") == 'click(link "{goal}")'
    assert generalise('click(button "Submit")', 'Click the "Submit" button') == 'click(button "{goal}")'
    assert generalise('fill(textbox "Username", "bob")', LOGIN) == 'fill(textbox "Username", "{goal}")'
    assert generalise('click(checkbox "tea")', BOXES) == 'click(checkbox "{goal}")'
    assert generalise('click(button "Submit")', BOXES) == 'click(button "Submit")'


@pytest.mark.parametrize(
    ("goal", "template"),
    [
        (LOGIN, 'Enter the username "{text}" and the password "{text}" and press login.'),
        (BOXES, "Select {list} and click Submit"),
        ("Select words similar to big, kind and click Submit.", "Select words similar to {list} and click Submit."),
        ("Select 10/29/2016 as the date and hit submit.", "Select {list} as the date and hit submit."),
        ("Choose 10/29/2016 as the date and hit submit.", "Choose {date} as the date and hit submit."),
        ("Find the 3rd email by Mary Ann, add 12.5", "Find the {number} email by {name}, add {number}"),
        (
            "write red as name and dog as place then press submit",
            "write {text} as name and {text} as place then press submit",
        ),
        ("tick red and dog then press submit", "tick {list} then press submit"),
        ("press red", "press {text}"),
    ],
)
def test_goal_template(goal: str, template: str) -> None:
    assert goal_template(goal) == template


pieces = st.lists(st.sampled_from(["*", "{goal}", "{other}", '"', "a", "\\", "(", "b c", "[", "\n"]), max_size=60)


@given(pieces.map("".join), pieces.map("".join), pieces.map("".join))
def test_nothing_raises_and_a_generalised_literal_matches_its_text(pattern: str, text: str, goal: str) -> None:
    matches(pattern, text, goal)
    goal_template(goal)
    general = generalise(text, goal)
    if "*" not in text and "{" not in text and not problem(general):
        assert matches(general, text, goal)


def test_hostile_patterns_end() -> None:
    goal = "a " * 200
    for pattern in ("*a" * 15 + "b", "a{goal}" * 15, '*"{other}"a' * 5, "a{other}a*a{goal}a*b"):
        assert not matches(pattern, "a" * (MAX_TEXT - 1) + "c", goal)
    assert not matches("*", "a" * (MAX_TEXT + 1), goal)

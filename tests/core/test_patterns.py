"""The pattern language: what it matches, what it refuses, and that hostile input stays cheap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.patterns import MAX_TEXT, generalise, goal_template, matches, problem, slotted

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
        ("Rename report.txt to a_b.txt in the folder docs/old.", "Rename {file} to {file} in the folder {file}."),
        ("Move docs/a.tar.gz and 2024-plan.md to old/, then stop.", "Move {file} and {file} to {file}, then stop."),
        ("How many orders has Ana Lima placed?", "How many orders has {name} placed?"),
        ('Set the price of "lamp" to 12.50 by 2024-05-01.', 'Set the price of "{text}" to {number} by {date}.'),
        ("Don't copy 'final draft.pdf' and/or unit_price.", "Don't copy '{text}' and/or {name}."),
        ("Mail it to a.b@c.org e.g. at 10:30 AM.", "Mail it to a.b@c.org e.g. at {time}."),
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


SALE = 'Move report.txt into "docs" and set the price of Ana Lima to 12.'


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("No tool was called yet.", "No tool was called yet."),
        ('Moved "report.txt" to "docs/b.txt".', 'Moved "{goal}" to "{goal}/{other}".'),
        ("Ana Lima: 12 orders, 3 open", "{goal}: {goal} orders, {other} open"),
        ('{"name": "docs", "files": ["b.txt", "report.txt"]}', '{"name": "{goal}", "files": ["{other}", "{goal}"]}'),
        (" ".join("123456789"), "{other} {other} {other} {other} {other} {other} {other} {other} *"),
        ("**", ""),
        ("", ""),
    ],
)
def test_slotted(line: str, pattern: str) -> None:
    assert slotted(line, SALE) == pattern


def test_slotted_keeps_what_nobody_said() -> None:
    query = "SELECT id FROM price WHERE name = 'Ana Lima' AND id = 7 LIMIT 1"
    told = "SELECT {other} FROM {goal} WHERE name = '{goal}' AND {other} = {other} LIMIT 1"
    assert slotted(query, SALE, among=["price: id\n7"]) == told


@given(st.text(max_size=80), st.text(max_size=40))
def test_a_slotted_line_matches_its_line(line: str, goal: str) -> None:
    pattern = slotted(line, goal)
    assert not pattern or matches(pattern, line, goal)


def test_hostile_patterns_end() -> None:
    goal = "a " * 200
    for pattern in ("*a" * 15 + "b", "a{goal}" * 15, '*"{other}"a' * 5, "a{other}a*a{goal}a*b"):
        assert not matches(pattern, "a" * (MAX_TEXT - 1) + "c", goal)
    assert not matches("*", "a" * (MAX_TEXT + 1), goal)

"""Scripted experts as far as they need no browser."""

import pytest

from tutelage.agents.experts import NoExpert, View, acceptable, expert_for
from tutelage.agents.experts.page import Page, parse
from tutelage.environments.toy import Toy
from tutelage.errors import UnknownName
from tutelage.types import Split

CHECKBOXES = "\n".join(
    [
        '[r1] checkbox "A, \\"quoted\\"" checked=true',
        '[r2] checkbox "kQ" checked=false',
        '[r3] checkbox "zz" checked=true focused',
        '[r4] button "Submit"',
    ]
)


def test_toy_expert_solves_every_family() -> None:
    expert = expert_for("toy")
    environment = Toy()
    for task in Toy.tasks(Split.TRAIN, count=30):
        observation, info = environment.reset(options={"task": task})
        observations, actions, reward, over = [observation], [], 0.0, False
        while not over and len(actions) < 6:
            _, action = expert(View(info["goal"], tuple(observations), tuple(actions)))
            observation, reward, over, _, _ = environment.step(action)
            observations.append(observation)
            actions.append(action)
        assert reward > 0, task.id


def test_page_is_read_back() -> None:
    lines = [
        'text "Name:"',
        '[r1] textbox "Name" value="say \\"hi\\"" focused',
        '[r2] tab "One" selected=true expanded=false',
        "<no line of a page>",
    ]
    label, box, tab = parse("\n".join(lines))
    assert (label.role, label.name, label.ref, label.value) == ("text", "Name:", "", None)
    assert (box.ref, box.value, box.focused) == ("r1", 'say "hi"', True)
    assert (tab.selected, tab.expanded, tab.checked, tab.focused) == (True, False, None, False)


def test_page_knows_what_is_inside_what_and_what_was_clicked() -> None:
    before = '[r1] generic "Ann"\n  [r2] generic "trash"\n[r3] generic "Bob"\n  [r4] generic "trash"'
    page = Page(View("", (before, '[r1] generic "Bob"'), ('click("r3")',)))
    assert [element.name for element in page.clicked] == ["Bob"]
    first = Page(View("", (before,), ()))
    assert [element.ref for element in first.inside(first.one("generic", "Ann"))] == ["r2"]


def test_expert_mends_others_mistakes_and_accepts_any_order() -> None:
    view = View("Select kQ and click Submit.", (CHECKBOXES,), ())
    thought, action = expert_for("miniwob")(view)
    assert (thought, action) == ("", 'click("r1")')
    assert [acceptable("miniwob", view, f'click("r{n}")') for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert not acceptable("miniwob", view, "not an action")


def test_expert_waits_for_what_is_not_there_yet() -> None:
    view = View('Click on the "Ok" button.', ('text "loading"',), ())
    assert expert_for("miniwob")(view) == ("", "noop()")


def test_unknown_goal_and_environment_are_errors() -> None:
    with pytest.raises(NoExpert, match="does not know this goal"):
        expert_for("miniwob")(View("Sing a song.", ('[r1] button "Submit"',), ()))
    with pytest.raises(UnknownName, match="miniwob"):
        expert_for("nothing")

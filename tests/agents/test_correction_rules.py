"""The scripted corrector names what was wrong, from the text of the request alone."""

import pytest

from tutelage.agents.correction import corrector_request
from tutelage.agents.correction_rules import correct
from tutelage.agents.views import ENDED, CorrectorView, Seen

PAGE = 'click("r2")', 'click(button "submit")'
TOOL = 'move({"source": "a", "target": "b"})', 'move(source="a", target="b")'


def said(did: tuple[str, str], result: str, right: tuple[str, str]) -> object:
    step = Seen("Action: click()\nStep 1", "", did[0], did[1], result)
    return correct(corrector_request(CorrectorView("any", "do it", (), step, "", "", *right))[1].content)["words"]


@pytest.mark.parametrize(
    ("did", "result", "right", "words"),
    [
        (("Hello.", ""), "invalid_action x", PAGE, "Hello. is not an action here."),
        (("", ""), "invalid_action x", PAGE, "Nothing is not an action here."),
        (('click("r9")', ""), "unknown_target x", PAGE, 'click("r9") names nothing that is there.'),
        (('click("r1")', "click(link)"), ENDED, PAGE, "click(link) has the wrong target."),
        (("noop()", "noop()"), "no_effect Nothing changed.", PAGE, "noop() is not what the goal asks for now."),
        (PAGE, "repeated Again.", TOOL, 'click(button "submit") was done before.'),
        (("done()", "done()"), ENDED, TOOL, "done() ends the task, but something else is due first."),
        (('move({"target": "b"})', "m"), "action_failed No.", TOOL, "m has the wrong source."),
    ],
)
def test_what_was_wrong_and_what_is_right(
    did: tuple[str, str], result: str, right: tuple[str, str], words: str
) -> None:
    due = f"{PAGE[0]}, that is {PAGE[1]}" if right is PAGE else TOOL[0]
    assert said(did, result, right) == f"{words} Right here is {due}."

"""How the embedded scripted expert judges and distils: by rule, from the text of the request alone.

The judge asks what the reactive expert would have done in each state; the distiller puts slots instead of
literals, and tells from the expert's choice what was wrong with a mistake.
"""

import json
from collections.abc import Iterable

from tutelage.agents import page_rules, tool_rules
from tutelage.agents.experts import NoExpert
from tutelage.agents.requests import read_request
from tutelage.agents.review import CANNOT_TELL, mistakes
from tutelage.agents.views import ENDED
from tutelage.errors import PolicyFailed, UnknownName
from tutelage.registry import resolve

ANSWERS = {
    "corrector": "tutelage.agents.correction_rules:correct",
    "designer": "tutelage.agents.design_rules:design",
    "distiller": "tutelage.agents.rules:distil",
    "judge": "tutelage.agents.rules:judge",
    "modifier": "tutelage.agents.sticker_rules:modify",
    "persona": "tutelage.agents.design_rules:personas",
    "utiliser": "tutelage.agents.sticker_rules:utilise",
}
"""Role → dotted path of the function from a request's text to the reply."""


def answer(role: str, text: str) -> str:
    """The answer to a request in a role other than acting, as a JSON string.

    Raises:
        PolicyFailed: there is no such role.
    """
    if role not in ANSWERS:
        raise PolicyFailed(f"the scripted expert has no role {role!r}")
    return json.dumps(resolve(role, ANSWERS, what="role")(text), ensure_ascii=False)


def distil(text: str) -> dict[str, object]:
    request = read_request(text)
    rules = tool_rules if request.tools else page_rules
    return rules.experience(request) if request.successful else rules.lesson(request)


def judge(text: str) -> dict[str, object]:
    request = read_request(text)
    if not request.turns:
        return _judgement(False, "Nothing was done.")
    try:
        wrong = mistakes(request)
    except NoExpert:
        return _judgement(False, "The scripted expert does not know this goal, so it cannot tell.")
    except UnknownName:
        return _judgement(False, CANNOT_TELL)
    last = len(request.turns) - 1
    if request.turns[last].result != ENDED:
        return _judgement(False, "The episode stopped before the task was finished.", wrong)
    if last in wrong:
        decisive_first = [last, *(index for index in wrong if index != last)]
        return _judgement(False, f"Step {last} ended the episode, but something else was due first.", decisive_first)
    return _judgement(True, f"Step {last} was due and finished the task.", wrong)


def _judgement(successful: bool, reason: str, cited: Iterable[int] = ()) -> dict[str, object]:
    return {"successful": successful, "reason": reason, "cited": list(cited)}

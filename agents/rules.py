"""How the embedded scripted expert judges and distils: by rule, from the text of the request alone.

The judge asks what the reactive expert would have done in each state; the distiller puts slots instead of
literals, and tells from the expert's choice what was wrong with a mistake.
"""

import json
import re
from collections.abc import Iterable, Sequence

from tutelage.agents import page_rules, tool_rules
from tutelage.agents.experts import NoExpert
from tutelage.agents.requests import read_request
from tutelage.agents.review import CANNOT_TELL, UNKNOWN_GOAL, mistakes
from tutelage.agents.transcripts import Turn
from tutelage.agents.views import ENDED
from tutelage.errors import PolicyFailed, UnknownName
from tutelage.registry import resolve
from tutelage.types import Cause

ANSWERS = {
    "corrector": "tutelage.agents.correction_rules:correct",
    "designer": "tutelage.agents.design_rules:design",
    "distiller": "tutelage.agents.rules:distil",
    "feedback": "tutelage.agents.feedback_rules:feedback",
    "judge": "tutelage.agents.rules:judge",
    "merger": "tutelage.agents.merger_rules:relate",
    "modifier": "tutelage.agents.sticker_rules:modify",
    "persona": "tutelage.agents.design_rules:personas",
    "utiliser": "tutelage.agents.sticker_rules:utilise",
}
"""Role → dotted path of the function from a request's text to the reply."""

_LOOKING = re.compile(r"(?i)(?:list|find|read|show|search|look|get|open|view|wait|scroll|count|query\W+sql\W+select)")
"""How calls begin that only look."""


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
        return _judgement(False, UNKNOWN_GOAL)
    except UnknownName:
        return _judgement(False, CANNOT_TELL)
    successful, reason, cited = _decision(request.turns, wrong)
    return _judgement(successful, reason, cited) | {
        # In a success whatever went wrong was put right, or the last step would not have been due.
        "side_effects": not successful and any(_changed_something(request.turns[index]) for index in wrong),
        "looped": bool(repeated := _repeated(request.turns)),
        "optimality": _optimality(len({*wrong, *repeated, *_idle(request.turns)}), len(request.turns)),
    }


def _decision(turns: Sequence[Turn], wrong: Sequence[int]) -> tuple[bool, str, Sequence[int]]:
    last = len(turns) - 1
    if turns[last].result != ENDED:
        return False, "The episode stopped before the task was finished.", wrong
    if last in wrong:
        decisive_first = [last, *(index for index in wrong if index != last)]
        return False, f"Step {last} ended the episode, but something else was due first.", decisive_first
    return True, f"Step {last} was due and finished the task.", wrong


def _repeated(turns: Sequence[Turn]) -> list[int]:
    """Steps that did the same as an earlier one in the same situation."""
    done = [(turn.observation, turn.action) for turn in turns]
    return [index for index, turn in enumerate(turns) if done[index] in done[:index] or _is(turn, Cause.REPEATED)]


def _idle(turns: Sequence[Turn]) -> list[int]:
    """Steps that led nowhere."""
    return [index for index, turn in enumerate(turns) if not _is(turn, ENDED) and not _is(turn, Cause.PROGRESS)]


def _changed_something(turn: Turn) -> bool:
    """Whether a step changed more than what is to be seen, as far as the name of its call tells."""
    return _is(turn, Cause.PROGRESS) and _LOOKING.match(turn.action) is None


def _is(turn: Turn, result: str) -> bool:
    return turn.result.partition(" ")[0] == result


def _optimality(wasted: int, steps: int) -> int:
    """4 if no step was wasted, 1 if more than half of them were."""
    return 4 if not wasted else 3 if wasted * 4 <= steps else 2 if wasted * 2 <= steps else 1


def _judgement(successful: bool, reason: str, cited: Iterable[int] = ()) -> dict[str, object]:
    return {"successful": successful, "reason": reason, "cited": list(cited)}

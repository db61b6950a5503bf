"""Modifier and utiliser by rule, from the text of the request alone.

The modifier keeps to what a program can read: it drops what is said twice or does not hold at the start, takes
sentences apart and puts slots in the place of the goal's values. The utiliser does what the scripted expert would do
first, if nothing in the sticker is false here.
"""

import json
import re
from collections.abc import Iterator

from tutelage.agents.experts import NoExpert, View, advise
from tutelage.agents.stickers import CANNOT_TELL
from tutelage.agents.transcripts import fenced, one_line
from tutelage.conversation import read_turn
from tutelage.errors import UnknownName
from tutelage.patterns import ANY, goal_values, matches, problem

READS, SHOWS = "The goal reads: ", "At first the result reads: "

_ENVIRONMENT = re.compile(r"Environment: (\S+)")
_SLOT = re.compile(r"\{\w+\}")
_COUNT = re.compile(r"The goal names (\d+) (\w+?)s?\.")
_STATE = re.compile(r"(?:At first it shows|It already shows) (.+)\.")
_SENTENCES = re.compile(r"(?<=[.;!?]) +(?=[A-Z])")


def modify(text: str) -> dict[str, object]:
    goal, observation = _situation(text)
    draft = json.loads(fenced("draft", text))
    kept: list[str] = []
    problems = []
    for condition in (part for whole in draft["conditions"] for part in _parts(_slotted(whole, goal))):
        if condition in kept:
            problems.append(f"Said twice: {condition}")
        elif holds(condition, goal, observation) is False:
            problems.append(f"Not true at the start: {condition}")
        else:
            kept.append(condition)
    return {"conditions": kept, "question": draft["question"], "problems": problems}


def utilise(text: str) -> dict[str, object]:
    goal, observation = _situation(text)
    environment = _ENVIRONMENT.match(text)
    for condition in json.loads(fenced("experience", text))["conditions"]:
        if holds(condition, goal, observation) is False:
            return {"action": "", "note": f"This is not true here: {condition}"}
    try:
        actions = advise(environment[1] if environment else "", View(goal, (observation,))).actions
    except (NoExpert, UnknownName):
        return {"action": "", "note": CANNOT_TELL}
    return {"action": actions[0], "note": ""}


def holds(condition: str, goal: str, observation: str) -> bool | None:
    """Whether a condition is true at the start of an episode; None if it is not of a form that can be read."""
    if condition.startswith(READS):
        template = _SLOT.sub(ANY, condition.removeprefix(READS))
        return matches(template, one_line(goal), goal) if not problem(template) and len(goal) <= 1000 else None
    if count := _COUNT.fullmatch(condition):
        slots = [slot for slot, _ in goal_values(goal)]
        return slots.count(count[2]) == int(count[1])
    lines = [line.strip() for line in observation.split("\n")]
    if condition.startswith(SHOWS):
        pattern = condition.removeprefix(SHOWS)
    elif state := _STATE.fullmatch(condition):
        pattern = f"{ANY}{state[1]}{ANY}"
    else:
        return None
    return any(matches(pattern, line, goal) for line in lines) if not problem(pattern) else None


def _situation(text: str) -> tuple[str, str]:
    goal, observation = read_turn(fenced("situation", text))
    return goal or "", observation


def _parts(condition: str) -> Iterator[str]:
    """The sentences of a condition, but of none that tells a wording."""
    whole = condition.startswith((READS, SHOWS)) or '"' in condition
    yield from (part for part in ([condition] if whole else _SENTENCES.split(condition)) if part.strip(" .;"))


def _slotted(condition: str, goal: str) -> str:
    """The condition with slots for what only this episode's goal names."""
    if condition.startswith(READS) or _COUNT.fullmatch(condition):
        return condition
    values = [(slot, value) for slot, value in goal_values(goal) if len(value) > 2]
    for slot, value in sorted(values, key=lambda item: len(item[1]), reverse=True):
        condition = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", f"{{{slot}}}", condition)
    return condition

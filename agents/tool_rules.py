"""Distilling episodes of tools by rule: calls with slots instead of values, and what was wrong with a mistake.

A value that occurs in the goal becomes ``{goal}``, one that the agent read or worked out ``{other}``. What
a guardrail is triggered by is the one line of the current result that tells most about where the episode stands.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tutelage.agents.experts import NoExpert, advise
from tutelage.agents.requests import Request
from tutelage.agents.review import count_of, distinct, mistakes, view
from tutelage.agents.transcripts import Turn
from tutelage.agents.views import ENDED
from tutelage.calls import CallError, parse_call
from tutelage.errors import UnknownName
from tutelage.patterns import ANY, GOAL, OTHER, goal_template, goal_values, matches, occurs, problem, slotted
from tutelage.tools import meaning
from tutelage.types import Cause

MAX_LINES = 30
"""Lines of a result that are looked at."""
MAX_LIST = 4
"""Items of a list that are told one by one."""

_SLOT = re.compile(r"\{goal\}|\{other\}|\*")
_NEW_LINE = re.compile(r"(?<!\\)\\n")
"""As JSON writes it."""
_PATH = re.compile(r"\w\.\w|/")
_WORD = re.compile(r"[^\W\d_]{3,}")

Arguments = dict[str, Any]


# -- stickers and skills ------------------------------------------------------------------------


def experience(request: Request) -> dict[str, object]:
    """A sticker and a skill from a success; without an expert to tell, every call that went well counts as useful."""
    try:
        wrong = mistakes(request)
    except (NoExpert, UnknownName):
        wrong = []
    if any(request.turns[index].result == Cause.PROGRESS for index in wrong):
        return {"note": "It took a detour, so its calls are no procedure."}
    useful = [
        (index, turn)
        for index, turn in enumerate(request.turns)
        if index not in wrong and turn.meaning and turn.result in (ENDED, Cause.PROGRESS)
    ]
    if not useful:
        return {"note": "No step of it can be named."}
    goal, template, calls = request.goal, _template(request, useful), [turn.action for _, turn in useful]
    procedure = distinct(general(turn.action, goal, _seen(request, index)) for index, turn in useful)
    names = distinct(line.partition("(")[0] for line in procedure)
    slots = [slot for slot, _ in goal_values(goal)]
    conditions = [f"The goal reads: {template}"]
    conditions += [f"The goal names {count_of(slots.count(slot), slot)}." for slot in dict.fromkeys(slots)]
    conditions += [f"At first the result reads: {line}" for line in _telling(request.turns[0].observation, goal, calls)]
    skill = {
        "preconditions": [f"The goal reads: {template}"],
        "procedure": procedure,
        "verification": _verification([turn for _, turn in useful], procedure[-1], goal),
    }
    question = f"Which calls to {', '.join(names)} fulfil: {template}"
    return {"stickers": [{"conditions": conditions, "question": question}], "skills": [skill]}


def _template(request: Request, useful: list[tuple[int, Turn]]) -> str:
    """The goal with slots for its literals, and for the plain words of it that were put into calls.

    What was read and passed on as it stood is data; its words say nothing about the goal's.
    """
    words: set[str] = set()
    observations = [turn.observation for turn in request.turns]
    for index, turn in useful:
        for line in _passed_on([turn.action]):
            if occurs(line, request.goal):
                words.add(line)
            else:
                own = _without_read(line, _seen(request, index))
                words |= {word for word in re.findall(r"\w+", own) if any(occurs(word, it) for it in observations)}
    # what stands beside them at first is of the same sort, such as the columns of a table
    beside = [line for line in observations[0].splitlines()[:MAX_LINES] if any(occurs(word, line) for word in words)]
    words |= {word for line in beside for word in re.findall(r"\w+", line)}
    slots = re.compile(r"\{\w+\}|(?<!\w)(?P<word>[^\W\d]\w*)(?!\w)")
    return slots.sub(lambda match: "{word}" if match["word"] in words else match[0], goal_template(request.goal))


def _verification(useful: list[Turn], ending: str, goal: str) -> list[str]:
    """What the result reads before the last call, and what ends the task."""
    calls = [turn.action for turn in useful]
    shown = _telling(useful[-1].observation, goal, calls) if len(useful) > 1 else []
    ends = [f"{ending} ends the task."] if useful[-1].result == ENDED else []
    return [*(f"Before the last call the result reads: {line}" for line in shown), *ends]


def _seen(request: Request, index: int) -> list[str]:
    """The results that were to be seen before step `index`."""
    return [turn.observation for turn in request.turns[: index + 1]]


# -- guardrails ---------------------------------------------------------------------------------


def lesson(request: Request) -> dict[str, object]:
    """A guardrail against each cited step whose mistake the pattern language can express."""
    guardrails: list[dict[str, object]] = []
    notes = []
    for index in request.cited:
        guardrail = _guardrail(request, index) if index < len(request.turns) else None
        if guardrail is None:
            notes.append(f"What was wrong with step {index} cannot be said in patterns.")
        elif guardrail not in guardrails:
            guardrails.append(guardrail)
    return {"guardrails": guardrails, "note": " ".join(notes)}


def _guardrail(request: Request, index: int) -> dict[str, object] | None:
    """None if the expert cannot tell, the tools refuse such a call anyway, or nothing sets it apart from a due one."""
    turn, goal = request.turns[index], request.goal
    called = _read(turn.action)
    if called is None or turn.result.startswith(Cause.INVALID_ACTION):
        return None
    try:
        due = [action for action in advise(request.environment, view(request, index)).actions if _read(action)]
    except (NoExpert, UnknownName):
        return None
    if not due:
        return None
    best = max(due, key=lambda action: _likeness(called, _read(action)))
    before = request.turns[index - 1].meaning if index else ""
    for forbidden, cause in _faults(turn, called, best, goal, _seen(request, index), before):
        fits = not problem(forbidden) and matches(forbidden, turn.meaning, goal)
        if fits and not any(matches(forbidden, meaning(action), goal) for action in due):
            return {
                "trigger": _telling(turn.observation, goal, [turn.action, *due]),
                "root_cause": cause,
                "forbidden": forbidden,
                "remedy": f"Do {general(best, goal, _seen(request, index))} instead.",
            }
    return None


def _faults(
    turn: Turn, called: tuple[str, Arguments], best: str, goal: str, seen: list[str], before: str
) -> Iterator[tuple[str, str]]:
    """What may be forbidden and why, the widest first."""
    name, arguments = called
    due = _read(best)
    assert due is not None, "an expert's call can be read"
    if name == due[0]:
        for key, value in arguments.items():
            if key in due[1] and due[1][key] != value:
                for wrong in _wrong_values(value, due[1][key], goal, seen):
                    yield _with_argument(name, arguments, key, wrong), f"{key} is not what it has to be here."
    elif turn.result == ENDED:
        yield (f"{name}({ANY})" if arguments else f"{name}()"), f"{due[0]} is still due before the end."
    if _stands_for_others(turn.meaning, goal):
        return  # with slots it would also be the call that is due for another value of the goal
    if turn.meaning == before:
        yield general(turn.action, goal, seen), "This was just done."
    elif (name, arguments.keys()) != (due[0], due[1].keys()):
        yield general(turn.action, goal, seen), f"This is not what is due; {due[0]} is."


def _stands_for_others(called: str, goal: str) -> bool:
    """Whether the goal names more values of a kind than the call holds of it."""
    kinds = [("file" if _PATH.search(value) else slot, occurs(value, called)) for slot, value in goal_values(goal)]
    used = {kind for kind, held in kinds if held}
    return any(kind in used for kind, held in kinds if not held)


def _wrong_values(value: Any, due: Any, goal: str, seen: list[str]) -> Iterator[str]:
    """Patterns that the wrong value fits and the due one does not: one slot of the due one the other way round."""
    right = _value(due, goal, seen)
    for match in _SLOT.finditer(right):
        other = {GOAL: OTHER, OTHER: GOAL}.get(match[0])
        pattern = f"{right[: match.start()]}{other}{right[match.end() :]}"
        if other and matches(pattern, _dumps(value), goal) and not matches(pattern, _dumps(due), goal):
            yield pattern
    wrong = _value(value, goal, seen)
    # longer texts of the agent's own making never come back word for word
    if " " not in wrong and not matches(wrong, _dumps(due), goal):
        yield wrong


def _with_argument(name: str, arguments: Arguments, key: str, value: str) -> str:
    """The pattern of all calls with this value of this argument, whatever the others are."""
    keys = list(arguments)
    at = keys.index(key)
    lead = f"{ANY}, " if at else ""
    # the next name is spelled out, so that a slot without quotes cannot reach beyond its own value
    rest = f", {keys[at + 1]}={ANY}" if at + 1 < len(keys) else ""
    return f"{name}({lead}{key}={value}{rest})"


def _likeness(called: tuple[str, Arguments], due: tuple[str, Arguments] | None) -> tuple[bool, int]:
    if due is None:
        return False, 0
    return called[0] == due[0], sum(due[1].get(key) == value for key, value in called[1].items())


# -- calls and results with slots ---------------------------------------------------------------


def general(action: str, goal: str, seen: list[str]) -> str:
    """A call's meaning with slots for its values; ``name(*)`` where that cannot be said in a pattern.

    Args:
        seen: results that were to be seen before it.
    """
    read = _read(action)
    if read is None:
        return ""
    name, arguments = read
    pattern = f"{name}({', '.join(f'{key}={_value(value, goal, seen)}' for key, value in arguments.items())})"
    return pattern if matches(pattern, meaning(action), goal) else f"{name}({ANY})"


def _value(value: Any, goal: str, seen: list[str]) -> str:
    if isinstance(value, str):
        return f'"{_text(_dumps(value)[1:-1], goal, seen)}"'
    if isinstance(value, list) and value:
        short = len(value) <= MAX_LIST
        return f"[{', '.join(_value(item, goal, seen) for item in value)}]" if short else f"[{ANY}]"
    if isinstance(value, dict) and value:
        return f"{{{ANY}}}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _dumps(value)
    return GOAL if occurs(_dumps(value), goal) else OTHER


def _text(text: str, goal: str, seen: list[str]) -> str:
    """Slots for a text, given as it stands between quotes.

    One that the agent put together itself is told line by line, a path part by part, and a query keeps its own
    words around the values in it. A single word is a fixed option, unless it was read somewhere.
    """
    if not text.strip():
        return text
    lines = _NEW_LINE.split(text)
    if len(lines) > 1 and not occurs(text, goal):
        told = [_text(line, goal, seen) for line in lines]
        return "\\n".join(line for at, line in enumerate(told) if at == 0 or (line, told[at - 1]) != (OTHER, OTHER))
    if occurs(text, goal):
        return GOAL
    if any(occurs(text, result) for result in seen):
        return OTHER
    if " " in text.strip():
        return slotted(text, goal, among=seen) or OTHER
    if "/" in text:
        return "/".join(_text(part, goal, seen) for part in text.split("/"))
    return text if text.isalpha() else OTHER


def _telling(observation: str, goal: str, calls: Iterable[str]) -> list[str]:
    """The pattern of the first line that has words of its own, or names what the goal names; none if none does.

    A line that one of the `calls` passes on is data, whatever it says.
    """
    values = _passed_on(calls)
    lines = [line.strip() for line in observation.splitlines()[:MAX_LINES]]
    lines = [line for line in lines if not any(occurs(line, value) for value in values)]
    # a leading "not " would negate the trigger
    patterns = [slotted(line, goal) for line in lines if not line.startswith("not ")]
    wordy = [pattern for pattern in patterns if _is_wording(_SLOT.sub(" ", pattern))]
    return (wordy or [pattern for pattern in patterns if GOAL in pattern])[:1]


def _passed_on(calls: Iterable[str]) -> list[str]:
    """The lines of the texts that these calls pass."""
    values = (value for call in calls for value in (_read(call) or ("", {}))[1].values())
    return [line for value in values if isinstance(value, str) for line in value.split("\n") if line.strip()]


def _without_read(text: str, seen: list[str]) -> str:
    """What of a text does not stand in it as a whole line that was read."""
    for line in distinct(line.strip() for result in seen for line in result.splitlines()):
        if " " in line and occurs(line, text):
            text = text.replace(line, " ")
    return text


def _is_wording(text: str) -> bool:
    """Whether a line's words are the tool's own, and not just a name or a value."""
    return bool(_WORD.search(text)) and (len(text.split()) > 2 or bool(re.search(r"[^\w\s]", text)))


def _read(action: str) -> tuple[str, Arguments] | None:
    """Name and arguments; None if it is no call to a tool."""
    try:
        call = parse_call(action)
    except CallError:
        return None
    arguments = call.args[0] if call.args else {}
    return (call.name, arguments) if isinstance(arguments, dict) and len(call.args) < 2 else None


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

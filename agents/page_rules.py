"""Distilling episodes on pages by rule: slots instead of literals, and what the expert's choice tells of a mistake."""

import json
import re
from dataclasses import dataclass

from tutelage.agents.experts import advise
from tutelage.agents.experts.page import Element, parse
from tutelage.agents.requests import Request
from tutelage.agents.review import count_of, distinct, mistakes, view
from tutelage.agents.transcripts import Turn
from tutelage.agents.views import ENDED
from tutelage.calls import CallError, parse_call
from tutelage.environments.base import environment_class
from tutelage.patterns import ANY, GOAL, OTHER, generalise, goal_template, goal_values, occurs
from tutelage.types import Cause

CHOICES = ("checkbox", "radio")
CONTENT = (*CHOICES, "link", "listitem", "option")
"""Roles whose names are what the page is about, rather than its fixed furniture."""
STATES = ("checked", "selected", "value")

_LITERAL = re.compile(r'((?:(\w+) |, )")((?:[^"\\]|\\.)+)"')


# -- stickers and skills ------------------------------------------------------------------------


def experience(request: Request) -> dict[str, object]:
    wrong = mistakes(request)
    useful = [
        turn
        for index, turn in enumerate(request.turns)
        if index not in wrong and turn.meaning and turn.result in (ENDED, Cause.PROGRESS)
    ]
    if not useful:
        return {"note": "No step of it can be named."}
    goal, template = request.goal, goal_template(request.goal)
    procedure = distinct(_general(turn.meaning, goal) for turn in useful)
    places = distinct(_place(target, goal) for turn in useful if (target := _target(turn.action, turn.observation)))
    conditions = [f"The goal reads: {template}"]
    slots = [slot for slot, _ in goal_values(goal)]
    conditions += [f"The goal names {count_of(slots.count(slot), slot)}." for slot in dict.fromkeys(slots)]
    conditions += [f"The page has {place}." for place in places]
    first = request.turns[0].observation
    targets = [target for turn in useful if (target := _target(turn.action, first))]
    conditions += distinct(f"At first it shows {_slotted(target, goal)}." for target in targets if _state(target))
    # what is already as wanted needs no step, so a procedure without that step holds only there
    ready = [item for item in parse(first) if item.ref and item not in targets and _is_set(item, goal)]
    already = distinct(f"It already shows {_slotted(element, goal)}." for element in ready)
    conditions += already
    skill = {
        "preconditions": [f"The goal reads: {template}", *(f"The page has {place}." for place in places), *already],
        "procedure": procedure,
        "verification": _verification(useful, goal),
    }
    question = f"Which actions on {', '.join(places) or 'this page'} fulfil: {template}"
    return {"stickers": [{"conditions": conditions, "question": question}], "skills": [skill]}


def _verification(useful: list[Turn], goal: str) -> list[str]:
    """What the page shows of the earlier steps' targets before the last one, and what ends the task."""
    last = useful[-1]
    shown = {(element.role, element.name): element for element in parse(last.observation)}
    targets = (_target(turn.action, turn.observation) for turn in useful[:-1])
    now = (shown.get((target.role, target.name)) for target in targets if target)
    lines = distinct(f"Before the last action: {_slotted(element, goal)}" for element in now if element)
    return [*lines, f"{_general(last.meaning, goal)} ends the task."]


def _place(element: Element, goal: str) -> str:
    named = _general(_named(element), goal)
    if f'"{OTHER}"' in named:
        return f"a {element.role} that the goal does not name"
    return f"a {element.role} that the goal names" if f'"{GOAL}"' in named else f"a {named}"


def _general(text: str, goal: str) -> str:
    """`text` (a meaning, or role and name) with slots for everything that another page would say differently."""
    found = {value for _, value in goal_values(goal) if len(value) > 2}
    values = sorted(found, key=lambda value: (-len(value), value))  # a set's own order differs between processes

    def slot(match: re.Match[str]) -> str:
        lead, role, literal = match.groups()
        if literal == GOAL or (role is None and text.startswith("press(")):
            return match[0]
        part = next((part for value in values if role and (part := _around(value, literal))), "")
        varies = role is None or role in CONTENT
        return f'{lead}{part or (GOAL if occurs(literal, goal) else OTHER)}"' if part or varies else match[0]

    return _LITERAL.sub(slot, generalise(text, goal))


def _around(value: str, name: str) -> str:
    """The pattern for a name that begins or ends with `value` as a word of its own; empty if it does not."""
    if name.startswith(f"{value} "):
        return f"{GOAL} {ANY}"
    return f"{ANY} {GOAL}" if name.endswith(f" {value}") else ""


# -- guardrails ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mistake:
    """A cited step beside what the expert would have done."""

    goal: str
    meaning: str
    verb: str
    text: str
    """What was filled in or selected, if anything."""
    target: Element
    due: Element
    due_verb: str
    due_text: str
    due_meaning: str


def lesson(request: Request) -> dict[str, object]:
    """A guardrail against each cited step whose mistake the pattern language can express."""
    guardrails, notes = [], []
    for index in request.cited:
        mistake = _mistake(request, index) if index < len(request.turns) else None
        if mistake is None:
            notes.append(f"Step {index} is no action on an element of the page, or none was due.")
            continue
        guardrail = _wrong_text(mistake) or _wrong_target(mistake) or _premature(mistake)
        if guardrail is None:
            notes.append(f"What was wrong with step {index} cannot be said in patterns.")
            continue
        guardrail["remedy"] = f"Do {_general(mistake.due_meaning, mistake.goal)} instead."
        if guardrail not in guardrails:
            guardrails.append(guardrail)
    return {"guardrails": guardrails, "note": " ".join(notes)}


def _mistake(request: Request, index: int) -> _Mistake | None:
    turn = request.turns[index]
    target = _target(turn.action, turn.observation)
    if target is None or not turn.meaning:
        return None
    verb, text = _verb_and_text(turn.action)
    due = [
        (element, *_verb_and_text(action), action)
        for action in advise(request.environment, view(request, index)).actions
        if (element := _target(action, turn.observation))
    ]
    if not due:
        return None
    # of several equally good actions, the one most like what was done tells most about the mistake
    best = max(due, key=lambda item: (item[0] == target, (item[1], item[0].role) == (verb, target.role)))
    meaning = environment_class(request.environment).meaning(best[3], turn.observation)
    return _Mistake(request.goal, turn.meaning, verb, text, target, best[0], best[1], best[2], meaning)


def _wrong_text(m: _Mistake) -> dict[str, object] | None:
    if m.target != m.due or m.verb != m.due_verb or not occurs(m.due_text, m.goal) or occurs(m.text, m.goal):
        return None
    field = generalise(_named(m.target), m.goal)
    return {
        "trigger": [f"*{field}*"],
        "root_cause": "The text is not one that the goal names.",
        "forbidden": f'{m.verb}({field}, "{OTHER}")',
    }


def _wrong_target(m: _Mistake) -> dict[str, object] | None:
    if m.target.role != m.due.role or m.verb != m.due_verb or m.text != m.due_text:
        return None
    if not occurs(m.due.name, m.goal) or occurs(m.target.name, m.goal) or not m.target.name:
        return None
    choice = m.target.role in CHOICES
    trigger = [f'*{m.due.role} "{GOAL}"*' + ("checked=false*" if choice else "")]
    if m.target.role == "checkbox":
        trigger.append(f'not *checkbox "{OTHER}" checked=true*')  # clearing a wrong one stays allowed
    text = f', "{GOAL}"' if m.text else ""
    return {
        "trigger": trigger,
        "root_cause": f"This {m.target.role} is not the one that the goal names.",
        "forbidden": f'{m.verb}({m.target.role} "{OTHER}"{text})',
    }


def _premature(m: _Mistake) -> dict[str, object] | None:
    if m.target == m.due or m.verb != "click" or m.target.role != "button" or not _state(m.due):
        return None
    return {
        "trigger": [f"*{_slotted(m.due, m.goal)}*"],
        "root_cause": f"Not everything is set yet: {_slotted(m.due, m.goal)}.",
        "forbidden": generalise(m.meaning, m.goal),
    }


# -- elements as text ---------------------------------------------------------------------------


def _target(action: str, observation: str) -> Element | None:
    """The element that an action addresses."""
    try:
        call = parse_call(action)
    except CallError:
        return None
    ref = call.args[0] if call.args else None
    return next((element for element in parse(observation) if element.ref and element.ref == ref), None)


def _verb_and_text(action: str) -> tuple[str, str]:
    call = parse_call(action)
    return call.name, str(call.args[1]) if len(call.args) > 1 else ""


def _named(element: Element) -> str:
    """Role and quoted name, as in an action's meaning."""
    return f"{element.role} {json.dumps(element.name, ensure_ascii=False)}" if element.name else element.role


def _state(element: Element) -> str:
    """What can be set of an element, as its line shows it; empty if nothing can."""
    values = ((key, getattr(element, key)) for key in STATES)
    return " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values if value is not None)


def _is_set(element: Element, goal: str) -> bool:
    """Whether it holds a value that the goal names, or is a ticked choice that it names."""
    ticked = element.role in CHOICES and bool(element.checked) and occurs(element.name, goal)
    return ticked or bool(element.value and occurs(element.value, goal))


def _slotted(element: Element, goal: str) -> str:
    """Role, name and state with slots: what the goal names, what it does not, and what is empty."""
    name, state = generalise(_named(element), goal), _state(element)
    if element.value:
        state = state.replace(
            json.dumps(element.value, ensure_ascii=False), f'"{GOAL if occurs(element.value, goal) else OTHER}"'
        )
    if element.role in CHOICES and f'"{GOAL}"' not in name and element.name:
        name = f'{element.role} "{OTHER}"'
    return f"{name} {state}".rstrip()

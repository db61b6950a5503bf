"""Pages as text: the lines an agent reads, the five actions it may take, and what an action means.

A line is ``[r2] textbox "Username" value=""``: a reference where one can act, a role, a quoted name
and states. Names and values are JSON strings, so that ``json.loads`` reads them back.
"""

import json
import re
from dataclasses import dataclass

from tutelage.calls import Call, CallError, parse_call
from tutelage.environments.base import TargetError

SIGNATURES = {
    "click": ("reference",),
    "fill": ("reference", "text"),
    "select": ("reference", "option"),
    "press": ("reference", "key"),
    "noop": (),
}
"""Actions on a page and what their arguments are; every argument is a string."""

_KEYS = frozenset(
    {"Enter", "Tab", "Escape", "Backspace", "Delete", "Space", "Home", "End", "PageUp", "PageDown", "Insert"}
    | {"ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"}
)
_LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x7f\x85\u2028\u2029"})
_MODIFIERS = frozenset(["Control", "Shift", "Alt"])
_STRING = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(rf"( *)(?:\[(r\d+)\] )?([A-Za-z]+)(?: ({_STRING}))?((?: (?:[a-z]+={_STRING}|[a-z]+=\w+|[a-z]+))*)\Z")
_STATE = re.compile(rf"([a-z]+)(?:=({_STRING}|\w+))?")


@dataclass(frozen=True)
class Element:
    """One line of a page."""

    ref: str
    """Empty where one cannot act on it."""
    role: str
    name: str
    depth: int
    states: dict[str, str | bool]
    """``value``, ``checked``, ``selected``, ``expanded``, ``focused``."""

    @property
    def meaning(self) -> str:
        """Role and quoted name, e.g. ``button "Submit"``."""
        return f"{self.role} {quote(self.name)}" if self.name else self.role


def quote(text: str) -> str:
    """`text` as a JSON string that stays on one line whatever is in it."""
    return json.dumps(text, ensure_ascii=False).translate(_LINE_ENDS)


def elements(observation: str) -> list[Element]:
    """The observation's lines; a line of any other shape is left out."""
    found = []
    for line in observation.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent, ref, role, name, rest = match.groups()
        states = {key: json.loads(value) if value else True for key, value in _STATE.findall(rest)}
        found.append(Element(ref or "", role, json.loads(name) if name else "", len(indent) // 2, states))
    return found


def check(call: Call, observation: str, allowed: tuple[str, ...] = tuple(SIGNATURES)) -> Element | None:
    """Check a call's name, arguments and target against what the agent sees.

    Returns:
        The element it acts on; None for ``noop``.

    Raises:
        CallError: no such action, or wrong arguments.
        TargetError: the reference is not in the observation.
    """
    if call.name not in allowed:
        raise CallError(f"There is no action {call.name!r}; the actions are {', '.join(map(usage, allowed))}.")
    signature = SIGNATURES[call.name]
    if len(call.args) != len(signature) or not all(isinstance(arg, str) for arg in call.args):
        raise CallError(f"{call.name} is written {usage(call.name)}, each argument in double quotes.")
    if any(_lone_surrogate(arg) for arg in call.args):
        raise CallError("The text holds half of a character (a lone surrogate).")
    if not signature:
        return None
    if call.name == "press":
        _check_key(call.args[1])
    element = next((e for e in elements(observation) if e.ref and e.ref == call.args[0]), None)
    if element is None:
        raise TargetError(f"There is no element {call.args[0][:20]!r} on the page.")
    return element


def usage(name: str) -> str:
    """How to write an action, e.g. ``fill("r1", "text")``."""
    examples = {"reference": "r1", "text": "text", "option": "option", "key": "Enter"}
    return str(Call(name, tuple(examples[kind] for kind in SIGNATURES[name])))


def meaning(action: str, observation: str, allowed: tuple[str, ...] = tuple(SIGNATURES)) -> str:
    """The action with its reference replaced by role and name; empty if it is not well-formed."""
    try:
        call = parse_call(action)
        element = check(call, observation, allowed)
    except CallError:
        return ""
    if element is None:
        return str(call)
    return f"{call.name}({', '.join([element.meaning, *map(quote, call.args[1:])])})"


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_key(key: str) -> None:
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    printable = len(last) == 1 and last.isascii() and last.isprintable()
    if not (printable or last in _KEYS) or not _MODIFIERS.issuperset(modifiers):
        raise CallError(
            f"There is no key {key[:20]!r}; use a single character or one of {', '.join(sorted(_KEYS))}, "
            "with Control+, Shift+ or Alt+ before it where needed."
        )

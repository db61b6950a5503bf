"""The observation text read back into elements, and the actions that address them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tutelage.calls import CallError, parse_call
from tutelage.environments.page import elements
from tutelage.errors import TutelageError

_STATES = ("value", "checked", "selected", "expanded", "focused")


class NotOnPage(TutelageError):
    """What an expert looks for is not (or not yet) in the observation."""


@dataclass(frozen=True)
class View:
    """What a language model sees of an episode; `observations` is one longer than `actions`."""

    goal: str
    observations: tuple[str, ...]
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Element:
    """One line of an observation; None stands for a property that the line does not show."""

    role: str
    name: str = ""
    ref: str = ""
    """Empty for plain text, which no action can address."""
    value: str | None = None
    checked: bool | None = None
    selected: bool | None = None
    expanded: bool | None = None
    focused: bool = False
    depth: int = 0
    index: int = 0
    """Position on the page."""


def parse(observation: str) -> tuple[Element, ...]:
    """The elements of an observation in page order."""
    lines = enumerate(elements(observation))
    return tuple(
        Element(line.role, line.name, line.ref, depth=line.depth, index=index, **_known(line.states))
        for index, line in lines
    )


def _known(states: dict[str, str | bool]) -> dict[str, Any]:
    return {name: state for name, state in states.items() if name in _STATES}


def plain(text: str) -> str:
    """For comparison: one space between words, no blanks or full stops and commas around them, lower case."""
    return " ".join(text.split()).strip(" .,").lower()


class Page:
    """The current observation, and what was done before it."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.elements = parse(view.observations[-1])

    def all(
        self, role: str | None = None, name: str | None = None, *, where: Callable[[Element], bool] | None = None
    ) -> list[Element]:
        """Elements that an action can address; `role` may list several, as in ``"link|generic"``.

        Names are compared by `plain`; exact ones come first.
        """
        roles = role.split("|") if role else None
        found = [
            element
            for element in self.elements
            if element.ref
            and (roles is None or element.role in roles)
            and (name is None or plain(element.name) == plain(name))
            and (where is None or where(element))
        ]
        return sorted(found, key=lambda element: element.name != name) if name is not None else found

    def find(
        self, role: str | None = None, name: str | None = None, *, where: Callable[[Element], bool] | None = None
    ) -> Element | None:
        """The first of `all`, or None."""
        return next(iter(self.all(role, name, where=where)), None)

    def one(
        self, role: str | None = None, name: str | None = None, *, where: Callable[[Element], bool] | None = None
    ) -> Element:
        """The first of `all`.

        Raises:
            NotOnPage: there is none.
        """
        found = self.find(role, name, where=where)
        if found is None:
            raise NotOnPage(f"no {role or 'element'} {name or ''} on the page")
        return found

    def texts(self) -> list[str]:
        """Plain text of the page, line by line."""
        return [element.name for element in self.elements if element.role == "text"]

    def inside(self, parent: Element) -> list[Element]:
        """Elements nested below `parent`."""
        below = []
        for element in self.elements[self.elements.index(parent) + 1 :]:
            if element.depth <= parent.depth:
                break
            below.append(element)
        return below

    @cached_property
    def clicked(self) -> list[Element]:
        """Elements clicked so far, as they looked then."""
        found = []
        for observation, action in zip(self.view.observations, self.view.actions, strict=False):
            try:
                call = parse_call(action)
            except CallError:
                continue
            if call.name == "click" and call.args:
                found += [element for element in parse(observation) if element.ref == call.args[0]]
        return found


@dataclass(frozen=True)
class Advice:
    """Equally good next actions, the preferred one first, and a reason where one helps."""

    actions: tuple[str, ...]
    thought: str = ""


def _call(name: str, *args: str) -> str:
    return f"{name}({', '.join(json.dumps(arg, ensure_ascii=False) for arg in args)})"


def click(*elements: Element, thought: str = "") -> Advice:
    """Click the first of these; any of the others would do as well."""
    return Advice(tuple(_call("click", element.ref) for element in elements), thought)


def fill(element: Element, text: str, *, thought: str = "") -> Advice:
    return Advice((_call("fill", element.ref, text),), thought)


def select(element: Element, option: str) -> Advice:
    return Advice((_call("select", element.ref, option),))


def press(element: Element, key: str, *, thought: str = "") -> Advice:
    return Advice((_call("press", element.ref, key),), thought)


def wait() -> Advice:
    return Advice(("noop()",))


def fill_all(wanted: Iterable[tuple[Element, str]], *, thought: str = "") -> Advice | None:
    """Fill every field that does not hold its text yet, in any order; None when all do."""
    missing = [_call("fill", element.ref, text) for element, text in wanted if element.value != text]
    return Advice(tuple(missing), thought) if missing else None

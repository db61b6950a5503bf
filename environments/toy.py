"""Toy: a browserless text environment, small enough that a random two-layer model learns it within a minute.

It is no benchmark. It has the page lines and the actions of the web environment (click and fill), a
small vocabulary, and real ways to fail: the wrong button ends the episode without reward, and so does
submitting too early. What is asked for is learned by heart, word by word: the widgets of a family keep their
places, and every family has goal words of its own, which never occur in the memo beside the widgets. Goals
and memo vary together (more than 150 distinct episodes in 200 seeds of a family), so a held-out episode is a
page that was not trained on, though its words were.
"""

import random
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

from tutelage.calls import Call
from tutelage.environments import page
from tutelage.environments.base import ActionRefused, Environment, Outcome
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Task

COPIED = ("red", "one", "ten", "water", "day", "book", "man", "key")
NAMES = ("ann", "bob", "max", "sam")
PLACES = ("rome", "york", "cuba", "lima")
PRESSED = ("up", "down", "left", "right")
TICKED = ("tea", "milk", "cake")
MEMO = ("dog", "cat", "bird", "fish", "horse", "sun", "sea", "road", "tree", "rain", "door", "chair", "house", "wind")
"""Words that never occur in a goal."""
ACTIONS = ("click", "fill", "noop")


@dataclass
class Widget:
    """A button, a checkbox, a text box, or text that one can only read."""

    role: str
    name: str
    value: str = ""
    checked: bool = False

    def line(self, ref: str) -> str:
        if self.role == "text":
            return f'text "{self.name}"'
        text = f'[{ref}] {self.role} "{self.name}"'
        if self.role == "textbox":
            return f"{text} value={page.quote(self.value)}"
        return f"{text} checked={str(self.checked).lower()}" if self.role == "checkbox" else text


@dataclass
class Scene:
    """What is on the page, and what solves it: a button to press, with all else as wanted."""

    goal: str
    widgets: list[Widget]
    press: str = "submit"
    texts: dict[str, str] = field(default_factory=dict)
    ticked: frozenset[str] = frozenset()

    def solved(self, pressed: str) -> bool:
        texts = {w.name: w.value for w in self.widgets if w.role == "textbox"}
        ticked = {w.name for w in self.widgets if w.checked}
        return pressed == self.press and texts == self.texts and ticked == self.ticked


def _press(rng: random.Random) -> Scene:
    wanted = rng.choice(PRESSED)
    return Scene(f"press {wanted}", [*(Widget("button", word) for word in PRESSED), _memo(rng)], press=wanted)


def _copy(rng: random.Random) -> Scene:
    word = rng.choice(COPIED)
    widgets = [Widget("textbox", "word"), Widget("button", "submit"), Widget("button", "cancel"), _memo(rng)]
    return Scene(f"write {word} then submit", widgets, texts={"word": word})


def _tick(rng: random.Random) -> Scene:
    wanted = rng.sample(TICKED, 2)
    widgets = [*(Widget("checkbox", word) for word in TICKED), Widget("button", "submit"), _memo(rng)]
    return Scene(f"tick {wanted[0]} and {wanted[1]} then submit", widgets, ticked=frozenset(wanted))


def _form(rng: random.Random) -> Scene:
    name, place = rng.choice(NAMES), rng.choice(PLACES)
    widgets = [Widget("textbox", "name"), Widget("textbox", "place"), Widget("button", "submit"), _memo(rng)]
    return Scene(f"name {name} place {place} then submit", widgets, texts={"name": name, "place": place})


def _memo(rng: random.Random) -> Widget:
    """Two words that have nothing to do with the goal."""
    return Widget("text", " ".join(rng.choices(MEMO, k=2)))


_SCENES = {"copy": _copy, "form": _form, "press": _press, "tick": _tick}


class Toy(Environment):
    """One small page at a time, kept in memory."""

    name: ClassVar[str] = "toy"
    trust: ClassVar[float] = 1.0
    system: str = 'Actions: click("r1"), fill("r1", "x"), noop().'

    _scene: Scene | None = None

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return tuple(sorted(_SCENES))

    @classmethod
    def meaning(cls, action: str, observation: str) -> str:
        return page.meaning(action, observation, ACTIONS)

    def start(self, task: Task) -> tuple[str, str]:
        if task.family not in _SCENES:
            raise UnknownName(f"unknown toy family {task.family!r}; known: {', '.join(self.families())}")
        self._scene = _SCENES[task.family](random.Random(f"{task.family}@{task.seed}"))
        return self._scene.goal, self._read()

    def act(self, call: Call) -> Outcome:
        if self._scene is None:
            raise EnvironmentBroken("there is no episode; reset the environment first")
        element = page.check(call, self.observation, ACTIONS)
        if element is None:
            return Outcome(self._read())
        widget = self._scene.widgets[int(element.ref[1:]) - 1]
        if call.name == "fill":
            if widget.role != "textbox":
                raise ActionRefused(f"One cannot write into {element.ref}; it is a {widget.role}.")
            widget.value = call.args[1]
        elif widget.role == "checkbox":
            widget.checked = not widget.checked
        elif widget.role == "button":
            solved = self._scene.solved(widget.name)
            self._scene, observation = None, self._read()
            return Outcome(observation, float(solved), terminated=True)
        return Outcome(self._read())

    def _read(self) -> str:
        if self._scene is None:
            return 'text "done"'
        return "\n".join(widget.line(f"r{n}") for n, widget in zip(count(1), self._scene.widgets))

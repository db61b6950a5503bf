"""How the embedded scripted expert thinks of personas and designs tasks: by template, from the request's text alone.

What it draws depends on that text and on nothing else, so that another exploration or another persona gives other
tasks. Goals are in wordings that the scripted expert of the environment understands.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from tutelage.agents.experts.page import View
from tutelage.agents.seeds import stable_seed
from tutelage.agents.transcripts import fenced, read_transcript
from tutelage.registry import resolve


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = words(
    "Ada Bela Carl Dora Emil Fay Greta Henk Irma Jonas Klara Lars Mona Nils Olga Piet Quinn Rita Stan "
    "Tilda Ulf Vera Yves Zora"
)
_VERBS = ("ask for", "bring", "check", "count", "fetch", "look after", "return", "send", "sort", "write about")
_ADJECTIVES = ("best", "first", "good", "last", "late", "missing", "new", "old", "other", "second")
_THINGS = ("bag", "bench", "box", "clock", "door", "lamp", "letter", "map", "parcel", "window")
_WORK = {
    "archivist": ("Puts every paper where it can be found again.", ("letters", "folders", "order")),
    "baker": ("Starts at three in the morning and plans the week ahead.", ("bread", "recipes", "prices")),
    "beekeeper": ("Writes down what the hives do in every season.", ("honey", "weather", "hives")),
    "bookseller": ("Knows what is on every shelf and what is missing.", ("novels", "orders", "shelves")),
    "carpenter": ("Measures twice and keeps the lists of the workshop.", ("boards", "tools", "sizes")),
    "coach": ("Makes the plans for a team that plays on Sundays.", ("scores", "training", "team")),
    "gardener": ("Looks after other people's gardens and sends the bills.", ("roses", "seeds", "tours")),
    "musician": ("Travels a lot and forgets where things are.", ("songs", "guitars", "concerts")),
    "nurse": ("Has little time and wants every change to be exact.", ("shifts", "names", "rooms")),
    "student": ("Collects notes and tidies them before an examination.", ("essays", "books", "library")),
    "teacher": ("Prepares lessons and counts what was handed in.", ("pupils", "lessons", "tests")),
    "translator": ("Never changes a text without keeping a copy of it.", ("words", "letters", "copies")),
}


_TEMPLATES = {
    "files": "tutelage.agents.design_files:kinds",
    "mcp": "tutelage.agents.design_mcp:kinds",
    "sqlite": "tutelage.agents.design_sqlite:kinds",
}
"""Environment → dotted path of a function from what was seen, and a `Taste`, to the kinds of task it can make."""
_NAMED = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class Taste:
    """What the persona likes and the agent can do, and where every choice comes from."""

    likes: tuple[str, ...]
    """Plain words."""
    tools: tuple[str, ...]
    """Names of the tools that the agent will have."""
    draw: Random

    def line(self) -> str:
        """A short text that the persona could have written."""
        verb, adjective = self.draw.choice(_VERBS), self.draw.choice(_ADJECTIVES)
        return f"{verb} the {adjective} {self.draw.choice(self.likes or _THINGS)}"


Kind = Callable[[], dict[str, object] | None]
"""Makes a proposal of one kind; None where too little is known for it."""


def personas(text: str) -> dict[str, object]:
    """As many personas as are wanted and not known, from a fixed list in an order that depends on the environment."""
    known = {name.casefold() for name in fenced("known", text).split("\n")}
    names = [(f"{first} the {work}", work) for first in _FIRST for work in _WORK]
    Random(stable_seed("personas", _environment(text))).shuffle(names)
    fresh = [(name, *_WORK[work]) for name, work in names if name.casefold() not in known]
    return {
        "personas": [
            {"name": name, "description": about, "interests": list(likes)}
            for name, about, likes in fresh[: _wanted("Personas", text)]
        ]
    }


def design(text: str) -> dict[str, object]:
    """Proposals of different kinds; fewer than wanted where the exploration shows too little, and none for an
    environment without templates."""
    environment = _environment(text)
    _, turns = read_transcript(fenced("exploration", text))
    if environment not in _TEMPLATES or not turns:
        return {"proposals": []}
    view = View("", tuple(turn.observation for turn in turns), tuple(turn.action for turn in turns))
    persona = fenced("persona", text)
    tools = tuple(line.partition("(")[0] for line in fenced("tools", text).split("\n"))
    taste = Taste(_likes(persona), tools, Random(stable_seed(persona, view.observations, view.actions)))
    kinds: list[Kind] = resolve(environment, _TEMPLATES, what="templates")(view, taste)
    drawn = (kind() for kind in taste.draw.sample(kinds, len(kinds)))
    return {"proposals": list(islice((made for made in drawn if made is not None), _wanted("Proposals", text)))}


def proposal(template: str, hint: str, end: dict[str, object], **values: str) -> dict[str, object]:
    """A proposal, in whose texts ``<name>`` stands for the slot of a value."""
    made = {"template": template, "hint": hint, "end": end}
    return {**_slotted(made, values), "values": values}


def _slotted(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, str):
        return _NAMED.sub(lambda name: "{{" + name[1] + "}}" if name[1] in values else name[0], value)
    if isinstance(value, dict):
        return {_slotted(key, values): _slotted(item, values) for key, item in value.items()}
    return [_slotted(item, values) for item in value] if isinstance(value, list) else value


def _environment(text: str) -> str:
    match = re.match(r"Environment: (\S+)\n", text)
    return match[1] if match else ""


def _wanted(what: str, text: str) -> int:
    """The number in the request's last line."""
    match = re.search(rf"\n{what} wanted: (\d+)\Z", text)
    return int(match[1]) if match else 1


def _likes(persona: str) -> tuple[str, ...]:
    listed = persona.rpartition(" Interests: ")[2].rstrip(".") if " Interests: " in persona else ""
    return tuple(like for like in listed.split(", ") if re.fullmatch(r"[a-zA-Z][a-zA-Z ]{1,28}[a-zA-Z]", like))

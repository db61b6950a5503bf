"""Memory: experiences to add, search, recall and forget.

    from tutelage.memory import Query, open_memory

    with open_memory("workspace") as memory:
        for hit in memory.search(Query("log in with a username and a password")):
            print(hit.score, hit.experience.id)

The names below are imported when they are first used, so that `import tutelage.memory` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.experience import Change, Experience, Guardrail, Recall, Skill, Source, Status, Sticker
    from tutelage.memory.asynchronous import AsyncMemoryStore
    from tutelage.memory.opening import open_memory
    from tutelage.memory.query import Hit, Query
    from tutelage.memory.store import MemoryStore
    from tutelage.memory.text import render

_PLACES = {
    "tutelage.experience": (
        "Change",
        "Experience",
        "Guardrail",
        "Recall",
        "Skill",
        "Source",
        "Status",
        "Sticker",
    ),
    "tutelage.memory.asynchronous": ("AsyncMemoryStore",),
    "tutelage.memory.opening": ("open_memory",),
    "tutelage.memory.query": ("Hit", "Query"),
    "tutelage.memory.store": ("MemoryStore",),
    "tutelage.memory.text": ("render",),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AsyncMemoryStore",
    "Change",
    "Experience",
    "Guardrail",
    "Hit",
    "MemoryStore",
    "Query",
    "Recall",
    "Skill",
    "Source",
    "Status",
    "Sticker",
    "open_memory",
    "render",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Names to things: a short name, an entry point, or any dotted path ``package.module:Name``."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from tutelage.errors import UnknownName


def resolve(name: str, builtin: Mapping[str, str], *, what: str, group: str | None = None) -> Any:
    """Import what `name` stands for.

    Looks in `builtin` (short name → dotted path), then among the entry points of `group`, then takes
    the name itself as a dotted path.

    Raises:
        UnknownName: nothing is found; the message lists the short names that exist.
    """
    path = builtin.get(name) or _entry_points(group).get(name) or name
    module, _, attribute = path.partition(":")
    if not attribute:
        known = ", ".join(sorted([*builtin, *_entry_points(group)]))
        raise UnknownName(f"unknown {what} {name!r}; known: {known}, or a dotted path 'package.module:Name'")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise UnknownName(f"{what} {name!r}: no module named {error.name!r}") from error
        raise
    except AttributeError as error:
        raise UnknownName(f"{what} {name!r}: {module} has no {attribute!r}") from error


def _entry_points(group: str | None) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)} if group else {}

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
    # Looking up entry points reads the metadata of every installed package; what is built in need not wait for it.
    known = builtin if name in builtin else names(builtin, group)
    path = known.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        listed = ", ".join(sorted(known))
        raise UnknownName(f"unknown {what} {name!r}; known: {listed}, or a dotted path 'package.module:Name'")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise UnknownName(f"{what} {name!r}: no module named {error.name!r}") from error
        raise
    except AttributeError as error:
        raise UnknownName(f"{what} {name!r}: {module} has no {attribute!r}") from error


def names(builtin: Mapping[str, str], group: str | None = None) -> dict[str, str]:
    """Short name → dotted path; a built-in name cannot be taken over by an entry point."""
    points = entry_points(group=group) if group else ()
    return {point.name: point.value for point in points} | dict(builtin)

"""The state of one side of an episode: fresh API objects, and calls to them by name.

Results are the strings that BFCL's own executor would have made, so that its checkers compare what they were
written for. Unlike it, nothing is evaluated: a call is a method's name and checked arguments.
"""

import copy
import inspect
import json
from collections.abc import Callable
from threading import Lock
from typing import Any

from tutelage.environments.base import ActionRefused
from tutelage.environments.bfcl.data import Scenario, api_class, stateless

MAX_NODES = 10_000
"""Files and folders, counted by every way that leads to them; the largest scenario begins with far fewer."""
MAX_DIGITS = 30
"""Decimal digits of a number in an argument."""
MAX_EFFORT = 1000
"""For the few numbers that set how long a computation takes."""
EFFORTFUL = {
    "power": ("exponent",),
    "logarithm": ("precision",),
    "square_root": ("precision",),
    "round_number": ("decimal_places",),
}

_shared = Lock()
"""Some API classes write to their module's constants, or set the precision of a library, for everyone."""


class World:
    """API objects as a scenario begins with them; nothing is shared with any other world."""

    def __init__(self, scenario: Scenario) -> None:
        self.instances: dict[str, Any] = {}
        """Class name → its object, as the official checkers take them."""
        self._methods: dict[str, Callable[..., Any]] = {}
        for name in scenario.classes:
            instance = self.instances[name] = _loaded(name, scenario)
            methods = inspect.getmembers(instance, predicate=inspect.ismethod)
            self._methods |= {called: method for called, method in methods if not called.startswith("_")}

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a function and return its result as text; a failure is a text as well.

        Raises:
            ActionRefused: the numbers are so large that the call might never come back.
        """
        _check_effort(name, arguments)
        with _shared:
            try:
                return _as_text(self._methods[name](**copy.deepcopy(arguments)))
            except Exception as error:  # whatever an API raises is a result, as in the official executor
                return f"Error during execution: {error}"

    def overgrown(self) -> bool:
        """Whether copying folders into each other has made a loop, or more than one could search through."""
        files = self.instances.get("GorillaFileSystem")
        waiting = [files.root, files._current_dir] if files is not None else []
        seen = 0
        while waiting and seen <= MAX_NODES:
            inside = getattr(waiting.pop(), "contents", None) or {}
            seen += len(inside)
            waiting += inside.values()
        return seen > MAX_NODES


def is_error(result: str) -> str:
    """What a result says went wrong; empty if nothing did."""
    if result.startswith("Error during execution: "):
        return result
    try:
        parsed = json.loads(result)
    except (ValueError, RecursionError):
        return ""
    return str(parsed["error"]) if isinstance(parsed, dict) and parsed.get("error") else ""


def _loaded(name: str, scenario: Scenario) -> Any:
    instance = api_class(name)()
    if stateless(name):
        return instance
    state = copy.deepcopy(scenario.config.get(name, {}))
    with _shared:
        instance._load_scenario(state, long_context=scenario.long_context)
        # Long contexts are loaded from constants of the module, which bookings and payments would change for good.
        return copy.deepcopy(instance)


def _check_effort(name: str, arguments: dict[str, Any]) -> None:
    numbers = {key: value for key, value in arguments.items() if isinstance(value, int | float)}
    lists = [item for value in arguments.values() if isinstance(value, list) for item in value]
    whole = [value for value in [*numbers.values(), *lists] if isinstance(value, int)]
    if any(abs(value) >= 10**MAX_DIGITS for value in whole):
        raise ActionRefused(f"Numbers may have up to {MAX_DIGITS} digits.")
    for argument in EFFORTFUL.get(name, ()):
        if abs(numbers.get(argument, 0)) > MAX_EFFORT:
            raise ActionRefused(f"{argument} may be {MAX_EFFORT} at most.")


def _as_text(result: Any) -> str:
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError, RecursionError):
            return str(result)
    return str(result)

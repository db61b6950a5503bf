"""A kernel sandbox for Python that a model wrote: no isolation, no execution."""

from collections.abc import Callable

from tutelage.environments.sandbox.base import Limits, Ran, Sandbox
from tutelage.environments.sandbox.bubblewrap import Bubblewrap
from tutelage.environments.sandbox.oneshot import OneShot
from tutelage.errors import MissingPart

__all__ = ["Limits", "Ran", "Sandbox", "open_sandbox"]


def open_sandbox(limits: Limits | None = None, unsafe: bool = False) -> Sandbox:
    """The best isolation that works on this machine.

    MissingPart with the reasons where there is none; with `unsafe`, which no default may set, the code then runs
    with limits and nothing else, and the level says so.
    """
    limits = limits or Limits()
    reasons = []
    choices: tuple[Callable[[], Sandbox], ...] = (lambda: Bubblewrap(limits), lambda: OneShot(limits, landlock=True))
    for choice in choices:
        try:
            return choice()
        except MissingPart as error:
            reasons.append(str(error))
    if unsafe:
        return OneShot(limits, landlock=False)
    raise MissingPart(f"no sandbox, so no code is run: {'; '.join(reasons)}")

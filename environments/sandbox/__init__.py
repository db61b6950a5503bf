"""A kernel sandbox for Python that a model wrote: no isolation, no execution."""

from tutelage.environments.sandbox.base import Limits, Ran, Sandbox
from tutelage.environments.sandbox.bubblewrap import Bubblewrap

__all__ = ["Limits", "Ran", "Sandbox", "open_sandbox"]


def open_sandbox(limits: Limits | None = None, unsafe: bool = False) -> Sandbox:
    """The best isolation this machine has; MissingPart where there is none, unless `unsafe` is asked for by name."""
    return Bubblewrap(limits or Limits())

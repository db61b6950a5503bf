"""The explorer: an actor that looks around for a persona, so that tasks are designed from what is really there.

An exploration is an episode like any other, of a design whose family is `EXPLORED` and which nothing solves. What
makes it one is its goal.
"""

from tutelage.agents.experts.exploring import AFTER, BEFORE
from tutelage.designs import Persona


def exploration_goal(persona: Persona) -> str:
    """The goal of an exploration, on one line whatever the persona says."""
    told = " ".join(str(persona).split()).rstrip(".")
    return f"{BEFORE} {told}. {AFTER}"

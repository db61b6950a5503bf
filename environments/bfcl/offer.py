"""Which tools an episode offers, so that its first prompt stays within the budget of a small model's context.

A scenario's classes have up to forty functions, 5,000 tokens of schema. Offered are the ones it needs, in one line
each, and as many others of its classes as fit: first those that BFCL names beside the scenario, then others in
an order that is drawn by the scenario's number.
"""

import random
from collections.abc import Iterable

from tutelage.environments.bfcl.data import Scenario
from tutelage.tools import signature
from tutelage.types import Tool

PROMPT_TOKENS = 768
"""Tokens of SmolLM2 that system message, goal and first observation may take together."""
PROMPT_CHARACTERS = 2250
"""Characters of the listed tools and the goal; keeps every one of the 800 tasks within `PROMPT_TOKENS`."""
DESCRIPTIONS = (80, 40, 0)
"""Characters of a description, tried in this order."""
DISTRACTORS = 3
"""Tools not needed that are worth more than longer descriptions."""
END_TURN = Tool(name="end_turn", description="Hand over to the user.")


def first_tools(scenario: Scenario, turns: int, most: int) -> tuple[Tool, ...]:
    """The tools of the first prompt, by name, `end_turn` last; those that BFCL holds out are not among them.

    Args:
        turns: how many of the scenario's turns are played.
        most: how many tools to offer, `end_turn` aside, unless it needs more.
    """
    held_out = {name for names in scenario.held_out.values() for name in names}
    every = {name: tool for name, tool in scenario.tools.items() if name not in held_out}
    needed = [name for name in _needed(scenario, turns) if name in every]
    others = sorted(set(every) - set(needed))
    random.Random(f"bfcl tools of {scenario.number}").shuffle(others)
    others.sort(key=lambda name: name not in scenario.path)  # keeps the drawn order within both halves
    room = PROMPT_CHARACTERS - len(scenario.turns[0])
    for length in DESCRIPTIONS:
        short = {name: shortened(tool, length) for name, tool in every.items()}
        chosen = needed[:]
        for name in others[: max(0, most - len(needed))]:
            if _size(short[each] for each in (*chosen, name)) <= room:
                chosen.append(name)
        enough = len(chosen) >= min(len(needed) + DISTRACTORS, most, len(every))
        if enough and _size(short[each] for each in chosen) <= room:
            break
    return (*(short[name] for name in sorted(chosen)), END_TURN)


def added_tools(scenario: Scenario, turn: int) -> tuple[Tool, ...]:
    """The tools that become available with a turn."""
    tools = scenario.tools
    return tuple(shortened(tools[name], DESCRIPTIONS[0]) for name in scenario.held_out.get(turn, ()))


def shortened(tool: Tool, length: int) -> Tool:
    """`tool` with the first sentence of its description, if at most `length` characters of it."""
    sentence = " ".join(tool.description.split()).partition(". ")[0].rstrip(".")
    cut = sentence if len(sentence) <= length else sentence[:length].rpartition(" ")[0]
    return tool.model_copy(update={"description": cut})


def _needed(scenario: Scenario, turns: int) -> list[str]:
    return list(dict.fromkeys(call.name for turn in scenario.gold[:turns] for call in turn))


def _size(tools: Iterable[Tool]) -> int:
    return sum(len(signature(tool)) + 1 for tool in tools)

"""A policy that errs on purpose, so that there are real failures to learn from."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from tutelage.agents.experts.page import Element, parse
from tutelage.agents.seeds import stable_seed
from tutelage.agents.tool_mistakes import SLIPS as TOOL_SLIPS
from tutelage.agents.tool_mistakes import ToolSituation
from tutelage.calls import Call, CallError, parse_call
from tutelage.conversation import join_reply, read_turn, split_reply
from tutelage.types import Context, Policy, Reply

LIMIT = 2
"""Mistakes per episode at most; after them the inner policy has to cope with what they did."""

_FINISHING = re.compile(r"(?i)\b(submit|ok|done|log ?in|search|send|book|go|next|finish|confirm|save)\b")

Seen = TypeVar("Seen")
Slip = Callable[[Call, "Situation", Random], Call | None]


class Mistaken:
    """Corrupts some of the inner policy's actions, from the text of the context alone.

    The same context gets the same mistake, whatever else is in its batch.
    """

    def __init__(self, inner: Policy, rate: float, seed: int = 0) -> None:
        """
        Args:
            rate: probability that a step is corrupted, as long as the episode has fewer than `LIMIT` mistakes.
        """
        self._inner = inner
        self._rate = rate
        self._seed = seed
        self._erred: dict[str, set[int]] = {}
        """Turns with a mistake, by episode."""

    @property
    def label(self) -> str:
        return f"{self._inner.label} + mistakes (scripted)"

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in order; a corrupted one comes without tokens."""
        replies = self._inner.act(contexts)
        return [self._err(context, reply) for context, reply in zip(contexts, replies, strict=True)]

    def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._erred.pop(key, None)
        self._inner.forget(keys)

    def _err(self, context: Context, reply: Reply) -> Reply:
        situation = Situation(context)
        erred = self._erred.setdefault(context.key, set())
        random = Random(stable_seed(self._seed, context.seed))
        if reply.error or random.random() >= self._rate or sum(turn < situation.turn for turn in erred) >= LIMIT:
            return reply
        thought, action = split_reply(reply.text)
        try:
            call = parse_call(action)
        except CallError:
            return reply
        wrong = _slip_of(call, context, situation, random)
        if wrong is None:
            return reply
        erred.add(situation.turn)
        return replace(reply, text=join_reply(thought, str(wrong)), tokens=None)


class Situation:
    """What a context shows: goal, page and the previous action."""

    def __init__(self, context: Context) -> None:
        turns = [read_turn(message.content) for message in context.messages if message.role == "user"]
        replies = [message.content for message in context.messages if message.role == "assistant"]
        self.turn = len(replies)
        self.goal = (turns[0][0] or "").lower()
        self.elements = [element for element in parse(turns[-1][1]) if element.ref]
        self.previous = split_reply(replies[-1])[1] if replies else ""

    def element(self, ref: object) -> Element | None:
        return next((element for element in self.elements if element.ref == ref), None)


def _slip_of(call: Call, context: Context, situation: Situation, random: Random) -> Call | None:
    """A slip of the kind that suits the call: one to a tool, or an action on a page."""
    if context.tools or (call.args and isinstance(call.args[0], dict)):
        return slip(call, ToolSituation(context), random, TOOL_SLIPS)
    return slip(call, situation, random, SLIPS)


def slip(
    call: Call, situation: Seen, random: Random, kinds: Mapping[Callable[[Call, Seen, Random], Call | None], int]
) -> Call | None:
    """Another call than `call`, wrong in one of the ways people and models err; None if none applies.

    Args:
        kinds: those ways with their weights.
    """
    order = sorted(kinds, key=lambda kind: random.random() ** (1 / kinds[kind]), reverse=True)
    wrong = (kind(call, situation, random) for kind in order)
    return next((found for found in wrong if found is not None and found != call), None)


def wrong_target(call: Call, situation: Situation, random: Random) -> Call | None:
    """The same action on another element of the same role."""
    meant = situation.element(call.args[0]) if call.args else None
    if meant is None:
        return None
    others = [
        element
        for element in situation.elements
        if element.role == meant.role and element.ref != meant.ref and not _may_do_as_well(call, element, situation)
    ]
    return Call(call.name, (random.choice(others).ref, *call.args[1:])) if others else None


def premature_end(call: Call, situation: Situation, random: Random) -> Call | None:
    """A click on what finishes the task, while something else is still due."""
    buttons = [
        element for element in situation.elements if element.role == "button" and _FINISHING.search(element.name)
    ]
    if not buttons or (call.args and call.args[0] in [button.ref for button in buttons]):
        return None
    return Call("click", (random.choice(buttons).ref,))


def altered_text(call: Call, situation: Situation, random: Random) -> Call | None:
    """A typing error in the text of the call."""
    at = len(call.args) - 1
    text = call.args[at] if call.args else None
    if not isinstance(text, str) or not text or situation.element(text) is not None:
        return None
    place = random.randrange(len(text))
    typos = [text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:], text.swapcase()]
    return Call(call.name, (*call.args[:at], random.choice(typos)))


def repetition(call: Call, situation: Situation, random: Random) -> Call | None:
    """The previous action once more."""
    try:
        return parse_call(situation.previous)
    except CallError:
        return None


def dropped_argument(call: Call, situation: Situation, random: Random) -> Call | None:
    """The call without its last argument."""
    return Call(call.name, call.args[:-1]) if call.args else None


def _may_do_as_well(call: Call, element: Element, situation: Situation) -> bool:
    """Whether clicking `element` could be right too, because the goal names it."""
    return call.name == "click" and bool(element.name) and element.name.lower() in situation.goal


SLIPS: dict[Slip, int] = {wrong_target: 4, premature_end: 4, altered_text: 4, repetition: 2, dropped_argument: 1}
"""Ways to err on pages with their weights; those that the grammar catches teach least."""

"""A language model as an acting policy; the embedded expert is one of them.

Inside, a conversation is text and a tool call is its last line (`tutelage.tools`). A provider's model gets
and gives tool calls in OpenAI's format: this is where they are converted, both ways.
"""

import re
from collections.abc import Sequence
from typing import Any

from tutelage import tools as tooling
from tutelage.conversation import join_reply, split_reply
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.llm import LLM, Answer, Request
from tutelage.types import Context, Reply, Tool

ONE_CALL = "Act by calling exactly one tool in every reply."
"""Stands in the system message where the text listing of the tools stood."""
NAME_LENGTH = 64
"""Characters of a tool's name that providers take."""

_NOT_IN_NAMES = re.compile("[^A-Za-z0-9_-]")


class LLMPolicy:
    """Asks an `LLM` once per context; a context that fails for good is an error reply, not an exception.

    Of several tool calls in one answer the first is taken, and the others are dropped, as if they had never
    been made: the model sees one result per turn. An answer without tool calls is taken as it is, so that a
    call in the text grammar is as good as any.

    Args:
        label: what to call it, if not by the model's name.
        native_tools: whether tools are offered in OpenAI's format; if not, or if the model is embedded, the
            system message lists them and calls are text.
    """

    def __init__(self, llm: LLM, label: str | None = None, *, native_tools: bool = True) -> None:
        self._llm = llm
        self._label = label or llm.label
        self._native = native_tools and not llm.embedded

    @property
    def label(self) -> str:
        return self._label

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in order.

        Raises:
            BudgetSpent: the budget allows no further call.
        """
        native = [self._native and bool(context.tools) for context in contexts]
        asked = zip(contexts, native, strict=True)
        requests = [to_request(context) if tools else _plain(context) for context, tools in asked]
        answers = self._llm.answer_many(requests)
        return [_reply(answer, context) for answer, context in zip(answers, contexts, strict=True)]

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept between calls."""


def to_request(context: Context) -> Request:
    """The conversation with its tools as data: calls become ``tool_calls``, the message after one its result."""
    names = _wire_names(context.tools)
    first, *rest = context.messages
    system = f"{tooling.without_listing(first.content, context.tools)}\n{ONE_CALL}"
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    answered = ""
    for place, message in enumerate(rest):
        call_id, answered = answered, ""
        if message.role == "assistant":
            thought, action = split_reply(message.content)
            call = tooling.call_to_openai(action, f"call{place:05d}")  # nine letters and digits: some take no other
            if call is not None:
                answered, function = call["id"], call["function"]
                function["name"] = names.get(function["name"]) or _wire_name(function["name"])
                messages.append({"role": "assistant", "content": thought or None, "tool_calls": [call]})
                continue
        elif call_id:
            messages.append({"role": "tool", "tool_call_id": call_id, "content": message.content})
            continue
        messages.append(message.model_dump())
    offered = tooling.to_openai(context.tools)
    for entry in offered:
        entry["function"]["name"] = names[entry["function"]["name"]]
    return Request(messages, offered)


def from_answer(answer: Answer, tools: Sequence[Tool]) -> str:
    """The answer as text whose last line is the action."""
    if not answer.calls:
        return answer.text
    name, arguments = answer.calls[0]
    ours = {wire: name for name, wire in _wire_names(tools).items()}
    return join_reply(answer.text.strip(), tooling.call_from_openai(ours.get(name, name), arguments))


def _plain(context: Context) -> Request:
    return Request([message.model_dump() for message in context.messages])


def _reply(answer: Answer | TutelageError, context: Context) -> Reply:
    if isinstance(answer, BudgetSpent):
        raise answer
    if isinstance(answer, TutelageError):
        return Reply("", error=str(answer))
    return Reply(from_answer(answer, context.tools))


def _wire_names(tools: Sequence[Tool]) -> dict[str, str]:
    """Each tool's name as providers take it: without dots, not too long, and still one of a kind."""
    names: dict[str, str] = {}
    for number, tool in enumerate(tools):
        wire = _wire_name(tool.name)
        if wire in names.values():
            wire = f"{wire[: NAME_LENGTH - 5]}_{number}"
        names[tool.name] = wire
    return names


def _wire_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:NAME_LENGTH]

"""Tool calls as a student's own chat template writes them.

Inside, a reply is text whose last line is a call in our grammar (`tutelage.tools`). Most instruction-tuned
models were taught another form, such as ``<tool_call>{"name": …, "arguments": …}</tool_call>``, and only
their template knows it. It is learnt by rendering placeholders: whatever stands around them is fixed text.
A template qualifies if it shows the tools, only ever appends, and writes a call as one JSON object of name
and arguments; for all others a call stays text in our grammar.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tutelage import tools as tooling
from tutelage.calls import CallError, parse_call
from tutelage.conversation import join_reply, split_reply

Render = Callable[[Sequence[dict[str, Any]], Sequence[dict[str, Any]] | None], str]
"""Messages and tools as the template renders them, with the generation prompt at the end."""

MARK = "\u241f"
_SYSTEM, _USER, _REPLY, _LATER, _NAME = (f"{MARK}{name}{MARK}" for name in ("system", "user", "reply", "later", "name"))
_RESULT = f'{MARK}"result"\nin lines{MARK}'
"""A template that quotes the results of tools changes this one."""
_ARGUMENTS = {f"{MARK}key{MARK}": f'{MARK}"é{MARK}'}
_CALL_ID = "call00000"
"""Nine letters and digits: some templates take no other."""


class Frame(NamedTuple):
    """The fixed text of a template around a conversation's messages."""

    before: str
    """Up to the system text."""
    between: str
    """From there to the first user text."""
    header: str
    """From a user's text to the assistant's."""
    after: str
    """From the assistant's text to a later user's."""
    again: str
    """From a later user's text to the assistant's."""


class CallForm(NamedTuple):
    """How a template writes a call and its result."""

    lead: str
    """Between a thought and the call's first field."""
    bare: str
    """What a reply without a thought begins with."""
    middle: str
    tail: str
    """After the call's second field, up to the end of the turn."""
    name_first: bool
    keys: tuple[str, str]
    """Keys of name and arguments in the JSON object."""
    after: str
    """From the end of the turn to the text of the result."""
    again: str
    """From the text of the result to the next reply."""

    def write(self, text: str) -> tuple[str, ...] | None:
        """A reply in the template's form, fixed text (even places) and the reply's own (odd places) in turn.

        None if it makes no call, or if `read` would not give it back, as with a thought that holds another call.
        """
        thought, action = split_reply(text)
        entry = tooling.call_to_openai(action, _CALL_ID)
        if entry is None:
            return None
        name, arguments = entry["function"]["name"], entry["function"]["arguments"]
        fields = (name, self.middle, arguments) if self.name_first else (arguments, self.middle, name)
        parts = ("", thought, self.lead if thought else self.bare, *fields, self.tail)
        canonical = join_reply(thought, tooling.call_from_openai(name, arguments))
        return parts if self.read("".join(parts)) == canonical else None

    def read(self, text: str) -> str:
        """A sampled reply with its call in our grammar; without a whole call of this form it is kept as it is.

        Of several calls the first counts; anything but calls behind it makes the reply none of this form.
        """
        found = self._find(text)
        return text if found is None else join_reply(text[: found[0]].strip(), found[1])

    def place(self, text: str) -> int | None:
        """Where the call begins in a sampled reply; None if it holds no whole call of this form."""
        found = self._find(text)
        return None if found is None else found[0]

    def _find(self, text: str) -> tuple[int, str] | None:
        """Where the first call begins, and the call in our grammar."""
        for start, inside in self._places(text):
            call = self._call(text, inside)
            if call is not None:
                return start, call
        return None

    def _places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a call may begin, and where its JSON object does."""
        opening = re.escape(self._opening) or "^"
        for match in re.finditer(rf"{opening}\s*(?=\{{)", text, re.MULTILINE):
            yield match.start(), match.end()

    def _call(self, text: str, place: int) -> str | None:
        try:
            found, end = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        rest = text[end:].lstrip()
        if not isinstance(found, dict) or set(found) != set(self.keys) or not rest.startswith(self._closing):
            return None
        rest = rest[len(self._closing) :].strip()
        if rest and not (self._opening and rest.startswith(self._opening)):
            return None
        name, arguments = (found[key] for key in self.keys)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        try:
            return tooling.write_call(parse_call(f"{name}()").name, arguments)
        except (CallError, RecursionError):
            return None

    @property
    def _opening(self) -> str:
        return self.bare[: self.bare.rindex("{")].strip()

    @property
    def _closing(self) -> str:
        return self.tail[self.tail.index("}") + 1 :].strip()


def makes_call(reply: str) -> bool:
    """Whether the last line of a reply is a call as tools take them, with at most one JSON object."""
    return tooling.call_to_openai(split_reply(reply)[1], _CALL_ID) is not None


def learn_frame(render: Render, tools: Sequence[dict[str, Any]] | None = None) -> Frame | None:
    """The template's fixed text; None if it drops or reorders messages."""
    messages = [_system(), _user(), {"role": "assistant", "content": _REPLY}, _user(_LATER)]
    start, whole = render(messages[:2], tools), render(messages, tools)
    opening = re.fullmatch(f"(.*){_SYSTEM}(.*){_USER}(.*)", start, re.DOTALL)
    later = re.fullmatch(f".*{_REPLY}(.*){_LATER}(.*)", whole, re.DOTALL)
    return Frame(*opening.groups(), *later.groups()) if opening and later else None


def learn_tools(render: Render, tools: Sequence[dict[str, Any]], end: str) -> tuple[Frame, CallForm] | None:
    """Frame and form of calls in a conversation with these tools; None if the template does not qualify.

    Args:
        tools: in OpenAI's format.
        end: the special token that ends the assistant's turn.
    """
    from jinja2 import TemplateError

    try:
        frame, start = learn_frame(render, tools), render([_system(), _user()], tools)
        if frame is None or start == render([_system(), _user()], None):
            return None
        plain = render([_system(), _user(), {"role": "assistant", "content": _REPLY}, _user(_LATER)], tools)
        form = _learn_call(render, tools, start, end)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return None  # whatever a template's code raises on what it was not written for
    if form is None or end not in frame.after or not plain.startswith(start):
        return None
    return frame._replace(after=frame.after.partition(end)[2]), form


def _learn_call(render: Render, tools: Sequence[dict[str, Any]], start: str, end: str) -> CallForm | None:
    def rendered(thought: str, result: dict[str, Any]) -> str:
        function = {"name": _NAME, "arguments": _ARGUMENTS}
        calls = [{"id": _CALL_ID, "type": "function", "function": function}]
        spoken = {"role": "assistant", "content": thought, "tool_calls": calls}
        return render([_system(), _user(), spoken, result], tools)

    for result in ({"role": "tool", "tool_call_id": _CALL_ID, "content": _RESULT}, _user(_RESULT)):
        silent, spoken = rendered("", result), rendered(_REPLY, result)
        form = _call_form(silent.removeprefix(start), end) if silent.startswith(start) else None
        if form is None:
            continue
        if _REPLY not in spoken:  # no place for a thought beside a call; it gets lines of its own
            return form._replace(lead="\n" + form.bare)
        lead = spoken.removeprefix(start + _REPLY).removesuffix(silent.removeprefix(start + form.bare))
        if spoken == start + _REPLY + lead + silent.removeprefix(start + form.bare):
            return form._replace(lead=lead)
    return None


def _call_form(text: str, end: str) -> CallForm | None:
    """The form of a call without a thought, from `text` behind the generation prompt."""
    arguments = json.dumps(_ARGUMENTS, ensure_ascii=False)
    name_first = text.find(_NAME) < text.find(arguments)
    fields = (_NAME, arguments) if name_first else (arguments, _NAME)
    match = re.fullmatch(
        "(.*?){}(.*?){}(.*?){}(.*){}(.*)".format(*map(re.escape, (*fields, end, _RESULT))), text, re.DOTALL
    )
    if match is None:
        return None
    bare, middle, tail, after, again = match.groups()
    if "{" not in bare or "}" not in tail or MARK in "".join(match.groups()):
        return None
    call = bare[bare.rindex("{") :] + fields[0] + middle + fields[1] + tail[: tail.index("}") + 1]
    try:
        found = json.loads(call)
    except ValueError:
        return None
    keys = [key for wanted in (_NAME, _ARGUMENTS) for key, value in found.items() if value == wanted]
    if len(keys) != 2 or len(found) != 2:
        return None
    return CallForm(bare, bare, middle, tail, name_first, (keys[0], keys[1]), after, again)


def _system() -> dict[str, Any]:
    return {"role": "system", "content": _SYSTEM}


def _user(content: str = _USER) -> dict[str, Any]:
    return {"role": "user", "content": content}

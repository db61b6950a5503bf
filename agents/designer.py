"""The task designer: proposes goals, hints for the judge and wanted ends from an exploration; the code checks them.

After Agent-as-Annotators (2604.07776), whose designer lost a twelfth of its tasks to empty prompts and had hints
corrupted by replacing strings one after another: here every slot has one value, every value is used, and all slots
are filled in one pass.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, WithJsonSchema

from tutelage.agents.explorer import exploration_goal
from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import fence, one_line, transcript
from tutelage.agents.views import DesignerView
from tutelage.calls import too_deep
from tutelage.designs import DESIGNED, Design, Hint
from tutelage.errors import DesignRefused, TutelageError
from tutelage.llm import LLM
from tutelage.tools import signature
from tutelage.types import Message, Split, Task

TEXT_LENGTH = 600
"""Characters of a goal or a hint."""
END_LENGTH = 8000
"""Characters of a wanted end as JSON."""
MALFORMED, TOO_MANY = "malformed proposal", "more proposals than asked for"

_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")

T = TypeVar("T")


class Proposal(BaseModel):
    """One proposed task; nothing about it is believed."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    template: str
    values: dict[str, str] = {}
    hint: str
    """May hold the template's slots."""
    end: dict[str, Any]
    """May hold the template's slots in its texts, keys included."""


class Proposals(BaseModel):
    """The designer's reply; one bad proposal does not spoil the others."""

    proposals: list[Annotated[Any, WithJsonSchema(Proposal.model_json_schema())]]


class Refused(NamedTuple):
    """A proposal that was dropped."""

    reason: str
    """One of few fixed phrases, fit for counting."""
    detail: str = ""


@dataclass(frozen=True)
class Proposed:
    """What a designer's reply comes to."""

    proposals: tuple[Proposal, ...]
    refused: tuple[Refused, ...] = ()


def propose_many(views: Sequence[DesignerView], llm: LLM) -> list[Proposed | TutelageError]:
    """Proposals for each view in order, asked for at once; a request that failed is its error in the list."""
    replies = llm.structured_many([designer_request(view) for view in views], Proposals)
    return [
        reply if isinstance(reply, TutelageError) else _read(reply, view)
        for view, reply in zip(views, replies, strict=True)
    ]


def designer_request(view: DesignerView) -> list[Message]:
    # Where the last call led to is not among what the designer sees.
    looked = transcript(exploration_goal(view.persona), view.steps, "").removesuffix("\nFinal observation:\n")
    body = [
        f"Environment: {one_line(view.environment)}",
        fence("persona", str(view.persona)),
        fence("guide", view.guide),
        fence("tools", "\n".join(map(signature, view.tools))),
        fence("exploration", looked),
        f"Proposals wanted: {view.count}",
    ]
    return [Message(role="system", content=prompt("designer")), Message(role="user", content="\n".join(body))]


def _read(reply: Proposals, view: DesignerView) -> Proposed:
    proposals: list[Proposal] = []
    refused: list[Refused] = []
    for draft in reply.proposals:
        try:
            proposal = Proposal.model_validate(draft)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            refused.append(Refused(MALFORMED, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
            continue
        if len(proposals) < view.count:
            proposals.append(proposal)
        else:
            refused.append(Refused(TOO_MANY, one_line(proposal.template)[:TEXT_LENGTH]))
    return Proposed(tuple(proposals), tuple(refused))


# -- from proposal to design --------------------------------------------------------------------


def substituted(template: str, values: Mapping[str, str]) -> str:
    """`template` with every ``{{name}}`` replaced by its value, all in one pass.

    Raises:
        DesignRefused: a slot without a value, a value that is empty or unused, braces that are left, or a result that
            is empty, longer than `TEXT_LENGTH` or not one line.
    """
    _check_values(values)
    unused = sorted(set(values) - _slots(template))
    if unused:
        raise DesignRefused(f"the value {_named(unused[0])} is not used")
    text = _filled(template, values).strip()
    if not text:
        raise DesignRefused("the text is empty")
    if "{{" in text or "}}" in text:
        raise DesignRefused(f"braces are left in {_told(text)}")
    if len(text) > TEXT_LENGTH:
        raise DesignRefused(f"the text has {len(text)} characters; the limit is {TEXT_LENGTH}")
    if len(text.splitlines()) > 1:
        raise DesignRefused(f"{_told(text)} is more than one line")
    return text


def to_design(
    proposal: Proposal, *, number: int, base: Task, persona: str, author: str, by_rule: bool
) -> tuple[Design, Hint]:
    """The proposal as a design and its hint, with all slots filled; not yet checked by the environment.

    Args:
        number: of the design within its environment; becomes the task's seed.
        base: the task of the train split that was explored.
        persona: name of the persona it is for.
        author: label of the designer.
        by_rule: whether the designer is a program.

    Raises:
        DesignRefused: the proposal makes no sense; one line that says why.
    """
    if base.split is not Split.TRAIN:
        raise DesignRefused(f"a task of the {base.split} split is no base for a designed one")
    values = proposal.values
    _check_values(values)
    if too_deep(proposal.end):
        raise DesignRefused("end: it is nested too deeply")
    unused = sorted(set(values) - _slots(proposal.template) - _slots(proposal.hint) - _slots(proposal.end))
    if unused:
        raise DesignRefused(f"the value {_named(unused[0])} is not used")
    goal, hint = (_part(what, text, values) for what, text in (("goal", proposal.template), ("hint", proposal.hint)))
    if _same(hint) in _same(goal):
        raise DesignRefused("the hint says no more than the goal")
    design = Design(
        task=Task(environment=base.environment, family=DESIGNED, seed=number, split=Split.TRAIN),
        base=base,
        goal=goal,
        end=_end(proposal.end, values),
        template=proposal.template.strip(),
        values=values,
        persona=persona,
        author=author,
        by_rule=by_rule,
    )
    return design, Hint(hint)


def _part(what: str, text: str, values: Mapping[str, str]) -> str:
    """Goal or hint, which need not use all of the values."""
    try:
        return substituted(text, {name: value for name, value in values.items() if name in _slots(text)})
    except DesignRefused as error:
        raise DesignRefused(f"{what}: {error}") from None


def _end(end: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    if not end:
        raise DesignRefused("end: it is empty")
    try:
        filled = _filled(end, values)
    except DesignRefused as error:
        raise DesignRefused(f"end: {error}") from None
    if len(json.dumps(filled, ensure_ascii=False)) > END_LENGTH:
        raise DesignRefused(f"end: it is longer than {END_LENGTH} characters")
    return filled


def _check_values(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if not re.fullmatch(r"\w+", name):
            raise DesignRefused(f"{_told(name)} is no name of a value; it has letters, digits and underscores only")
        if not value.strip():
            raise DesignRefused(f"the value {_named(name)} is empty")
        if _SLOT.search(value):
            raise DesignRefused(f"the value {_named(name)} holds a slot itself")


def _filled(value: T, values: Mapping[str, str]) -> T:
    """`value` with the slots of its texts, keys included, filled; what was inserted is not looked at again."""
    if isinstance(value, str):
        missing = sorted(_slots(value) - set(values))
        if missing:
            raise DesignRefused(f"there is no value for {_named(missing[0])}")
        return _SLOT.sub(lambda slot: values[slot[1]], value)  # type: ignore[return-value]
    if isinstance(value, dict):
        filled = {_filled(key, values): _filled(item, values) for key, item in value.items()}
        if len(filled) < len(value):
            raise DesignRefused("two keys become the same")
        return filled  # type: ignore[return-value]
    if isinstance(value, list):
        return [_filled(item, values) for item in value]  # type: ignore[return-value]
    return value


def _slots(value: Any) -> set[str]:
    """The names in all slots of a text, or of a JSON value's texts."""
    if isinstance(value, str):
        return set(_SLOT.findall(value))
    if isinstance(value, dict):
        return {name for item in value.items() for part in item for name in _slots(part)}
    return {name for item in value for name in _slots(item)} if isinstance(value, list) else set()


def _same(text: str) -> str:
    """For comparison: neither case, blanks nor the last full stop matter."""
    return one_line(text).rstrip(" .").casefold()


def _named(name: str) -> str:
    return "{{" + name[:40] + "}}"


def _told(text: str) -> str:
    line = one_line(text)
    return repr(line if len(line) <= 60 else line[:57] + "...")

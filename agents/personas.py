"""The persona generator: people who would use an environment, so that explorations and designed tasks differ.

After Agent-as-Annotators (2604.07776): personas come in batches, and none that is known already comes again.
"""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError, WithJsonSchema

from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import fence, one_line
from tutelage.agents.views import PersonaView
from tutelage.designs import Persona
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.llm import LLM
from tutelage.types import Message

BATCH = 4
"""Personas asked for at once, at most: what fits into a reply of `teacher.max_tokens`, which is short by default."""
MOST_INTERESTS = 8
SHOWN = 200
"""Known names that a request shows, the newest ones; all of them are compared."""


class Personas(BaseModel):
    """The generator's reply; one bad persona does not spoil the others."""

    personas: list[Annotated[Any, WithJsonSchema(Persona.model_json_schema())]]


def invent(view: PersonaView, llm: LLM) -> list[Persona]:
    """Up to `view.count` personas whose names differ from those known and from each other, whatever the letter case.

    Fewer come back when a whole batch brings nothing new, or when a batch after the first one fails.

    Raises:
        PolicyFailed: no usable answer to the first request after all retries.
        BudgetSpent: a limit was reached, or a replay has no answer, before any request.
    """
    found: list[Persona] = []
    while len(found) < view.count:
        names = (*view.known, *(persona.name for persona in found))
        wanted = min(BATCH, view.count - len(found))
        try:
            reply = llm.structured(persona_request(replace(view, known=names, count=wanted)), Personas)
        except BudgetSpent:  # not the batch's fault: the command stops, and its next start asks for all of them
            raise
        except TutelageError:
            if found:
                return found
            raise
        fresh = _new(reply.personas, names)[:wanted]
        if not fresh:
            break
        found += fresh
    return found


def persona_request(view: PersonaView) -> list[Message]:
    body = [
        f"Environment: {one_line(view.environment)}",
        fence("about", view.about),
        fence("known", "\n".join(map(one_line, view.known[-SHOWN:]))),
        f"Personas wanted: {view.count}",
    ]
    return [Message(role="system", content=prompt("persona")), Message(role="user", content="\n".join(body))]


def _new(drafts: list[Any], known: tuple[str, ...]) -> list[Persona]:
    """The personas among the drafts, texts on one line each, without those whose name was there before."""
    taken, found = {_key(name) for name in known}, []
    for draft in drafts:
        try:
            persona = Persona.model_validate(_tidy(draft))
        except ValidationError:
            continue
        if _key(persona.name) not in taken:
            taken.add(_key(persona.name))
            found.append(persona)
    return found


def _tidy(draft: Any) -> Any:
    """A draft with every text on one line, and without what a persona has no place for."""
    if not isinstance(draft, dict):
        return draft
    tidy = {key: _line(item) for key, item in draft.items() if key in Persona.model_fields}
    if isinstance(likes := tidy.get("interests"), list):
        tidy["interests"] = [line for item in likes if (line := _line(item))][:MOST_INTERESTS]
    return tidy


def _line(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _key(name: str) -> str:
    return one_line(name).casefold()

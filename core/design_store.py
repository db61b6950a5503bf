"""Personas, designs, hints and what was refused, as the record keeps them for one run of annotation."""

import json
from collections.abc import Sequence
from typing import Any

from tutelage.agents.designer import Proposal, to_design
from tutelage.designs import DESIGNED, Design, Hint, Persona
from tutelage.environments.base import Environment
from tutelage.errors import DesignRefused, TutelageError
from tutelage.record import Record
from tutelage.types import Task

UNUSABLE, NO_PROPOSAL, REFUSED, KNOWN = (
    "no usable answer",
    "not a proposal",
    "cannot be played or checked",
    "designed before",
)
"""Why something that a designer said became no task."""


class DesignStore:
    """The designs of one run; numbers and duplicates are those of the whole record."""

    def __init__(self, record: Record, run: str) -> None:
        self.record, self.run = record, run

    def designs(self, family: str, environment: str = "") -> list[Design]:
        """In the order in which they were made; of all environments if none is named."""
        mine = [body["design"] for body in self.record.items("design").values() if body["run"] == self.run]
        found = [Design.model_validate(body) for body in mine]
        return [item for item in found if item.task.family == family and environment in ("", item.task.environment)]

    def add(self, design: Design, hint: Hint | None = None) -> None:
        """Keep a design, and apart from it its hint."""
        self.record.put("design", design.task.id, {"design": design.model_dump(mode="json"), "run": self.run})
        if hint is not None:
            self.record.put("hint", design.task.id, {"text": hint.reveal()})

    def number(self, environment: str, family: str) -> int:
        """A number that no designed task of this family has."""
        start = f"{environment}/{family}@"
        return sum(key.startswith(start) for key in self.record.items("design"))

    def personas(self, environment: str) -> list[Persona]:
        """Those thought of in this run; empty while nobody was asked."""
        body = self.record.get("persona", f"{self.run}/{environment}") or {"personas": []}
        return [Persona.model_validate(item) for item in body["personas"]]

    def answered(self, exploration: Design) -> dict[str, Any] | None:
        """What the designer made of an exploration: ``designs`` and ``lost``; None while it was not asked."""
        return self.record.get("proposals", exploration.task.id)

    def give_up(self, exploration: Design, reason: str, detail: str = "") -> None:
        """There is nothing to ask the designer about."""
        self.record.put("proposals", exploration.task.id, {"designs": [], "lost": [[reason, detail]]})

    def keep(
        self,
        exploration: Design,
        answers: Sequence[Any],
        environment: type[Environment],
        *,
        author: str,
        by_rule: bool,
    ) -> None:
        """Keep the proposals that can be played and are new, and why the others cannot or are not."""
        known = {key for body in self.record.items("design").values() for key in sameness(_design(body))}
        lost: list[list[str]] = []
        made: list[str] = []
        with self.record.transaction():
            for answer in answers:
                if isinstance(answer, TutelageError):
                    lost.append([UNUSABLE, str(answer)])
                    continue
                lost += [[NO_PROPOSAL, detail] for _, detail in answer.refused]
                for proposal in answer.proposals:
                    try:
                        design, hint = self._design(proposal, exploration, author, by_rule=by_rule)
                        environment.check_design(design)
                    except DesignRefused as error:
                        lost.append([REFUSED, str(error)])
                        continue
                    if sameness(design) & known:
                        lost.append([KNOWN, design.goal])
                        continue
                    known |= sameness(design)
                    self.add(design, hint)
                    made.append(design.task.id)
            self.record.put("proposals", exploration.task.id, {"designs": made, "lost": lost})

    def _design(self, proposal: Proposal, exploration: Design, author: str, *, by_rule: bool) -> tuple[Design, Hint]:
        return to_design(
            proposal,
            number=self.number(exploration.task.environment, DESIGNED),
            base=exploration.base,
            persona=exploration.persona,
            author=author,
            by_rule=by_rule,
        )


def hint_of(record: Record, task: Task) -> Hint | None:
    """The hint of a designed task, for its judge."""
    body = record.get("hint", task.id)
    return None if body is None else Hint(str(body["text"]))


def sameness(design: Design) -> set[tuple[str, str]]:
    """Designs that share one of these are the same task: same start and wording, or same start and end.

    Different questions may have the same answer, so an answer does not count as an end.
    """
    found = {(design.base.id, " ".join(design.goal.casefold().split()))}
    if design.end is not None and '"answer"' not in (end := json.dumps(design.end, sort_keys=True)):
        found.add((design.base.id, end))
    return found


def _design(body: dict[str, Any]) -> Design:
    return Design.model_validate(body["design"])

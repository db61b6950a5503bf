"""Consolidation of a workspace's memory: `tutelage.memory.consolidation` with the merger and measured effects."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.errors import TutelageError
from tutelage.experience import Experience
from tutelage.measures import Measurement
from tutelage.memory.consolidation import Plan, Reader, consolidate
from tutelage.memory.contradictions import Bounds
from tutelage.memory.polarity import Agreement

if TYPE_CHECKING:
    from tutelage.memory.store import MemoryStore
    from tutelage.workspace import Workspace

CONSOLIDATION = "consolidation"
"""Kind of the documents that say what the consolidation of each cycle set out to do."""
MEASURED = "success with it alone, minus without"

_SAID = {"same": Agreement.SAME, "opposite": Agreement.OPPOSITE, "different": Agreement.OTHER}


def consolidate_memory(workspace: "Workspace", *, cycle: int | None = None, dry_run: bool = False) -> Plan:
    """Consolidate the memory of a workspace; what that of a cycle set out to do is kept in the record.

    Raises:
        BudgetSpent: the merger reached a limit; what it said so far is kept.
    """
    record = workspace.record

    def begun(found: Plan) -> None:
        if cycle is not None and record.get(CONSOLIDATION, str(cycle)) is None:
            record.put(CONSOLIDATION, str(cycle), counts(found))

    return consolidate(
        workspace.memory,
        record,
        workspace.config.memory,
        reader=None if dry_run else _reader(workspace),
        effects=effects(workspace),
        on_plan=begun,
        dry_run=dry_run,
    )


def counts(found: Plan) -> dict[str, Any]:
    """A plan in figures."""
    return {
        "in use": found.experiences,
        "near pairs": found.pairs,
        "merged": len(found.merges),
        "contradictions": len(found.contradictions),
        "resolved": sum(bool(item.winner) for item in found.contradictions),
        "retired": len(found.retired),
        "left": found.left,
    }


def effects(workspace: "Workspace") -> Mapping[str, Bounds]:
    """The newest measured effect of each experience that was measured alone, in pairs; each of the student that
    played them, because an effect on one student cannot be compared with that on another."""
    found: dict[str, Bounds] = {}
    for body in workspace.record.items("measurement").values():
        measurement = Measurement.model_validate(body)
        for item in measurement.effects:
            if item.experience and item.alone and item.difference.pairs:
                what = f"{MEASURED}, of student {measurement.student}"
                found[item.experience] = Bounds(item.difference.low, item.difference.high, what)
    return found


def rows(found: Plan, store: "MemoryStore") -> list[dict[str, Any]]:
    """What a plan does, one row each: ``what`` to the experience ``id``, because of ``with``, whose ``text`` it is."""
    done: list[dict[str, Any]] = [
        {"what": "merge", "id": item.loser, "with": item.winner, "similarity": item.similarity, "why": "the same"}
        for item in found.merges
    ]
    for item in found.contradictions:
        first, second = (item.loser, item.winner) if item.winner else (item.first, item.second)
        what, alike = "retire" if item.winner else "contradiction", item.similarity
        done.append({"what": what, "id": first, "with": second, "similarity": alike or "", "why": item.reason})
    for experience_id, useful, shown in found.retired:
        why = f"no room; utility {useful:.2f} over {shown} episodes" if shown else "no room; never shown"
        done.append({"what": "retire", "id": experience_id, "with": "", "similarity": "", "why": why})
    return [{**row, "text": store.render(store.get(row["id"]))} for row in done]


def _reader(workspace: "Workspace") -> Reader | None:
    """The merger, where a model plays it: by rule there is nothing to add to what was decided by rule."""
    if not workspace.config.memory.asked or workspace.llm("merger").embedded:
        return None

    from tutelage.agents.merger import relate_many

    def read(pairs: Sequence[tuple[Experience, Experience]]) -> list[Agreement | TutelageError]:
        answers = relate_many(pairs, workspace.llm("merger"))
        return [answer if isinstance(answer, TutelageError) else _SAID[answer] for answer in answers]

    return read

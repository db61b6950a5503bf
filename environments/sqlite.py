"""SQLite: questions about, and changes to, a small database in memory, checked against the right answer or rows.

A question is solved by ``answer`` with the right value while the tables are as they were; a change by ``done()``
when they hold exactly the wanted rows, in any order.
"""

import re
from collections import Counter
from typing import Any, ClassVar

from tutelage.designs import Design
from tutelage.environments.base import ActionRefused, Outcome
from tutelage.environments.design import check_form
from tutelage.environments.sqlite_database import Database, Rows
from tutelage.environments.sqlite_design import GUIDE, designed
from tutelage.environments.sqlite_tasks import FAMILIES, Scene, Table, scene
from tutelage.environments.tools import ToolEnvironment, shorten
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Task, Tool

OVER = "The task is over."

TOOLS = (
    Tool(
        name="query",
        description="Run one SELECT, INSERT, UPDATE or DELETE.",
        parameters={"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
    ),
    Tool(name="undo", description="Take back the last change."),
    Tool(
        name="answer",
        description="Answer a question and end the task.",
        parameters={
            "type": "object",
            "properties": {"value": {"type": ["string", "number"]}},
            "required": ["value"],
        },
    ),
    Tool(name="done", description="End the task after a change."),
)

_NUMBER = re.compile(r"[-+]?\d{1,15}(?:\.\d{1,15})?")


class Sqlite(ToolEnvironment):
    """One small database at a time."""

    name: ClassVar[str] = "sqlite"
    trust: ClassVar[float] = 1.0
    intro: ClassVar[str] = (
        "You work on an SQLite database. "
        """End your reply with one call such as query({"sql": "SELECT a FROM t WHERE b = 'x'"})."""
    )
    design_guide: ClassVar[str] = GUIDE

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._database: Database | None = None
        self._changes: list[dict[str, Rows]] = []
        """The contents before each change that stands."""

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return FAMILIES

    @classmethod
    def check_design(cls, design: Design) -> None:
        check_form(cls, design)
        designed(_drawn(design.base), design)

    def start(self, task: Task) -> tuple[str, str]:
        design = self.designs.get(task.id)
        found = _drawn(task) if design is None else designed(_drawn(design.base), design)
        self.close()
        self.offer(TOOLS)
        self._scene = found
        self._database, self._changes = Database(self._scene.tables), []
        return self._scene.goal, "\n".join(["Tables:", *map(str, self._scene.tables)])

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if self._scene is None or self._database is None:
            raise EnvironmentBroken("there is no episode; reset the environment first")
        if name in ("done", "answer"):
            value = arguments.get("value")
            right = value is None if self._scene.answer is None else _equal(value, self._scene.answer)
            solved = self._scene.solvable and right and self._distance() == 0
            credit = self._credit()
            self.close()
            return Outcome(OVER, float(solved), terminated=True, credit=credit)
        result = self._undo(self._database) if name == "undo" else self._query(self._database, **arguments)
        return Outcome(result, credit=self._credit())

    def _query(self, database: Database, sql: str) -> str:
        before = database.contents()
        result = database.run(sql)
        after = database.contents()
        if before == after:
            return shorten(result) or "Nothing changed."
        self._changes.append(before)
        return f"Change {len(self._changes)}: {_told(_counted(before), _counted(after))}"

    def _undo(self, database: Database) -> str:
        if not self._changes:
            raise ActionRefused("There is no change to take back.")
        database.restore(self._changes.pop())
        return f"Change {len(self._changes) + 1} taken back."

    def _distance(self) -> int:
        """How many rows have to come or go until the tables are as wanted."""
        assert self._scene is not None
        assert self._database is not None
        now, wanted = _counted(self._database.contents()), _counted(_contents(self._scene.wanted))
        return ((now - wanted) + (wanted - now)).total()

    def _credit(self) -> float:
        """Share of the wanted changes that are made; unwanted ones count against them. A question has none."""
        assert self._scene is not None
        first, wanted = _counted(_contents(self._scene.tables)), _counted(_contents(self._scene.wanted))
        due = ((first - wanted) + (wanted - first)).total()
        return max(0.0, 1.0 - self._distance() / due) if due else 0.0


def _drawn(task: Task) -> Scene:
    if task.family not in FAMILIES:
        raise UnknownName(f"unknown sqlite family {task.family!r}; known: {', '.join(FAMILIES)}")
    return scene(task.family, task.seed)


def _contents(tables: tuple[Table, ...]) -> dict[str, Rows]:
    return {table.name: table.rows for table in tables}


def _counted(contents: dict[str, Rows]) -> Counter[tuple[object, ...]]:
    """Every row with its table's name and how often it is there; their order does not matter.

    Rows compare as text and type, so that 1 and 1.0 are told apart, and any value can be counted.
    """
    return Counter((name, *map(repr, row)) for name, rows in contents.items() for row in rows)


def _told(before: Counter[tuple[object, ...]], after: Counter[tuple[object, ...]]) -> str:
    gone, come = (before - after).total(), (after - before).total()
    what = "changed" if gone and come else "added" if come else "removed"
    count = max(gone, come)
    return f"{count} row{'' if count == 1 else 's'} {what}."


def _equal(given: object, right: str | int) -> bool:
    """Whether an answer is right, whatever its case, blanks, quotes, full stop, or way to write a number."""
    one, other = _normal(given), _normal(right)
    if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return float(one) == float(other)
    return one == other


def _normal(value: object) -> str:
    return " ".join(str(value).split()).strip(" \"'.").casefold()

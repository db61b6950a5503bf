"""Designed tasks in a small database: an answer, or the rows that come and go."""

from collections import Counter
from dataclasses import replace
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, model_validator

from tutelage.designs import Design
from tutelage.environments.design import parsed, refused
from tutelage.environments.sqlite_tasks import Row, Scene, Table, Value
from tutelage.types import Frozen

TEXT_LENGTH = 100
LARGEST = 10**12
MOST_ROWS = 30
"""Rows that a design may add to one table."""
GUIDE: Final = f"""\
"end" says when the task is done. It is an object with exactly one of these two keys:
- "answer": value, for a question. The task is done when this value is answered and no table has changed. A value is a
  text (letter case does not count) or a whole number; write other numbers as a text. The goal must ask for something
  that has one right value.
- "tables": {{table: {{"removed": [row, ...], "added": [row, ...]}}}}, for a change. The task is done when every table
  holds exactly the rows of the start, without the removed ones and with the added ones, in any order. Tables that are
  not named must not change.
A row is a list of all its values in the order of the table's columns: two texts and a whole number. A removed row must
be in the table at the start, written as it was seen. A row that is changed is removed as it was and added as it will
be. If a task changes all rows of a kind, list every one of them: look at all rows first.
Texts have 1 to {TEXT_LENGTH} characters on one line, with no blanks around them.
The goal must say all that the end asks for, new values word for word: whoever does the task sees the goal and not the
end. No table or column can be made, renamed or dropped.
Example, for the goal: In people, Ann has moved to "Rome", and "Udo" from "Oslo", aged 52, is new.
{{"tables": {{"people": {{"removed": [["Ann", "Oslo", 31]], "added": [["Ann", "Rome", 31], ["Udo", "Oslo", 52]]}}}}}}
Example, for the goal: How many people live in "Oslo"?
{{"answer": 3}}"""


def _value(given: Any) -> Value:
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) <= LARGEST:
        return given
    if isinstance(given, str) and 0 < len(given) <= TEXT_LENGTH and given.isprintable() and given == given.strip():
        return given
    raise ValueError(
        f"a value is a whole number or a text of 1 to {TEXT_LENGTH} characters on one line without blanks around it"
    )


def _value_or_none(given: Any) -> Value | None:
    return None if given is None else _value(given)


Cell = Annotated[Value, BeforeValidator(_value)]


class Change(Frozen):
    """Whole rows that leave a table and come into it."""

    removed: tuple[tuple[Cell, ...], ...] = ()
    added: tuple[tuple[Cell, ...], ...] = ()


class End(Frozen):
    """Of the two, one is there; null stands for none."""

    answer: Annotated[Value | None, BeforeValidator(_value_or_none)] = None
    tables: dict[str, Change] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.answer is None) == (self.tables is None):
            raise ValueError("give either `answer` or `tables`")
        return self


def designed(first: Scene, design: Design) -> Scene:
    """The scene of a design that begins with the tables of `first`.

    Raises:
        DesignRefused: its end is malformed, impossible, or there from the start.
    """
    if design.end is None:
        return Scene(design.goal, first.tables, first.tables, solvable=False)
    end = parsed(End, design.end)
    if end.answer is not None:
        if not any(character.isalnum() for character in str(end.answer)):
            raise refused("end.answer: an answer needs a letter or a digit")
        return Scene(design.goal, first.tables, first.tables, end.answer)
    return Scene(design.goal, first.tables, _wanted(first.tables, end.tables or {}))


def _wanted(tables: tuple[Table, ...], changes: dict[str, Change]) -> tuple[Table, ...]:
    unknown = sorted(changes.keys() - {table.name for table in tables})
    if unknown:
        raise refused(f'end.tables: there is no table "{unknown[0]}"; there are {", ".join(map(str, tables))}')
    wanted = tuple(_changed(table, changes.get(table.name, Change())) for table in tables)
    if all(Counter(new.rows) == Counter(old.rows) for new, old in zip(wanted, tables, strict=True)):
        raise refused("the end is as the start; a task has to change a row, or to have an answer")
    return wanted


def _changed(table: Table, change: Change) -> Table:
    if len(change.added) > MOST_ROWS:
        raise refused(f"end.tables.{table.name}.added: at most {MOST_ROWS} rows")
    left = list(table.rows)
    for row in change.removed:
        _check_row(table, row, "removed")
        if row not in left:
            raise refused(f"end.tables.{table.name}.removed: there is no such row at the start: {list(row)}")
        left.remove(row)
    for row in change.added:
        _check_row(table, row, "added")
    return replace(table, rows=(*left, *change.added))


def _check_row(table: Table, row: Row, key: str) -> None:
    if [type(value) for value in row] != [str, str, int]:
        raise refused(
            f"end.tables.{table.name}.{key}: a row of {table} is two texts and a whole number, not {list(row)}"
        )

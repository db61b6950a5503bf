"""Templates for tasks in the small database, filled from the rows that an exploration showed."""

import re
from dataclasses import dataclass

from tutelage.agents.design_rules import Kind, Taste, proposal, words
from tutelage.agents.experts.page import View
from tutelage.agents.experts.toolkit import calls

_TABLE = re.compile(r"(\w+)\((\w+), (\w+), (\w+)\)")
_ALL = re.compile(r"(?i)\s*SELECT \* FROM (\w+)\s*;?\s*")
_NAMES = words("Arno Britt Cleo Dirk Elin Frida Gorm Hanne Ivar Jette Knut Liv Malte Nele Orla")

Proposal = dict[str, object] | None
Row = tuple[str, str, int]


@dataclass(frozen=True)
class _Table:
    """A table of which all rows were shown: a name, a text and a number each."""

    name: str
    columns: tuple[str, str, str]
    rows: tuple[Row, ...]


def kinds(view: View, taste: Taste) -> list[Kind]:
    """Every kind of task, once for each call."""
    tables = _tables(view)
    if not tables:
        return []
    made = _Database(tables, taste)
    return [
        made.count,
        made.delete,
        made.exchange,
        made.insert,
        made.join,
        made.lookup,
        made.same,
        made.shift,
        made.top,
        made.total,
        made.update,
    ]


class _Database:
    def __init__(self, tables: list[_Table], taste: Taste) -> None:
        self._tables, self._draw = tables, taste.draw

    # -- questions ------------------------------------------------------------------------------

    def count(self) -> Proposal:
        table = self._table()
        column, value = table.columns[1], self._row(table)[1]
        number = sum(row[1] == value for row in table.rows)
        return proposal(
            self._said(
                'How many <table> have the <column> "<value>"?',
                'Count the <table> with the <column> "<value>".',
                'Count the rows of <table> whose <column> is "<value>".',
            ),
            f"The answer given is {number}, and no table has changed.",
            {"answer": number},
            table=table.name,
            column=column,
            value=value,
        )

    def total(self) -> Proposal:
        table = self._table()
        (_, column, number), value = table.columns, self._row(table)[1]
        total = sum(row[2] for row in table.rows if row[1] == value)
        return proposal(
            self._said(
                'What is the total <number> of the <table> with the <column> "<value>"?',
                'Add up the <number> of all <table> with the <column> "<value>".',
                'Give the sum of <number> over the <table> whose <column> is "<value>".',
            ),
            f"The answer given is {total}, and no table has changed.",
            {"answer": total},
            table=table.name,
            column=column,
            value=value,
            number=number,
        )

    def lookup(self) -> Proposal:
        table = self._table()
        row, place = self._row(table), self._draw.choice((1, 2))
        return proposal(
            self._said(
                'What is the <column> of "<key>" in <table>?',
                'Look up the <column> of "<key>" in <table>.',
                'Tell the <column> that <table> has for "<key>".',
            ),
            f"The answer given is {row[place]}, and no table has changed.",
            {"answer": row[place]},
            table=table.name,
            column=table.columns[place],
            key=row[0],
        )

    def top(self) -> Proposal:
        table = self._table()
        (key, column, number), value = table.columns, self._row(table)[1]
        how, sign = self._draw.choice((("highest", -1), ("lowest", 1)))
        ranked = sorted((sign * row[2], row[0]) for row in table.rows if row[1] == value)
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            return None
        return proposal(
            self._said(
                'Which <key> of the <table> with the <column> "<value>" has the <how> <number>?',
                'Find the <key> with the <how> <number> among the <table> with the <column> "<value>".',
                'Of the <table> whose <column> is "<value>", give the <key> with the <how> <number>.',
            ),
            f"The answer given is {ranked[0][1]}, and no table has changed.",
            {"answer": ranked[0][1]},
            table=table.name,
            key=key,
            column=column,
            value=value,
            how=how,
            number=number,
        )

    def join(self) -> Proposal:
        """Where the second column of one table holds names of another."""
        linked = [
            (thing, row, table, found)
            for thing in self._tables
            for row in thing.rows
            for table in self._tables
            for found in table.rows
            if table is not thing and row[1] == found[0]
        ]
        if not linked:
            return None
        (thing, row, table, found), place = self._draw.choice(linked), self._draw.choice((1, 2))
        return proposal(
            self._said(
                'What is the <column> of the <link> of "<key>"?',
                'Tell the <column> of the <link> of "<key>".',
                'Look up the <link> of "<key>" and give the <column> that belongs to that name.',
            ),
            f"The <link> of <key> is {found[0]}; the answer given is {found[place]}, and no table has changed.",
            {"answer": found[place]},
            column=table.columns[place],
            link=thing.columns[1],
            key=row[0],
        )

    # -- changes --------------------------------------------------------------------------------

    def update(self) -> Proposal:
        table = self._table()
        row, place = self._row(table), self._draw.choice((1, 2))
        others = sorted({other[1] for other in table.rows} - {row[1]})
        if place == 1 and not others:
            return None
        value = self._draw.choice(others) if place == 1 else self._number(table)
        shown = "<value>" if place == 2 else '"<value>"'
        return proposal(
            self._said(
                f'Set the <column> of "<key>" to {shown} in <table>.',
                f'Change the <column> of "<key>" in <table> to {shown}.',
                f'In <table>, "<key>" has a new <column>: {shown}.',
            ),
            f"In <table> the <column> of <key> was {row[place]} and is <value> now, and no other row has changed.",
            _changed(removed=[row], added=[_with(row, place, value)]),
            table=table.name,
            column=table.columns[place],
            key=row[0],
            value=str(value),
        )

    def shift(self) -> Proposal:
        table = self._table()
        row, amount, up = self._row(table), self._draw.randint(2, 9), self._draw.random() < 0.5
        after = row[2] + (amount if up else -amount)
        return proposal(
            self._said(
                f'{"Raise" if up else "Lower"} the <column> of "<key>" by <amount> in <table>.',
                f'Make the <column> of "<key>" in <table> <amount> {"higher" if up else "lower"}.',
                f'In <table>, the <column> of "<key>" goes {"up" if up else "down"} by <amount>.',
            ),
            f"In <table> the <column> of <key> was {row[2]} and is {after} now, and no other row has changed.",
            _changed(removed=[row], added=[_with(row, 2, after)]),
            table=table.name,
            column=table.columns[2],
            key=row[0],
            amount=str(amount),
        )

    def insert(self) -> Proposal:
        table = self._table()
        (key, column, number), new = table.columns, self._new(table)
        return proposal(
            self._said(
                f'Add "<name>" to <table> with the {column} "<text>" and the {number} <number>.',
                f'Insert a row into <table>: {key} "<name>", {column} "<text>", {number} <number>.',
                f'The table <table> needs a new row with {key} "<name>", {column} "<text>" and {number} <number>.',
            ),
            f"<table> has {len(table.rows) + 1} rows; the one more is <name>, <text>, <number>, "
            f"and no other row has changed.",
            _changed(added=[new]),
            table=table.name,
            **_values(new),
        )

    def exchange(self) -> Proposal:
        table = self._table()
        (_, column, number), old, new = table.columns, self._row(table), self._new(table)
        those = f'the {column} "<text>" and the {number} <number>'
        return proposal(
            self._said(
                f'In <table>, delete "<old>" and add "<name>" with {those}.',
                f'Replace "<old>" in <table> by a new row "<name>" with {those}.',
                f'"<old>" leaves <table>, and "<name>" comes with {those}.',
            ),
            f"<table> still has {len(table.rows)} rows: <name> for <old>, and no other row has changed.",
            _changed(removed=[old], added=[new]),
            table=table.name,
            old=old[0],
            **_values(new),
        )

    def delete(self) -> Proposal:
        table = self._table()
        column, value = table.columns[1], self._row(table)[1]
        gone = [row for row in table.rows if row[1] == value]
        return proposal(
            self._said(
                'Delete the <table> with the <column> "<value>".',
                'Remove all <table> whose <column> is "<value>".',
                'Clear <table> of every row with the <column> "<value>".',
            ),
            f"<table> is without {', '.join(row[0] for row in gone)}, and no other row has changed.",
            _changed(removed=gone),
            table=table.name,
            column=column,
            value=value,
        )

    def same(self) -> Proposal:
        table = self._table()
        row, source, place = self._row(table), self._row(table), self._draw.choice((1, 2))
        if row[place] == source[place]:
            return None
        return proposal(
            self._said(
                'Give "<key>" the same <column> as "<source>" in <table>.',
                'In <table>, set the <column> of "<key>" to that of "<source>".',
                'Copy the <column> of "<source>" to "<key>" in <table>.',
            ),
            f"In <table> the <column> of <key> is {source[place]} and not {row[place]}, and no other row has changed.",
            _changed(removed=[row], added=[_with(row, place, source[place])]),
            table=table.name,
            column=table.columns[place],
            key=row[0],
            source=source[0],
        )

    # -- choices --------------------------------------------------------------------------------

    def _table(self) -> _Table:
        return self._draw.choice(self._tables)

    def _row(self, table: _Table) -> Row:
        return self._draw.choice(table.rows)

    def _number(self, table: _Table) -> int:
        """A number that the table does not hold."""
        taken = {row[2] for row in table.rows}
        return self._draw.choice([number for number in range(10, 100) if number not in taken])

    def _new(self, table: _Table) -> Row:
        name = self._draw.choice(sorted(set(_NAMES) - {row[0] for row in table.rows}))
        return name, self._row(table)[1], self._number(table)

    def _said(self, *wordings: str) -> str:
        return self._draw.choice(wordings)


def _tables(view: View) -> list[_Table]:
    """The tables of the kind that there are templates for, whose rows were all shown while nothing was changed."""
    columns = {
        match[1]: (match[2], match[3], match[4])
        for line in view.observations[0].split("\n")
        if (match := _TABLE.fullmatch(line))
    }
    found: dict[str, _Table] = {}
    for made in calls(view):
        if made.result.startswith("Change "):
            break
        asked = _ALL.fullmatch(str(made.arguments.get("sql"))) if made.name == "query" else None
        if asked and asked[1] in columns and (rows := _rows(made.result, columns[asked[1]])):
            found[asked[1]] = _Table(asked[1], columns[asked[1]], rows)
    return list(found.values())


def _rows(result: str, columns: tuple[str, str, str]) -> tuple[Row, ...]:
    """The rows that a result shows; none unless it shows all of them, under these columns."""
    heading, *lines = result.split("\n")
    cells = [line.split(" | ") for line in lines]
    if heading != " | ".join(columns) or not all(len(row) == 3 and re.fullmatch(r"-?\d{1,9}", row[2]) for row in cells):
        return ()
    if len({row[0] for row in cells}) < len(cells) or any('"' in cell for row in cells for cell in row):
        return ()  # a name that is there twice, or that a goal cannot quote, names no row
    return tuple((name, text, int(number)) for name, text, number in cells)


def _changed(removed: list[Row] | None = None, added: list[Row] | None = None) -> dict[str, object]:
    rows = {"removed": [list(row) for row in removed or ()], "added": [list(row) for row in added or ()]}
    return {"tables": {"<table>": {key: listed for key, listed in rows.items() if listed}}}


def _with(row: Row, place: int, value: str | int) -> Row:
    name, text, number = row
    return (name, str(value), number) if place == 1 else (name, text, int(value))


def _values(new: Row) -> dict[str, str]:
    return {"name": new[0], "text": new[1], "number": str(new[2])}

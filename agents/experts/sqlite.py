"""The expert for the small database.

It knows one statement, or two, for every goal. Any other change that stands is taken back, so that what is
read and what is changed are always the tables as they were.
"""

import re
from collections import Counter
from collections.abc import Callable

from tutelage.agents.experts import exploring
from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.toolkit import Answer, Goals, call, calls

SQLITE = Goals()
advise = SQLITE.advise

_TABLE = re.compile(r"(?P<name>\w+)\((?P<columns>\w+(?:, \w+)*)\)")
_CHANGE = re.compile(r"Change (?P<number>\d+)(?P<back> taken back\.)?")
_STRING = re.compile(r"('(?:[^']|'')*')")
_SPACE = re.compile(r"\s*([=,()<>*+-]|\s)\s*")


class Seen:
    """The tables, and what the past statements did and told."""

    def __init__(self, view: View) -> None:
        self.tables = {
            match["name"]: match["columns"].split(", ")
            for line in view.observations[0].splitlines()
            if (match := _TABLE.fullmatch(line))
        }
        self.changes: list[str] = []
        """The changes that stand, as plain SQL."""
        self.told: dict[str, str] = {}
        """What a statement gave while nothing was changed, by plain SQL."""
        for made in calls(view):
            match, sql = _CHANGE.match(made.result), _plain(str(made.arguments.get("sql")))
            if match is None and made.name == "query" and not self.changes and made.result != view.observations[0]:
                self.told[sql] = made.result
            elif match and made.result != made.before:
                # Two changes never read the same, so one that reads like the last did not happen.
                self.changes = self.changes[: int(match["number"]) - 1] + ([] if match["back"] else [sql])

    def key(self, table: str) -> str:
        """The column that names the rows of a table."""
        return self.tables.get(table, ["name"])[0]

    def owner(self, column: str) -> str:
        """The table that has a column."""
        return next((table for table, columns in self.tables.items() if column in columns), "")


def _plain(sql: str) -> str:
    """SQL for comparison: spacing and case outside of strings do not matter, nor does a semicolon at the end."""
    parts = _STRING.split(sql.strip().rstrip(";"))
    parts[::2] = [_SPACE.sub(lambda match: match[1].strip() or " ", part).casefold() for part in parts[::2]]
    return "".join(part if n % 2 else part.strip() for n, part in enumerate(parts))


def _literal(value: str) -> str:
    """A value of a goal or a result, with or without its double quotes, in SQL."""
    text = value.strip('"').replace("'", "''")
    return text if re.fullmatch(r"-?\d+", text) else f"'{text}'"


def _query(sql: str) -> str:
    return call("query", sql=sql)


def asking(seen: Seen, sql: str) -> Advice:
    """Ask, then answer with what came back."""
    if seen.changes:
        return Advice((call("undo"),))
    result = seen.told.get(_plain(sql))
    return Advice((_query(sql) if result is None else call("answer", value=result),))


def changing(seen: Seen, *statements: str) -> Advice:
    """Make these changes, in any order and each once, and no others."""
    due = {_plain(sql): sql for sql in statements}
    if Counter(seen.changes) - Counter(due.keys()):
        return Advice((call("undo"),))
    missing = [_query(sql) for plain, sql in due.items() if plain not in seen.changes]
    return Advice(tuple(missing) or (call("done"),))


def goal(*wordings: str, families: str) -> Callable[[Answer], Answer]:
    """Register an answer to goals.

    In a wording ``<name>`` is a quoted value, ``[name]`` a word such as a column, and ``{name}`` a number or a
    quoted value, quotes included.
    """
    patterns = []
    for wording in wordings:
        pattern = re.sub(r"(?<!\?P)<(\w+)>", r'"(?P<\1>[^"]+)"', wording)
        pattern = re.sub(r"\[(\w+)\]", r"(?P<\1>\\w+)", pattern)
        patterns.append(re.sub(r"\{(\w+)\}", r'(?P<\1>\\d+|"[^"]+")', pattern))

    def register(answer: Answer) -> Answer:
        SQLITE.goal(*patterns, families=families)(lambda view, **values: answer(Seen(view), **values))
        return answer

    return register


# -- questions ----------------------------------------------------------------------------------


@goal(
    r"How many [table] have the [column] <value>\?",
    r"Count the [table] with the [column] <value>\.",
    r"Count the rows of [table] whose [column] is <value>\.",
    families="count",
)
def count(seen: Seen, table: str, column: str, value: str) -> Advice:
    return asking(seen, f"SELECT COUNT(*) FROM {table} WHERE {column} = {_literal(value)}")


@goal(
    r"What is the total [number] of the [table] with the [column] <value>\?",
    r"Add up the [number] of all [table] with the [column] <value>\.",
    r"Give the sum of [number] over the [table] whose [column] is <value>\.",
    families="sum",
)
def total(seen: Seen, number: str, table: str, column: str, value: str) -> Advice:
    return asking(seen, f"SELECT SUM({number}) FROM {table} WHERE {column} = {_literal(value)}")


@goal(
    r"What is the [column] of <key> in [table]\?",
    r"Look up the [column] of <key> in [table]\.",
    r"Tell the [column] that [table] has for <key>\.",
    families="lookup",
)
def lookup(seen: Seen, column: str, key: str, table: str) -> Advice:
    return asking(seen, _select(seen, table, column, key))


@goal(
    r"Which [key] of the [table] with the [column] <value> has the (?P<how>highest|lowest) [number]\?",
    r"Find the [key] with the (?P<how>highest|lowest) [number] among the [table] with the [column] <value>\.",
    r"Of the [table] whose [column] is <value>, give the [key] with the (?P<how>highest|lowest) [number]\.",
    families="top",
)
def top(seen: Seen, key: str, table: str, column: str, value: str, how: str, number: str) -> Advice:
    order = "DESC" if how == "highest" else "ASC"
    where = f"WHERE {column} = {_literal(value)}"
    return asking(seen, f"SELECT {key} FROM {table} {where} ORDER BY {number} {order} LIMIT 1")


@goal(
    r"What is the [column] of the [link] of <key>\?",
    r"Tell the [column] of the [link] of <key>\.",
    r"Look up the [link] of <key> and give the [column] that belongs to that name\.",
    families="join",
)
def join(seen: Seen, column: str, link: str, key: str) -> Advice:
    table, other = seen.owner(column), seen.owner(link)
    joined = f"{table} JOIN {other} ON {seen.key(table)} = {link}"
    return asking(seen, f"SELECT {column} FROM {joined} WHERE {seen.key(other)} = {_literal(key)}")


# -- changes ------------------------------------------------------------------------------------


@goal(
    r"Set the [column] of <key> to {value} in [table]\.",
    r"Change the [column] of <key> in [table] to {value}\.",
    r"In [table], <key> has a new [column]: {value}\.",
    families="update",
)
def update(seen: Seen, column: str, key: str, value: str, table: str) -> Advice:
    return changing(seen, _update(seen, table, column, _literal(value), key))


@goal(
    r"(?P<how>Raise|Lower) the [column] of <key> by {amount} in [table]\.",
    r"Make the [column] of <key> in [table] {amount} (?P<how>higher|lower)\.",
    r"In [table], the [column] of <key> goes (?P<how>up|down) by {amount}\.",
    families="raise",
)
def shift(seen: Seen, how: str, column: str, key: str, amount: str, table: str) -> Advice:
    sign = "+" if how in ("Raise", "higher", "up") else "-"
    return changing(seen, _update(seen, table, column, f"{column} {sign} {amount}", key))


@goal(
    r"Add <key> to [table] with the \w+ <text> and the \w+ {number}\.",
    r"Insert a row into [table]: \w+ <key>, \w+ <text>, \w+ {number}\.",
    r"The table [table] needs a new row with \w+ <key>, \w+ <text> and \w+ {number}\.",
    families="insert",
)
def insert(seen: Seen, table: str, key: str, text: str, number: str) -> Advice:
    return changing(seen, _insert(table, key, text, number))


@goal(
    r"Delete the [table] with the [column] {value}\.",
    r"Remove all [table] whose [column] is {value}\.",
    r"Clear [table] of every row with the [column] {value}\.",
    r"Delete the [table] with [column] (?P<how>above|below) {value}\.",
    r"Remove all [table] whose [column] is (?P<how>above|below) {value}\.",
    r"Clear [table] of every row with [column] (?P<how>above|below) {value}\.",
    families="delete",
)
def delete(seen: Seen, table: str, column: str, value: str, how: str = "") -> Advice:
    sign = {"above": ">", "below": "<"}.get(how, "=")
    return changing(seen, f"DELETE FROM {table} WHERE {column} {sign} {_literal(value)}")


@goal(
    r"Give <key> the same [column] as <source> in [table]\.",
    r"In [table], set the [column] of <key> to that of <source>\.",
    r"Copy the [column] of <source> to <key> in [table]\.",
    families="same",
)
def same(seen: Seen, key: str, column: str, source: str, table: str) -> Advice:
    question = _select(seen, table, column, source)
    result = seen.told.get(_plain(question))
    if result is None:
        return asking(seen, question)
    return changing(seen, _update(seen, table, column, _literal(result), key))


@goal(
    r"In [table], delete <old> and add <key> with the \w+ <text> and the \w+ {number}\.",
    r"Replace <old> in [table] by a new row <key> with the \w+ <text> and the \w+ {number}\.",
    r"<old> leaves [table], and <key> comes with the \w+ <text> and the \w+ {number}\.",
    families="replace",
)
def exchange(seen: Seen, table: str, old: str, key: str, text: str, number: str) -> Advice:
    gone = f"DELETE FROM {table} WHERE {seen.key(table)} = {_literal(old)}"
    return changing(seen, gone, _insert(table, key, text, number))


def _select(seen: Seen, table: str, column: str, key: str) -> str:
    return f"SELECT {column} FROM {table} WHERE {seen.key(table)} = {_literal(key)}"


def _update(seen: Seen, table: str, column: str, value: str, key: str) -> str:
    return f"UPDATE {table} SET {column} = {value} WHERE {seen.key(table)} = {_literal(key)}"


def _insert(table: str, key: str, text: str, number: str) -> str:
    return f"INSERT INTO {table} VALUES ({_literal(key)}, {_literal(text)}, {_literal(number)})"


SQLITE.goal(exploring.EXPLORING, families="")(exploring.sqlite)

COVERED = tuple(sorted(SQLITE.families))
"""Families it claims to solve."""

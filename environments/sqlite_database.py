"""A small SQLite database in memory in which any SQL may be tried.

A statement can read and change the rows of the given tables, and nothing else: it cannot reach files or other
databases, change the schema or the connection's settings, or run, grow or return without end.
"""

import sqlite3
import time
from collections.abc import Sequence

from tutelage.environments.base import ActionRefused
from tutelage.environments.sqlite_tasks import Table

SQL_LENGTH = 1000
SHOWN_ROWS = 12
SHOWN_CELL = 60
"""Characters."""
SECONDS = 1.0
"""Longest time for one statement."""
INSTRUCTIONS = 200_000
"""Most steps of SQLite's machine for one statement; tens of milliseconds."""
PAGES = 64
"""Most pages, of 4 kB each, that the tables may take up."""

Rows = tuple[tuple[object, ...], ...]

_FUNCTIONS = (
    "abs avg coalesce count glob group_concat hex ifnull iif instr length like lower ltrim max min nullif printf "
    "replace round rtrim substr substring sum total trim typeof upper"
)
_ALLOWED_FUNCTIONS = frozenset(_FUNCTIONS.split())
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 5000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: SQL_LENGTH * 4,
    sqlite3.SQLITE_LIMIT_COLUMN: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_DENIED = "Only SELECT, INSERT, UPDATE and DELETE on the tables shown are allowed."
_REASONS = {
    "not authorized": _DENIED,
    "prohibited": _DENIED,
    "interrupted": "The statement took too long and was stopped.",
    "one statement at a time": "Write one statement at a time.",
    "is full": "The tables are full.",
    "too big": "A value is too long.",
}


class Database:
    """The tables of one episode."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = {table.name: table.columns for table in tables}
        # Opened and closed in the threads of an environment's runner, and used by one at a time.
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self._connection.execute(f"PRAGMA max_page_count = {PAGES}")
        for table in tables:
            name, text, number = table.columns
            self._connection.execute(f"CREATE TABLE {table.name} ({name} TEXT, {text} TEXT, {number} INTEGER)")
        self.restore({table.name: table.rows for table in tables})
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._left = self._deadline = 0.0
        self._connection.set_progress_handler(self._overdue, 1000)

    def close(self) -> None:
        self._connection.close()

    def contents(self) -> dict[str, Rows]:
        """All rows of all tables, in their order."""
        return {name: tuple(self._connection.execute(f"SELECT * FROM {name}")) for name in self._tables}

    def restore(self, contents: dict[str, Rows]) -> None:
        """Make the tables hold exactly these rows."""
        for name, rows in contents.items():
            self._connection.execute(f"DELETE FROM {name}")
            self._connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)

    def run(self, sql: str) -> str:
        """The rows that one statement gives, a line each; what it changes is in `contents`.

        Raises:
            ActionRefused: it is not SQL, not allowed, or takes too long; nothing changed.
        """
        if not sql.strip(" ;\n"):
            raise ActionRefused("Write a statement, such as SELECT or UPDATE.")
        if len(sql) > SQL_LENGTH:
            raise ActionRefused(f"The statement has {len(sql)} characters; the limit is {SQL_LENGTH}.")
        self._left, self._deadline = INSTRUCTIONS, time.monotonic() + SECONDS
        self._connection.set_authorizer(self._authorize)
        try:
            cursor = self._connection.execute(sql)
            rows = cursor.fetchmany(SHOWN_ROWS + 1)
            names = [column[0] for column in cursor.description or ()]
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ActionRefused(_reason(str(error))) from error
        finally:
            self._connection.set_authorizer(None)
            self._left, self._deadline = float("inf"), float("inf")
        return _shown(names, rows)

    def _overdue(self) -> bool:
        """Whether to stop; asked after every thousand instructions."""
        self._left -= 1000
        return self._left < 0 or time.monotonic() > self._deadline

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            # Rows of a subquery are read under its own name and without a column.
            allowed = first in (*self._tables, "sqlite_master") or second == ""
        elif action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            allowed = first in self._tables
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = second in _ALLOWED_FUNCTIONS
        else:
            allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _reason(message: str) -> str:
    """An error of SQLite as a sentence for the agent."""
    known = next((reason for part, reason in _REASONS.items() if part in message), None)
    return known or f"SQL error: {' '.join(message.split())[:150]}."


def _shown(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> str:
    """Rows as lines, under the names of their columns where there are several; empty for no columns."""
    if not names:
        return ""
    lines = [" | ".join(map(_cell, row)) for row in rows[:SHOWN_ROWS]] or ["No rows."]
    heading = [" | ".join(map(_cell, names))] if len(names) > 1 and rows else []
    more = [f"... only the first {SHOWN_ROWS} rows are shown."] if len(rows) > SHOWN_ROWS else []
    return "\n".join([*heading, *lines, *more])


def _cell(value: object) -> str:
    text = "NULL" if value is None else " ".join(str(value).split())
    return text if len(text) <= SHOWN_CELL else text[: SHOWN_CELL - 3] + "..."

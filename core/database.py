"""The database under the record: opening, checking, transactions. It knows tables, but not what they mean."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError

from tutelage.errors import RecordError
from tutelage.record_tables import META, METADATA, SCHEMA_VERSION

FILE = "record.db"
BUSY_SECONDS = 60
"""How long a writer waits for another process's transaction."""


class Database:
    """Threads share one instance; processes may each open their own. SQLite has one writer at a time."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._lock = threading.RLock()
        self._local = threading.local()

    @classmethod
    def open(cls, workspace: Path | str, *, create: bool = True) -> Self:
        """Open the record of a workspace folder, or at a database URL; made if there is none and `create`.

        Raises:
            RecordError: there is none, it is not a record, or another version of Tutelage wrote it.
        """
        text = str(workspace)
        if "://" in text:
            url, name = text, text
        else:
            path = Path(workspace) / FILE
            if not create and not path.exists():
                raise RecordError(f"there is no record in {workspace}; `tutelage run` makes one")
            path.parent.mkdir(parents=True, exist_ok=True)
            url, name = f"sqlite:///{path}", str(path)
        record = cls(_open_engine(url), name)
        try:
            with record.transaction() as connection:
                _check_schema(connection, name)
        except DBAPIError as error:
            record.close()
            raise RecordError(f"cannot open the record {name}: {error.orig}") from error
        except RecordError:
            record.close()
            raise
        return record

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All adds inside happen together or not at all; an inner transaction joins the outer one."""
        outer: Connection | None = getattr(self._local, "connection", None)
        if outer is not None:
            yield outer
            return
        with self._lock, self._writer.begin() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All reads inside see the record as it is at the first of them; no writes."""
        if getattr(self._local, "connection", None) is not None:
            yield
            return
        with self._engine.begin() as connection:
            self._local.connection = connection
            try:
                yield
            finally:
                self._local.connection = None

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        """Read, inside this thread's transaction if there is one."""
        outer: Connection | None = getattr(self._local, "connection", None)
        if outer is not None:
            return list(outer.execute(query))
        with self._engine.connect() as connection:
            return list(connection.execute(query))

    def _one(self, rows: list[Row[Any]], what: str, key: str) -> Row[Any]:
        if not rows:
            raise RecordError(f"{self.name} has no {what} {key!r}")
        return rows[0]


def where(table: Table, **wanted: Any) -> list[ColumnElement[bool]]:
    """Conditions on the columns of that name; None asks for nothing."""
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def _check_schema(connection: Connection, name: str) -> None:
    tables = inspect(connection).get_table_names()
    if not tables:
        METADATA.create_all(connection)
        connection.execute(insert(META).values(key="schema_version", value=str(SCHEMA_VERSION)))
        return
    if META.name not in tables:
        raise RecordError(f"{name} is a database, but not a record of Tutelage")
    version = connection.execute(select(META.c.value).where(META.c.key == "schema_version")).scalar()
    if version != str(SCHEMA_VERSION):
        raise RecordError(
            f"{name} has schema version {version}; this Tutelage reads version {SCHEMA_VERSION}. "
            "Use the version that wrote it, or another workspace."
        )


def _open_engine(url: str) -> Engine:
    """An engine whose transactions survive `kill -9`; on SQLite in WAL mode with every commit synced."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late; see `_begin`
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A writer takes the lock at once: upgrading a read transaction fails without waiting.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine

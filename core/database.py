"""The database under the record: opening, checking, transactions. It knows tables, but not what they mean."""

import logging
import sqlite3
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
from sqlalchemy.exc import TimeoutError as NoConnection

from tutelage.errors import RecordError
from tutelage.migrations import migrate
from tutelage.record_tables import META, METADATA, SCHEMA_VERSION

_LOG = logging.getLogger(__name__)

FILE = "record.db"
BUSY_SECONDS = 60
"""How long a writer waits for another process's transaction."""
SCRUB_SECONDS = 5
"""How long each part of a scrub waits for other processes."""
UNSCRUBBED = "unscrubbed"
"""Entry of the meta table while erased text may stand in pages that are no longer used."""
AWAY = (DBAPIError, NoConnection)
"""What is raised while the database is busy or away; the same may go well a little later."""


def away(error: Exception) -> str:
    """What to say of such an error: the whole of it would quote the statement with its values."""
    return f"the database is busy or away: {error.orig if isinstance(error, DBAPIError) else error}"


class Database:
    """Threads share one instance; processes may each open their own. SQLite has one writer at a time."""

    def __init__(self, engine: Engine, name: str, tenant: str | None = None) -> None:
        self.name = name
        self.tenant = tenant
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._lock = threading.RLock()
        self._local = threading.local()
        self._watch: sqlite3.Connection | None = None
        self._watching = threading.Lock()

    @classmethod
    def open(cls, workspace: Path | str, *, create: bool = True, tenant: str | None = None) -> Self:
        """Open the record of a workspace folder, or at a database URL; made if there is none and `create`.

        One of an older schema is migrated first, as a whole or not at all.

        Args:
            tenant: whose runs it is opened for: what is added is theirs, and queries that name no tenant answer with
                theirs alone. Default: nobody's; what is added stays as it is, and queries answer with everybody's.

        Raises:
            RecordError: there is none, it is not a record, it is damaged, or a newer version of Tutelage wrote it.
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
        try:
            _make_ready(url, name)
            record = cls(_open_engine(url), name, tenant)
            with record.transaction() as connection:
                unscrubbed = record._unscrubbed(connection)
            if unscrubbed:
                record.scrub()
        except DBAPIError as error:
            raise RecordError(f"cannot open the record {name}: {error.orig}") from error
        return record

    @property
    def folder(self) -> Path | None:
        """The workspace that it lies in; None: it is elsewhere, as on a database server."""
        path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        return Path(path).parent if path and Path(path).name == FILE else None

    def close(self) -> None:
        with self._watching:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self._engine.dispose()

    def stamp(self) -> int | None:
        """A number that is another one once anybody, of this process or another, has committed anything.

        Costs microseconds, a hundredth of what a query does. None: not known, as with a database server.
        """
        if self.folder is None:
            return None
        with self._watching:
            if self._watch is None:
                self._watch = sqlite3.connect(self.folder / FILE, timeout=BUSY_SECONDS, check_same_thread=False)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

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
        if getattr(self._local, "erased", False):
            self._local.erased = False
            self.scrub()

    @property
    def writing(self) -> bool:
        """Whether this thread is inside a transaction: what it reads may yet be taken back."""
        outer: Connection | None = getattr(self._local, "connection", None)
        return outer is not None and bool(outer.get_execution_options().get("writes"))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """All reads inside see the record as it is at the first of them; no writes."""
        outer: Connection | None = getattr(self._local, "connection", None)
        if outer is not None:
            yield outer
            return
        with self._engine.begin() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    def scrub(self) -> bool:
        """Rewrite the database without its unused pages and empty the write-ahead log, which may keep erased text.

        Happens by itself after a transaction that erased something.

        Returns:
            False while other processes are in the way; then it is done when the record is next opened.
        """
        if self.folder is None:
            return True  # a database server looks after its own files
        with self._lock:
            try:
                done = self._compact()
            except sqlite3.OperationalError:  # busy for longer than was waited
                done = False
            if not done:
                _LOG.warning("%s: unused pages may keep erased text until the record is next opened", self.name)
            return done

    def _compact(self) -> bool:
        raw = self._engine.raw_connection()
        try:
            connection = raw.driver_connection
            assert connection is not None, "it was just taken from the pool"
            connection.execute(f"PRAGMA busy_timeout={1000 * SCRUB_SECONDS}")
            connection.execute("VACUUM")
            connection.execute("DELETE FROM meta WHERE key = ?", (UNSCRUBBED,))
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (UNSCRUBBED,))
            return not busy
        finally:
            raw.invalidate()  # its timeout is not the others'

    def _scrub_later(self, connection: Connection) -> None:
        """Have this transaction followed by a scrub, even if the process dies in between."""
        if not self._unscrubbed(connection):
            connection.execute(insert(META).values(key=UNSCRUBBED, value="1"))
        self._local.erased = True

    def _unscrubbed(self, connection: Connection) -> bool:
        return connection.execute(select(META.c.value).where(META.c.key == UNSCRUBBED)).scalar() is not None

    def _rows(self, query: Select[Any], **values: Any) -> list[Row[Any]]:
        """Read, inside this thread's transaction if there is one; `values` are those of the query's parameters."""
        outer: Connection | None = getattr(self._local, "connection", None)
        if outer is not None:
            return list(outer.execute(query, values).all())
        with self._engine.connect() as connection:
            return list(connection.execute(query, values).all())

    def _one(self, rows: list[Row[Any]], what: str, key: str) -> Row[Any]:
        if not rows:
            raise RecordError(f"{self.name} has no {what} {key!r}")
        return rows[0]


def where(table: Table, **wanted: Any) -> list[ColumnElement[bool]]:
    """Conditions on the columns of that name; None asks for nothing."""
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def _make_ready(url: str, name: str) -> None:
    """Look at the tables in one transaction, so that of several processes that open an old record one migrates it."""
    # Without foreign keys for as long as that takes: SQLite rebuilds a table by dropping the old one.
    engine = _open_engine(url, foreign_keys=False)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            _prepare(connection, name)
    finally:
        engine.dispose()


def _prepare(connection: Connection, name: str) -> None:
    """Make the tables where there are none, and bring older ones up to date.

    Raises:
        RecordError: not a record, a damaged one, or one of a newer schema.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        METADATA.create_all(connection)
        connection.execute(insert(META).values(key="schema_version", value=str(SCHEMA_VERSION)))
        return
    if META.name not in tables:
        raise RecordError(f"{name} is a database, but not a record of Tutelage")
    found = connection.execute(select(META.c.value).where(META.c.key == "schema_version")).scalar() or ""
    if not found.isdigit() or not 1 <= int(found) <= SCHEMA_VERSION:
        raise RecordError(
            f"{name} has schema version {found or 'none'}; this Tutelage reads versions 1 to {SCHEMA_VERSION}. "
            "Use the version that wrote it, or another workspace."
        )
    if int(found) < SCHEMA_VERSION:
        _LOG.info("%s: from schema version %s to %d", name, found, SCHEMA_VERSION)
        try:
            migrate(connection, int(found))
        except (ValueError, LookupError) as error:  # what a damaged body makes of reading it
            raise RecordError(f"{name} is damaged and stays as it is; restore a backup ({error!r})") from error
        if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RecordError(f"{name} is damaged: rows refer to others that are not there; restore a backup")
        tables = set(inspect(connection).get_table_names())
    missing = sorted(METADATA.tables.keys() - tables)
    if missing:
        raise RecordError(f"{name} is damaged: it has no table {', '.join(missing)}; restore a backup")


def _open_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """An engine whose transactions survive `kill -9`; on SQLite in WAL mode with every commit synced."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late; see `_begin`
        cursor = connection.cursor()
        keys = "foreign_keys=ON" if foreign_keys else "foreign_keys=OFF"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", keys):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A writer takes the lock at once: upgrading a read transaction fails without waiting.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine

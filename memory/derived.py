"""What search needs of each experience, so that opening a large memory reads it instead of making it again.

One SQLite file beside the index, shared by all processes and tenants: each experience's vector and the hashes of its
words, no text. All of it can be made again from the record; whoever needs a row that is missing or old makes it.
"""

import fcntl
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tutelage.memory.embedder import Vectors
from tutelage.memory.words import Words

_LOG = logging.getLogger(__name__)
_FILE = "search.db"
_BUSY_SECONDS = 60
_BATCH = 500
_TABLE = """
create table if not exists derived (
    id text primary key, tenant text not null, version integer not null, made_with text not null,
    vector blob not null, words blob not null
)"""
_PUT = """
insert into derived values (?, ?, ?, ?, ?, ?)
on conflict (id) do update set version = excluded.version, made_with = excluded.made_with, vector = excluded.vector,
words = excluded.words where excluded.version >= version or excluded.made_with <> made_with"""

T = TypeVar("T")


class Row(NamedTuple):
    """What was made of one version of an experience."""

    id: str
    version: int
    vector: Vectors
    words: Words
    n: int = 0
    """Its number in the file."""


class Derived:
    """One tenant's rows, made with one embedder. A damaged file is replaced by an empty one."""

    def __init__(self, folder: Path, *, tenant: str, made_with: str, dimension: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _FILE
        self._tenant, self._made_with, self._bytes = tenant, made_with, 4 * dimension
        self._connection = self._open()

    def rows(self, ids: Sequence[str] | None = None) -> Iterator[Row]:
        """Those of these ids, or all."""
        if ids is None:
            yield from self._all()
            return
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            yield from self._selected(f"id in ({','.join('?' * len(part))})", part)

    def _all(self) -> Iterator[Row]:
        last = 0
        while found := self._selected("rowid > ? order by rowid limit 10000", (last,)):
            yield from found
            last = found[-1].n

    def _selected(self, condition: str, values: Sequence[object]) -> list[Row]:
        sql = (
            f"select rowid, id, version, vector, words from derived where tenant = ? and made_with = ? and {condition}"
        )
        nothing: list[Any] = []
        rows = self._tried(lambda at: at.execute(sql, (self._tenant, self._made_with, *values)).fetchall(), nothing)
        return [
            Row(key, version, np.frombuffer(vector, np.float32), np.frombuffer(words, np.uint64), n)
            for n, key, version, vector, words in rows
            if len(vector) == self._bytes and len(words) % 8 == 0
        ]

    def put(self, rows: Iterable[Row]) -> None:
        """Keep what was made; of two versions the newer one stays."""
        values = [
            (row.id, self._tenant, row.version, self._made_with, row.vector.tobytes(), row.words.tobytes())
            for row in rows
        ]
        if values:
            self._tried(lambda at: _written(at, _PUT, values), None)

    def delete(self, ids: Sequence[str]) -> None:
        """Erase, in the file too."""
        if ids:
            self._tried(lambda at: _erased(at, [(key,) for key in ids]), None)

    def clear(self) -> None:
        """Erase all rows of the tenant."""
        self._tried(lambda at: _written(at, "delete from derived where tenant = ?", [(self._tenant,)]), None)

    def close(self) -> None:
        self._connection.close()

    def _tried(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        try:
            return work(self._connection)
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                _LOG.warning("%s is busy; what was made for search is not kept", self._path)
            else:
                self._connection.close()
                self._connection = self._open(broken=error)
            return otherwise

    def _open(self, broken: Exception | None = None) -> sqlite3.Connection:
        with (self._path.parent / "search.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # or two processes would remove each other's new file
            try:
                return self._connected(checked=broken is not None)
            except sqlite3.DatabaseError as error:
                _LOG.info("making %s anew: %s", self._path, broken or error)
                for path in self._path.parent.glob(f"{_FILE}*"):
                    path.unlink()
                return self._connected(checked=False)

    def _connected(self, *, checked: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode = wal", "synchronous = normal", "secure_delete = on"):
                connection.execute(f"pragma {pragma}")
            connection.execute(_TABLE)
            connection.execute("create index if not exists tenants on derived (tenant)")
            if checked and connection.execute("pragma quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("damaged")
        except BaseException:
            connection.close()
            raise
        return connection


def _written(connection: sqlite3.Connection, sql: str, values: Sequence[tuple[object, ...]]) -> None:
    connection.execute("begin immediate")
    try:
        connection.executemany(sql, values)
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _erased(connection: sqlite3.Connection, keys: Sequence[tuple[str]]) -> None:
    _written(connection, "delete from derived where id = ?", keys)
    with suppress(sqlite3.OperationalError):  # readers are in the way: a later checkpoint gets there
        connection.execute("pragma wal_checkpoint(truncate)")

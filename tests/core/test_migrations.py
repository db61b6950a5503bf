"""A record of any earlier schema opens as one of the newest, whole and with nothing lost, whatever happens meanwhile.

`schema_1.sql` was written by the last version that made schema 1 and never changes.
"""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from tutelage.errors import RecordError
from tutelage.experience import Status, identity
from tutelage.record import Record
from tutelage.record_experiences import Uses
from tutelage.record_tables import METADATA, SCHEMA_VERSION
from tutelage.types import Ending

FIRST = Path(__file__).parent / "schema_1.sql"
SKILL, STICKER, GUARDRAIL = (f"exp_{letter:0>16}" for letter in "abc")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A workspace folder with a record of schema 1."""
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.executescript(FIRST.read_text(encoding="utf-8"))
    connection.close()
    return tmp_path


def ask(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "record.db") as connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    return rows


def content(folder: Path) -> dict[str, list[Any]]:
    """All rows of schema 1's tables, in its columns."""
    first = sqlite3.connect(":memory:")
    first.executescript(FIRST.read_text(encoding="utf-8"))
    tables = [name for (name,) in first.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {name: [row[1] for row in first.execute(f"PRAGMA table_info({name})")] for name in tables}
    found = {}
    for name in tables:
        wanted = ", ".join(f'"{column}"' for column in columns[name])
        found[name] = [
            row for row in ask(folder, f"SELECT {wanted} FROM {name} ORDER BY 1") if row[0] != "schema_version"
        ]
    return found


def check_migrated(folder: Path) -> None:
    record = Record.open(folder)
    rows = {row.id: row for row in record.experience_rows()}
    for item in record.experiences():
        assert rows[item.id].identity == identity(item)
        assert rows[item.id].tasks == {source.task for source in item.sources}
        assert (rows[item.id].tenant, rows[item.id].trust) == (item.tenant, item.trust) == ("default", 1.0)
    assert {key: row.status for key, row in rows.items()} == {
        SKILL: Status.ACTIVE,
        STICKER: Status.ACTIVE,
        GUARDRAIL: Status.RETIRED,
    }
    assert record.uses() == {SKILL: Uses(shown=3, sound=2, solved=1), STICKER: Uses(shown=1, sound=1, solved=1)}
    assert [item.origin for item in record.trajectories(tenant="default")] == ["own"] * 8
    assert (record.tombstones(), record.newest()) == ([], (4, 0))
    record.close()
    assert ask(folder, "SELECT value FROM meta WHERE key = 'schema_version'") == [(str(SCHEMA_VERSION),)]


def test_schema_1_opens_with_all_it_had(old: Path) -> None:
    before = content(old)
    assert [len(before[name]) for name in ("trajectories", "experiences", "documents", "students")] == [8, 4, 2, 2]
    check_migrated(old)
    assert content(old) == before
    record = Record.open(old)
    item = record.experience(SKILL)
    record.save_experience(item.model_copy(update={"version": 3, "status": Status.ABSORBED}))
    assert [version.version for version in record.history(SKILL)] == [1, 2, 3]
    assert record.newest().experience == 5
    stone = record.forget_experience(SKILL, "r", "hand:ada")
    shown = [item.id for item in record.trajectories() if item.ending is not Ending.SOLVED and item.shown]
    assert set(shown) < set(stone.derived["trajectories"])
    record.close()


def test_a_migrated_record_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    Record.open(old).close()
    Record.open(tmp_path / "new").close()
    keyed = "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY 1"
    assert ask(old, keyed) == ask(tmp_path / "new", keyed) != []
    for table in METADATA.tables:
        columns = f"SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info('{table}') ORDER BY cid"
        assert ask(old, columns) == ask(tmp_path / "new", columns) != []
    for folder in (old, tmp_path / "new"):
        with create_engine(f"sqlite:///{folder / 'record.db'}").connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


OPEN = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from tutelage.record import Record

left = int(sys.argv[2])

def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", count)
Record.open(Path(sys.argv[1])).close()
print(left)
"""


def test_killed_at_any_statement_it_is_completed_at_the_next_open(old: Path, full_counts: bool) -> None:
    total = 1_000_000 - int(
        subprocess.run(
            [sys.executable, "-c", OPEN, str(_copy(old, "whole")), "1000000"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert total > 30, "a migration is many statements"
    for statement in range(1, total + 1, 1 if full_counts else total // 4):
        folder = _copy(old, str(statement))
        done = subprocess.run([sys.executable, "-c", OPEN, str(folder), str(statement)], capture_output=True)
        assert done.returncode == -signal.SIGKILL
        before = content(folder)
        check_migrated(folder)
        assert content(folder) == before == content(old)


def test_of_several_processes_that_open_it_one_migrates(old: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(old), "1000000"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    statements = [1_000_000 - int(child.communicate()[0]) for child in children]
    assert sum(count > 30 for count in statements) == 1
    check_migrated(old)


def _copy(old: Path, name: str) -> Path:
    folder = old / name
    folder.mkdir()
    (folder / "record.db").write_bytes((old / "record.db").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE trajectories SET body = 'not json' WHERE memory", "damaged and stays as it is"),
        ("DROP TABLE metrics", "damaged: it has no table metrics"),
        ("DELETE FROM experiences WHERE version = 2", "rows refer to others that are not there"),
        ("DELETE FROM meta", "schema version none"),
        ("UPDATE meta SET value = 'x'", "schema version x"),
        ("UPDATE meta SET value = '4'", "schema version 4; this Tutelage reads versions 1 to 3"),
    ],
)
def test_what_cannot_be_migrated_is_a_clear_error_and_stays_as_it_was(old: Path, damage: str, message: str) -> None:
    with sqlite3.connect(old / "record.db") as connection:
        connection.execute(damage)
    connection.close()
    before = list(sqlite3.connect(old / "record.db").iterdump())
    with pytest.raises(RecordError, match=message):
        Record.open(old)
    assert list(sqlite3.connect(old / "record.db").iterdump()) == before


def test_a_record_that_was_killed_before_it_had_tables_gets_them(tmp_path: Path) -> None:
    (tmp_path / "record.db").touch()
    Record.open(tmp_path).close()
    record = Record.open(tmp_path, create=False)
    assert (record.trajectories(), record.newest()) == ([], (0, 0))
    record.close()

"""The database: exact checks, tasks that vary, and SQL that can do no harm."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.environments.base import ActionRefused
from tutelage.environments.sqlite import Sqlite, _equal
from tutelage.environments.sqlite_database import SHOWN_ROWS, Database
from tutelage.environments.sqlite_tasks import FAMILIES, Scene, Table, scene
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Cause, Split, Task

PEOPLE = Table("people", ("name", "city", "age"), (("Ann", "Oslo", 30), ("Bob", "Rome", 40), ("Cid", "Rome", 50)))
ORDERS = Table("orders", ("item", "buyer", "price"), (("lamp", "Bob", 7),))
LEFT = Table("people", PEOPLE.columns, (("Ann", "Oslo", 30),))
COUNT = "SELECT COUNT(*) FROM people WHERE city = 'Rome'"
DELETE = "DELETE FROM people WHERE city = 'Rome'"

Made = tuple[str, float, bool, Cause, str, float]


def begin(monkeypatch: pytest.MonkeyPatch, made: Scene) -> Sqlite:
    monkeypatch.setattr("tutelage.environments.sqlite.scene", lambda *_: made)
    environment = Sqlite()
    environment.reset()
    return environment


@pytest.fixture
def question(monkeypatch: pytest.MonkeyPatch) -> Sqlite:
    return begin(monkeypatch, Scene("How many?", (PEOPLE, ORDERS), (PEOPLE, ORDERS), 2))


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Sqlite:
    return begin(monkeypatch, Scene("Delete.", (PEOPLE, ORDERS), (LEFT, ORDERS)))


def do(environment: Sqlite, name: str, **arguments: object) -> Made:
    observation, reward, over, _, info = environment.step(f"{name}({json.dumps(arguments)})")
    return observation, reward, over, info["diagnosis"].cause, info["diagnosis"].evidence, info["credit"]


def ask(environment: Sqlite, sql: str) -> str:
    return do(environment, "query", sql=sql)[0]


def test_results_are_short_lines(question: Sqlite) -> None:
    assert question.observation == "Tables:\npeople(name, city, age)\norders(item, buyer, price)"
    assert ask(question, COUNT) == "2"
    assert ask(question, "SELECT name FROM people WHERE age > 30;") == "Bob\nCid"
    assert ask(question, "SELECT name, age FROM people ORDER BY age DESC LIMIT 2") == "name | age\nCid | 50\nBob | 40"
    assert ask(question, "SELECT age FROM people JOIN orders ON name = buyer") == "40"
    assert ask(question, "SELECT * FROM people WHERE age > 90") == "No rows."
    assert ask(question, "SELECT MAX(age) FROM people WHERE age > 90") == "NULL"
    assert ask(question, "UPDATE people SET age = 30 WHERE name = 'Ann'") == "Nothing changed."
    many = ask(question, "SELECT 1 FROM people a, people b, people c")
    assert many.splitlines() == ["1"] * SHOWN_ROWS + [f"... only the first {SHOWN_ROWS} rows are shown."]


def test_questions_are_answered_with_the_tables_untouched(question: Sqlite) -> None:
    assert do(question, "answer", value=" 2. ")[:4] == ("The task is over.", 1.0, True, Cause.SOLVED)
    with pytest.raises(EnvironmentBroken):
        question.step("undo()")

    question.reset()
    assert do(question, "answer", value=3)[1:4] == (0.0, True, Cause.WRONG_END)
    question.reset()
    assert do(question, "done")[1:3] == (0.0, True)
    question.reset()
    ask(question, "DELETE FROM orders")
    assert do(question, "answer", value=2)[1:3] == (0.0, True)
    question.reset()
    ask(question, "DELETE FROM orders")
    assert do(question, "undo")[0] == "Change 1 taken back."
    assert do(question, "answer", value=2.0)[1:3] == (1.0, True)


def test_changes_are_checked_exactly(change: Sqlite) -> None:
    assert do(change, "query", sql="DELETE FROM people WHERE name = 'Bob'")[5] == 0.5
    *_, credit = do(change, "query", sql="DELETE FROM people WHERE name = 'Cid'")
    assert credit == 1.0
    assert do(change, "done")[:4] == ("The task is over.", 1.0, True, Cause.SOLVED)

    change.reset()
    assert do(change, "done")[1:3] == (0.0, True)
    change.reset()
    ask(change, DELETE)
    ask(change, "INSERT INTO orders VALUES ('pen', 'Ann', 1)")
    assert do(change, "done")[1:3] == (0.0, True), "an extra change"
    change.reset()
    ask(change, DELETE)
    assert do(change, "answer", value="2")[1:3] == (0.0, True), "it was no question"


def test_changes_can_be_taken_back_one_by_one(change: Sqlite) -> None:
    assert do(change, "undo")[3:5] == (Cause.ACTION_FAILED, "There is no change to take back.")
    assert ask(change, "INSERT INTO people VALUES ('Dan', 'Lima', '9')") == "Change 1: 1 row added."
    assert ask(change, "UPDATE people SET age = age + 1") == "Change 2: 4 rows changed."
    assert ask(change, "DELETE FROM people RETURNING name") == "Change 3: 4 rows removed."
    assert ask(change, "SELECT COUNT(*) FROM people") == "0"
    assert [do(change, "undo")[0] for _ in range(2)] == ["Change 3 taken back.", "Change 2 taken back."]
    assert ask(change, "SELECT name, age FROM people") == "name | age\nAnn | 30\nBob | 40\nCid | 50\nDan | 9"
    assert do(change, "undo")[0] == "Change 1 taken back."
    ask(change, DELETE)
    assert do(change, "done")[1] == 1.0


@pytest.mark.parametrize(
    ("given", "right", "same"),
    [
        ("oslo", "Oslo", True),
        ("'Oslo'.", "Oslo", True),
        ("Oslo Rome", "Oslo", False),
        ("12.0", 12, True),
        ("012", 12, True),
        ("1_2", 12, False),
        ("12 rows", 12, False),
        (12.5, 12, False),
        (float("inf"), 12, False),
        ("", 0, False),
    ],
)
def test_answers_are_compared_sensibly(given: object, right: str | int, same: bool) -> None:
    assert _equal(given, right) is same


FORBIDDEN = [
    "ATTACH DATABASE '{path}' AS other",
    "VACUUM INTO '{path}'",
    "VACUUM",
    "DETACH DATABASE main",
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA max_page_count = 1000000",
    "SELECT load_extension('{path}')",
    "SELECT readfile('{path}')",
    "SELECT writefile('{path}', 'x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT randomblob(1000000000)",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM json_each('[1]')",
    "SELECT COUNT(*) FROM pragma_database_list",
    "CREATE TABLE other (a)",
    "CREATE TEMP TABLE other (a)",
    "CREATE VIRTUAL TABLE other USING fts5(a)",
    "CREATE TRIGGER t AFTER INSERT ON people BEGIN DELETE FROM orders; END",
    "CREATE VIEW v AS SELECT * FROM people",
    "ALTER TABLE people ADD COLUMN x",
    "DROP TABLE people",
    "UPDATE sqlite_master SET sql = 'x'",
    "BEGIN",
    "SAVEPOINT a",
    "ROLLBACK",
    "ANALYZE",
]
BROKEN = [
    (" ; ", "Write a statement"),
    ("SELEC 1", "SQL error: near"),
    ("SELECT colour FROM people", "no such column"),
    ("SELECT 1; DELETE FROM people", "one statement at a time"),
    ("SELECT '\x00'", "SQL error"),
    ("SELECT ?", "SQL error"),
    ("SELECT 1 " + " " * 2000, "the limit is 1000"),
    ("SELECT replace(printf('%4000d', 1), ' ', 'xy')", "too long"),
    ("SELECT " + "(" * 400 + "1" + ")" * 400, "SQL error"),
    ("INSERT INTO people SELECT printf('%4000d', 1), 'x', 1 FROM people a, people b, people c, people d", "are full"),
    (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT MAX(x) FROM c",
        "too long and was stopped",
    ),
    ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT 1 FROM c) INSERT INTO people SELECT 1, 1, x FROM c", "stopped"),
    (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
        "SELECT x, printf('%4000d', x) FROM c ORDER BY 2 DESC, 1",
        "stopped",
    ),
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_forbidden_statements_are_refused(change: Sqlite, tmp_path: Path, sql: str) -> None:
    path = f"{tmp_path}/other.db"
    observation, _, _, cause, evidence, _ = do(change, "query", sql=sql.format(path=path))
    assert (observation[:7], cause) == ("Tables:", Cause.ACTION_FAILED)
    assert "allowed" in evidence or "no such function" in evidence or "SQL error" in evidence
    assert list(tmp_path.iterdir()) == []
    assert ask(change, DELETE) == "Change 1: 2 rows removed."
    assert do(change, "done")[1] == 1.0


@pytest.mark.parametrize(("sql", "says"), BROKEN)
def test_broken_and_runaway_statements_are_refused_soon(change: Sqlite, sql: str, says: str) -> None:
    started = time.monotonic()
    _, _, _, cause, evidence, credit = do(change, "query", sql=sql)
    assert time.monotonic() - started < 3
    assert (cause, credit) == (Cause.ACTION_FAILED, 0.0)
    assert says in evidence
    assert "\n" not in evidence
    ask(change, DELETE)
    assert do(change, "done")[1] == 1.0


def test_slow_patterns_end() -> None:
    """A pattern full of wildcards is one step of SQLite's machine, during which nothing can stop it."""
    database, started = Database([PEOPLE]), time.monotonic()
    pattern = "%a" * 24
    with pytest.raises(ActionRefused, match="LIKE"):
        database.run(f"SELECT 'a' LIKE '{pattern}%a%a'")
    assert database.run(f"SELECT replace(printf('%4000d', 1), ' ', 'a') LIKE '{pattern}b'") == "0"
    assert time.monotonic() - started < 2
    database.close()


def test_text_that_is_no_text_does_no_harm(change: Sqlite) -> None:
    assert ask(change, "UPDATE people SET city = CAST(x'ff0a41' AS TEXT)").startswith("Change 1")
    assert ask(change, "SELECT city FROM people LIMIT 1") == "\ufffd A"
    assert ask(change, "UPDATE people SET city = x'00', age = 1e999").startswith("Change 2")
    assert ask(change, "SELECT city, age FROM people LIMIT 1") == "city | age\nb'\\x00' | inf"
    assert [do(change, "undo")[3] for _ in range(2)] == [Cause.PROGRESS] * 2
    ask(change, DELETE)
    assert do(change, "done")[1] == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_vary_and_are_not_solved_at_first(family: str) -> None:
    environment, seen = Sqlite(), set()
    for task in Sqlite.tasks(Split.TRAIN, [family], count=200):
        made = scene(family, task.seed)
        assert made == scene(family, task.seed)
        assert (made.answer is None) == (made.tables != made.wanted)
        observation, info = environment.reset(options={"task": task})
        seen.add((info["goal"], observation))
    assert len(seen) >= 150
    assert environment.step("done()")[1] == 0.0


def test_unknown_family() -> None:
    with pytest.raises(UnknownName, match="count, delete"):
        Sqlite().reset(options={"task": Task(environment="sqlite", family="x", seed=0, split=Split.TRAIN)})


_WORDS = (
    "select insert update delete from into people orders where values set name age ( ) * , = ' \" ; -- 1 NULL with as "
    "union join on group by order limit ? :a @b x'00' \x00 \ud800 é returning count max"
)
_parts = st.sampled_from(_WORDS.split(" "))
_sql = st.lists(_parts, max_size=12).map(" ".join) | st.text(max_size=40)
_call = st.builds(
    lambda name, key, value: f"{name}({json.dumps({key: value})})",
    st.sampled_from(["query", "query", "undo", "run"]),
    st.sampled_from(["sql", "sql", "value", "x"]),
    _sql | st.none() | st.integers(),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(action=_call | st.text(max_size=40))
def test_no_action_raises_or_ends_the_task(action: str) -> None:
    environment = Sqlite()
    environment.reset(options={"family": "count"})
    _, reward, over, _, info = environment.step(action)
    assert (reward, over) == (0.0, False)
    assert "\n" not in info["diagnosis"].evidence
    assert len(info["diagnosis"].evidence) < 400
    environment.close()

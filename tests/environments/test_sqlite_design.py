"""Ends of designed database tasks: answers, rows that come and go, and what is refused."""

import json
from typing import Any

import pytest

from tutelage.designs import DESIGNED, Design
from tutelage.environments.sqlite import Sqlite
from tutelage.environments.sqlite_design import MOST_ROWS, designed
from tutelage.environments.sqlite_tasks import Scene, Table
from tutelage.errors import DesignRefused
from tutelage.types import Cause, Split, Task

ROWS = (("Ann", "Oslo", 30), ("Bob", "Rome", 40), ("Ann", "Oslo", 30))
PEOPLE = Table("people", ("name", "city", "age"), ROWS)
ORDERS = Table("orders", ("item", "buyer", "price"), (("lamp", "Bob", 7),))
BASE = Task(environment="sqlite", family="count", seed=3, split=Split.TRAIN)


def ended(end: dict[str, Any]) -> Scene:
    return designed(
        Scene("Count.", (PEOPLE, ORDERS), (PEOPLE, ORDERS), 1), Design(task=BASE, base=BASE, goal="Go.", end=end)
    )


def people(removed: list[Any], added: list[Any]) -> dict[str, Any]:
    return {"tables": {"people": {"removed": removed, "added": added}}}


def test_rows_come_and_go() -> None:
    scene = ended(people([["Ann", "Oslo", 30]], [["Ann", "Rome", 30], ["Cid", "Oslo", -2]]))
    assert sorted(scene.wanted[0].rows) == [
        ("Ann", "Oslo", 30),
        ("Ann", "Rome", 30),
        ("Bob", "Rome", 40),
        ("Cid", "Oslo", -2),
    ]
    assert (scene.goal, scene.tables, scene.wanted[1], scene.answer) == ("Go.", (PEOPLE, ORDERS), ORDERS, None)


@pytest.mark.parametrize(
    ("right", "given", "sql", "cause"),
    [
        (2, "2", "", Cause.SOLVED),
        ("Dan", ' "dan". ', "", Cause.SOLVED),
        ("2.5", 2.5, "", Cause.SOLVED),
        (2, 3, "", Cause.WRONG_END),
        (2, 2, "DELETE FROM courses WHERE course = 'film'", Cause.WRONG_END),
    ],
)
def test_a_question_is_solved_by_its_answer_alone(right: object, given: object, sql: str, cause: Cause) -> None:
    task = BASE.model_copy(update={"family": DESIGNED})
    design = Design(task=task, base=BASE, goal="How many?", end={"answer": right, "tables": None})
    Sqlite.check_design(design)
    environment = Sqlite.with_designs([design])()
    environment.reset(options={"task": task})
    if sql:
        environment.step(f"query({json.dumps({'sql': sql})})")
    *_, info = environment.step(f"answer({json.dumps({'value': given})})")
    assert info["diagnosis"].cause is cause


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ({"answer": None}, "give either `answer` or `tables`"),
        ({"answer": 1, "tables": {}}, "give either `answer` or `tables`"),
        ({"answer": True}, r"end\.answer: a value is a whole number or a text"),
        ({"answer": 2.5}, r"end\.answer: a value is"),
        ({"answer": 10**40}, r"end\.answer: a value is"),
        ({"answer": " "}, r"end\.answer: a value is"),
        ({"answer": "..."}, "needs a letter or a digit"),
        ({"tables": {}}, "as the start"),
        ({"tables": {"pupils": {}}}, r'no table "pupils"; there are people\(name, city, age\), orders'),
        ({"tables": {"people": {"changed": []}}}, r"end\.tables\.people\.changed: Extra"),
        (people([{"name": "Ann"}], []), r"end\.tables\.people\.removed\.0: "),
        (people([["Ann", "Oslo", None]], []), r"end\.tables\.people\.removed\.0\.2: a value is"),
        (people([["Ann", "Oslo"]], []), r"removed: a row of people\(name, city, age\) is two texts"),
        (people([], [["Ann", "Oslo", "30"]]), "added: a row of people"),
        (people([], [[5, "Oslo", 30]]), "added: a row of people"),
        (people([], [["a\nb", "Oslo", 30]]), r"added\.0\.0: a value is"),
        (people([["Ann", "Oslo", 31]], []), "no such row at the start: .*'Ann', 'Oslo', 31"),
        (people([list(ROWS[0])] * 3, []), "no such row at the start"),
        (people([["Bob", "Rome", 40]], [["Bob", "Rome", 40]]), "as the start"),
        (people([], [["Cid", "Rome", 1]] * (MOST_ROWS + 1)), "at most 30 rows"),
    ],
)
def test_an_end_that_cannot_be_is_refused(end: dict[str, Any], says: str) -> None:
    with pytest.raises(DesignRefused, match=says):
        ended(end)

"""Designs, hints and losses in the record: kept apart, numbered over all runs, no task twice."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tutelage.agents.designer import Proposal, Proposed, Refused
from tutelage.design_store import KNOWN, NO_PROPOSAL, REFUSED, UNUSABLE, DesignStore, hint_of
from tutelage.designs import DESIGNED, EXPLORED, Design
from tutelage.environments.base import Environment
from tutelage.environments.files import Files
from tutelage.errors import PolicyFailed
from tutelage.record import Record
from tutelage.types import Split, Task

BASE = Task(environment="files", family="move", seed=3, split=Split.TRAIN)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with closing(Record.open(tmp_path)) as opened:
        yield opened


def exploration(number: int) -> Design:
    task = Task(environment="files", family=EXPLORED, seed=number, split=Split.TRAIN)
    return Design(task=task, base=BASE, goal="Look around", persona="Ann")


def proposal(path: str, goal: str = "Write a file {{path}}.", **end: Any) -> Proposal:
    wanted = end or {"texts": {"{{path}}": "hello"}}
    return Proposal(template=goal, values={"path": path}, hint="{{path}} says hello and nothing else", end=wanted)


def keep(store: DesignStore, number: int, *answers: Any) -> list[str]:
    environment: type[Environment] = Files
    store.add(exploration(number))
    store.keep(exploration(number), answers, environment, author="expert/* (scripted)", by_rule=True)
    body = store.answered(exploration(number))
    assert body is not None
    return [reason for reason, _ in body["lost"]]


def test_every_proposal_becomes_a_task_or_a_counted_loss(record: Record) -> None:
    store = DesignStore(record, "one")
    good, same_goal, same_end = proposal("new1.txt"), proposal("new1.txt"), proposal("new1.txt", "Let {{path}} exist.")
    reply = Proposed((good, same_goal, same_end, proposal("gone", gone=["no-such-file"])), (Refused("malformed", "x"),))
    lost = keep(store, 0, reply, PolicyFailed("no answer fits"))
    assert sorted(lost) == sorted([KNOWN, KNOWN, REFUSED, NO_PROPOSAL, UNUSABLE])
    (design,) = store.designs(DESIGNED)
    assert design.goal == "Write a file new1.txt."
    assert design.task.id == "files/designed@0"


def test_hints_are_kept_apart(record: Record) -> None:
    store = DesignStore(record, "one")
    keep(store, 0, Proposed((proposal("new1.txt"),)))
    (design,) = store.designs(DESIGNED)
    hint = hint_of(record, design.task)
    assert hint is not None
    assert hint.reveal() == "new1.txt says hello and nothing else"
    assert "nothing else" not in design.model_dump_json()
    assert "nothing else" not in f"{hint} {hint!r}"
    assert hint_of(record, BASE) is None


def test_numbers_and_duplicates_are_those_of_the_record_and_designs_those_of_the_run(record: Record) -> None:
    assert keep(DesignStore(record, "one"), 0, Proposed((proposal("new1.txt"),))) == []
    second = DesignStore(record, "two")
    assert keep(second, 1, Proposed((proposal("new1.txt"), proposal("new2.txt")))) == [KNOWN]
    assert [design.task.id for design in second.designs(DESIGNED, "files")] == ["files/designed@1"]
    assert second.designs(DESIGNED, "sqlite") == []

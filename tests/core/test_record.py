"""The record: nothing is lost, doubled or overwritten."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert

from tutelage.errors import RecordError
from tutelage.experience import Experience, Skill, Source, Status, Sticker
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.record_tables import META
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory, Verdict


def a_trajectory(seed: int = 0, *, split: Split = Split.TRAIN, ending: Ending = Ending.SOLVED) -> Trajectory:
    return Trajectory(
        task=Task(environment="toy", family="login", seed=seed, split=split),
        goal=f"goal {seed}",
        system="s",
        policy="expert/toy (scripted)",
        memory=False,
        steps=(Step(observation="o", reply="a()", action="a()", diagnosis=Diagnosis(cause=Cause.SOLVED), after="p"),),
        ending=ending,
    )


def an_experience(trajectory: Trajectory, **changes: object) -> Experience:
    source = Source(trajectory=trajectory.id, task=trajectory.task.id, steps=(0,))
    content = Skill(preconditions=(), procedure=("click(button 'OK')",), verification=())
    values = {"environment": "toy", "family": "login", "goal": "g", "content": content, "author": "rules (scripted)"}
    return Experience.model_validate({**values, "sources": (source,), **changes})


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    yield record
    record.close()


def test_every_add_is_idempotent(record: Record) -> None:
    trajectory = a_trajectory()
    assert record.add_trajectory(trajectory, key="k", cycle=0, arm="teacher")
    assert not record.add_trajectory(a_trajectory(9), key="k", cycle=0, arm="teacher")
    assert record.trajectories() == [trajectory]
    assert record.trajectory_by_key("k") == trajectory
    verdict = Verdict(trajectory=trajectory.id, judge="j", successful=True, reason="r")
    assert [record.add_verdict(verdict), record.add_verdict(verdict)] == [True, False]
    student = Student(number=0, stage="base", cycle=0, weights="tiny", settings={"x": [1]})
    assert [record.add_student(student), record.add_student(student)] == [True, False]
    evidence = {"gain": 0.25}
    assert [record.promote(student.id, reason="r", evidence=evidence) for _ in range(2)] == [True, False]
    record.add_metrics("sft", 1, {"loss": 2.0, "bad": float("nan")})
    record.add_metrics("sft", 1, {"loss": 3.0, "grad": 1.0})
    assert [(row["name"], row["value"]) for row in record.metrics("sft") if row["name"] != "bad"] == [
        ("loss", 2.0),
        ("grad", 1.0),
    ]
    assert [record.put("cycle", "1", {"n": n}) for n in (1, 1, 2, 2)] == [True, False, True, False]
    assert record.get("cycle", "1") == {"n": 2} == record.items("cycle")["1"]


def test_trajectories_are_filtered_in_order_of_insertion(record: Record) -> None:
    for seed in range(6):
        ending = Ending.SOLVED if seed % 2 else Ending.FAILED
        split = Split.TEST if seed == 5 else Split.TRAIN
        record.add_trajectory(
            a_trajectory(seed, split=split, ending=ending), key=str(9 - seed), cycle=seed // 3, arm="a"
        )
    seeds = [trajectory.task.seed for trajectory in record.trajectories(success=True, split=Split.TRAIN)]
    assert seeds == [1, 3]
    assert [trajectory.task.seed for trajectory in record.trajectories(cycle=1, limit=2)] == [3, 4]
    assert record.trajectories(family="other") == []


def test_experiences_are_versioned_and_never_overwritten(record: Record) -> None:
    first = an_experience(a_trajectory())
    other = an_experience(a_trajectory(1))
    assert record.save_experience(first)
    assert record.save_experience(other)
    assert not record.save_experience(first)
    with pytest.raises(RecordError, match="exists and differs"):
        record.save_experience(first.model_copy(update={"goal": "changed"}))
    second = first.model_copy(update={"version": 2, "status": Status.ACTIVE})
    with pytest.raises(RecordError, match="the next is 2, not 3"):
        record.save_experience(first.model_copy(update={"version": 3}))
    assert record.save_experience(second)
    assert record.experiences() == [second, other]
    assert record.experiences(status=Status.CANDIDATE) == [other]
    assert record.experiences(source=other.sources[0].trajectory) == [other]
    assert record.history(first.id) == [first, second]
    assert record.experience(first.id, 1) == first
    assert record.experience(first.id) == second


def test_missing_things_and_changed_students_are_clear_errors(record: Record) -> None:
    with pytest.raises(RecordError, match="no trajectory 'trj_x'"):
        record.trajectory("trj_x")
    with pytest.raises(RecordError, match="no trajectory 'trj_x' to judge"):
        record.add_verdict(Verdict(trajectory="trj_x", judge="j", successful=True, reason=""))
    with pytest.raises(RecordError, match="no student 'student@7'"):
        record.promote("student@7", reason="", evidence={})
    record.add_student(Student(number=0, stage="base", cycle=0, weights="tiny"))
    with pytest.raises(RecordError, match=r"student@0 .* differs"):
        record.add_student(Student(number=0, stage="base", cycle=0, weights="tiny"))


def test_rollback_is_a_promotion_and_history_stays(record: Record) -> None:
    students = [Student(number=n, stage="sft", cycle=1, weights=f"students/{n}") for n in range(2)]
    for student in students:
        record.add_student(student)
        record.promote(student.id, reason="gate", evidence={"number": student.number})
    record.promote(students[0].id, reason="rollback", evidence={})
    assert record.promoted() == students[0]
    assert [entry["reason"] for entry in record.promotions()] == ["gate", "gate", "rollback"]


def test_a_transaction_is_all_or_nothing_and_inner_ones_join_it(record: Record) -> None:
    trajectory = a_trajectory()

    def fail_late() -> None:
        with record.transaction():
            record.add_trajectory(trajectory, key="k", cycle=0, arm="a")
            with record.transaction():
                record.save_experience(an_experience(trajectory))
            assert record.has_key("k"), "a transaction sees its own writes"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert not record.has_key("k")
    assert record.experiences() == []


def test_threads_share_a_record(record: Record) -> None:
    def add(seed: int) -> bool:
        return record.add_trajectory(a_trajectory(seed), key=str(seed % 20), cycle=0, arm="a")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(60))) == 20
    assert len(record.trajectories()) == 20


def test_other_files_and_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no record"):
        Record.open(tmp_path / "none", create=False)
    (tmp_path / "record.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(RecordError, match="cannot open the record"):
        Record.open(tmp_path)
    (tmp_path / "b").mkdir()
    with sqlite3.connect(tmp_path / "b" / "record.db") as other:
        other.execute("CREATE TABLE things (x)")
    with pytest.raises(RecordError, match="not a record of Tutelage"):
        Record.open(tmp_path / "b")
    Record.open(tmp_path / "c").close()
    with sqlite3.connect(tmp_path / "c" / "record.db") as newer:
        newer.execute("UPDATE meta SET value = '99'")
    with pytest.raises(RecordError, match="schema version 99"):
        Record.open(tmp_path / "c")


KILLED = """
import sys
from pathlib import Path
from tutelage.record import Record
from tutelage.types import Ending, Split, Task, Trajectory

record = Record.open(Path(sys.argv[1]))
for seed in range(100_000):
    task = Task(environment="toy", family="f", seed=seed, split=Split.TRAIN)
    trajectory = Trajectory(task=task, goal="g" * 2000, system="", policy="p", memory=False, ending=Ending.SOLVED)
    with record.transaction():
        record.add_trajectory(trajectory, key=f"a{seed}", cycle=0, arm="a")
        record.put("done", str(seed), {"id": trajectory.id})
    print(seed, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 30])
def test_kill_9_loses_nothing_committed_and_leaves_nothing_half_done(tmp_path: Path, after: int) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(after):
            told = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in child.stdout if line.endswith("\n"))])
    record = Record.open(tmp_path)
    trajectories = record.trajectories()
    assert [trajectory.task.seed for trajectory in trajectories] == list(range(len(trajectories)))
    assert len(trajectories) > told
    assert [body["id"] for body in record.items("done").values()] == [trajectory.id for trajectory in trajectories]
    record.close()


def _run(folder: Path, *, interrupted: bool) -> Record:
    """A small run; interrupted, some steps happen in another order, twice, and after opening the record anew."""
    record = Record.open(folder)
    order = [2, 0, 1] if interrupted else [0, 1, 2]
    for seed in order:
        record.add_trajectory(a_trajectory(seed), key=f"collect/{seed}", cycle=1, arm="teacher")
    if interrupted:
        record.close()
        record = Record.open(folder)
        record.add_trajectory(a_trajectory(0), key="collect/0", cycle=1, arm="teacher")
    trajectories = [record.trajectory_by_key(f"collect/{seed}") for seed in range(3)]
    for trajectory in reversed(trajectories) if interrupted else trajectories:
        assert trajectory is not None
        record.add_verdict(Verdict(trajectory=trajectory.id, judge="j", successful=True, reason=f"see {trajectory.id}"))
    assert trajectories[0]
    record.save_experience(an_experience(trajectories[0]))
    ids = tuple(trajectory.id for trajectory in trajectories if trajectory)
    record.add_student(Student(number=0, stage="sft", cycle=1, weights="w", digest="d", trajectories=ids))
    record.add_metrics("sft", 1, {"loss": 1.0, "train_runtime": 2.0 if interrupted else 3.0})
    record.put("evaluation", "1", {"trajectories": list(ids), "seconds": 5 if interrupted else 6})
    return record


def test_fingerprints_are_equal_for_equal_runs_only(tmp_path: Path) -> None:
    one, two = _run(tmp_path / "a", interrupted=False), _run(tmp_path / "b", interrupted=True)
    assert one.fingerprint() == two.fingerprint()
    two.save_experience(
        an_experience(a_trajectory(), content=Sticker(conditions=("c",), question="q"), goal="one more")
    )
    assert one.fingerprint() != two.fingerprint()
    three = _run(tmp_path / "c", interrupted=True)
    three.put("usage", "x", {"calls": 1})
    assert one.fingerprint() != three.fingerprint()
    assert one.fingerprint(without=["usage"]) == three.fingerprint(without=["usage"])


def test_the_stamp_tells_of_every_commit_in_any_process_and_of_nothing_else(tmp_path: Path) -> None:
    record, other = Record.open(tmp_path), Record.open(tmp_path)
    before = record.stamp()
    assert record.stamp() == before
    with other.transaction() as connection:
        connection.execute(insert(META).values(key="looked at", value="1"))
        assert record.stamp() == before, "nothing is committed yet"
    after = record.stamp()
    assert after != before
    with record.transaction() as connection:
        connection.execute(insert(META).values(key="its own", value="1"))
    assert record.stamp() != after
    record.close()
    other.close()


def test_a_record_by_its_address_lies_in_the_same_folder_and_another_database_in_none(tmp_path: Path) -> None:
    for workspace, folder in (
        (tmp_path, tmp_path),
        (f"sqlite:///{tmp_path}/record.db", tmp_path),
        (f"sqlite:///{tmp_path}/other.db", None),
    ):
        record = Record.open(workspace)
        assert record.folder == folder
        assert (record.stamp() is None) == (folder is None)
        record.close()

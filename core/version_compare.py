"""Two student versions beside each other: paired success on held-out tasks that both were measured on, and what they
were made differently from."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tutelage.agents.seeds import stable_seed
from tutelage.database import where
from tutelage.evaluate import compare_arms, evaluate_arm, held_out_tasks, measured, seen_pairs
from tutelage.lineage import evaluations
from tutelage.measures import Arm, Comparison, Student
from tutelage.record_tables import TRAJECTORIES, played_by
from tutelage.types import Frozen, Split, Trajectory

if TYPE_CHECKING:
    from tutelage.progress import Reporter
    from tutelage.workspace import Workspace

HELD_OUT = (Split.VALIDATION, Split.TEST)
FEW = 20
"""Pairs below which an interval says little."""
ABSENT = "–"


class Paired(Frozen):
    """Both students on the tasks that both have a recorded episode of."""

    split: Split
    memory: bool
    old: Arm
    new: Arm
    comparison: Comparison
    """New minus old."""


class Shared(Frozen):
    """How two sets of ids overlap."""

    both: int
    only_old: int
    only_new: int


class Versions(Frozen):
    """How a student differs from another."""

    old: str
    new: str
    """Labels."""
    same_weights: bool
    paired: tuple[Paired, ...]
    settings: dict[str, tuple[Any, Any]]
    """What differs in how they were made: old value, new value."""
    trajectories: Shared
    same_data: bool
    """Whether the same happened in them, whatever their ids."""
    experiences: Shared


def compare(workspace: "Workspace", old: Student, new: Student) -> Versions:
    """What the record says about two students; plays nothing (`play` does)."""
    seen = seen_pairs(workspace.record)
    pairs = [_paired(workspace, old, new, split, memory, seen) for split in HELD_OUT for memory in (False, True)]
    return Versions(
        old=old.label,
        new=new.label,
        same_weights=old.content == new.content if old.content and new.content else old.digest == new.digest != "",
        paired=tuple(pair for pair in pairs if pair is not None),
        settings=differences(old, new),
        trajectories=_shared(old.trajectories, new.trajectories),
        same_data=old.data == new.data != "",
        experiences=_shared(old.experiences, new.experiences),
    )


def play(workspace: "Workspace", students: Iterable[Student], split: Split, count: int, report: "Reporter") -> None:
    """Have each student play the same held-out tasks, `count` per family, memory off; what is recorded stays as it is.

    Raises:
        RecordError: the runs of the workspace are another tenant's, or a student's weights are not what they were.
        MissingPart: the weights of one are not here.
    """
    workspace.record.claim()
    suite, seed = workspace.suite, stable_seed(workspace.config.seed, "students compare", split.value)
    tasks = held_out_tasks(suite, split, count * len(suite.families), seed)
    for student in students:
        evaluate_arm(
            workspace.record,
            tasks,
            workspace.student_policy(student),
            suite.make_for_evaluation,
            act=workspace.config.act,
            seed=seed,
            key_prefix=_key(student, split),
            cycle=0,
            student_label=student.label,
            split=split,
            progress=report,
        )


def differences(old: Student, new: Student) -> dict[str, tuple[Any, Any]]:
    """What differs in how two students were made: each of their settings, seed, base weights and code."""
    one, other = _made(old), _made(new)
    names = [*one, *(name for name in other if name not in one)]
    pairs = {name: (one.get(name, ABSENT), other.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _made(student: Student) -> dict[str, Any]:
    own = {
        "stage": student.stage,
        "base": student.base or ABSENT,
        "base content": student.base_content[:12] or ABSENT,
        "seed": ABSENT if student.seed is None else student.seed,
        "version": student.version or ABSENT,
        "commit": student.commit[:12] or ABSENT,
        "configuration": student.config[:12] or ABSENT,
    }
    return {**own, **student.trained_as, **{f"{student.stage}.{key}": value for key, value in student.settings.items()}}


def _paired(
    workspace: "Workspace", old: Student, new: Student, split: Split, memory: bool, seen: frozenset[str]
) -> Paired | None:
    """Over the first recorded episode that each has of a task; None if no task has one of both."""
    first, second = (_episodes(workspace, student, split, memory) for student in (old, new))
    tasks = [task for task in first if task in second]
    config = workspace.config
    arms = [
        measured(
            [episodes[task] for task in tasks],
            student_label=student.label,
            memory=memory,
            split=split,
            seen=seen,
            confidence=config.evaluate.confidence,
        )
        for student, episodes in ((old, first), (new, second))
    ]
    found = compare_arms(workspace.record, *arms, confidence=config.evaluate.confidence, seed=config.seed)
    return Paired(split=split, memory=memory, old=arms[0], new=arms[1], comparison=found) if tasks else None


def _episodes(workspace: "Workspace", student: Student, split: Split, memory: bool) -> dict[str, Trajectory]:
    """The first recorded episode of each task, by task: of cycles' evaluations, of those by hand, and of `play`."""
    record = workspace.record
    of_docs = [doc for doc in evaluations(record, student) if doc.split is split and doc.memory == memory]
    names = dict.fromkeys(name for doc in of_docs for name in doc.trajectories)
    found = [record.trajectory(name) for name in names if record.has_trajectory(name)]
    wanted = where(TRAJECTORIES, split=split, memory=memory, tenant=record.tenant)
    query = select(TRAJECTORIES.c.body).where(*wanted, played_by(student.label)).order_by(TRAJECTORIES.c.n)
    with record.reading() as connection:
        rows = connection.execute(query).all()
    found += [Trajectory.model_validate_json(row.body) for row in rows]
    if not memory:
        found += record.trajectories(arm=_key(student, split))
    first: dict[str, Trajectory] = {}
    for item in sorted(found, key=lambda item: item.created):
        first.setdefault(item.task.id, item)
    return first


def _key(student: Student, split: Split) -> str:
    return f"0/eval/compare/{student.label}/{split.value}"


def _shared(old: Iterable[str], new: Iterable[str]) -> Shared:
    one, other = set(old), set(new)
    return Shared(both=len(one & other), only_old=len(one - other), only_new=len(other - one))

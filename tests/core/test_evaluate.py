"""Evaluation on a tiny real environment with the real acting graph and record."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tutelage.calls import Call, CallError
from tutelage.config import ActConfig, GateConfig
from tutelage.environments.base import Environment, Outcome
from tutelage.environments.suite import Part, Suite
from tutelage.errors import BudgetSpent, EnvironmentBroken
from tutelage.evaluate import compare_arms, evaluate_arm, gate, held_out_tasks, seen_pairs, unfinished
from tutelage.measures import Arm
from tutelage.record import Record
from tutelage.stats import compare
from tutelage.types import Context, Ending, Reply, Split, Task, Trajectory


class Parity(Environment):
    """Say whether the number shown is even; family ``odd`` breaks on seeds divisible by five."""

    name = "parity"
    system = "Write even() or odd()."

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return ("odd", "plain", "wide")

    def start(self, task: Task) -> tuple[str, str]:
        if task.family == "odd" and task.seed % 5 == 0:
            raise EnvironmentBroken("the page is gone")
        self.number = task.seed % (10 if task.family == "plain" else 100_000)
        return "Is it even?", f"number {self.number}"

    def act(self, call: Call) -> Outcome:
        if call.name not in ("even", "odd"):
            raise CallError("write even() or odd()")
        return Outcome("over", 1.0 if (call.name == "even") == (self.number % 2 == 0) else -1.0, terminated=True)


class Answers:
    """Answers rightly (or always ``even()``); fails for good after `limit` replies."""

    def __init__(self, label: str, *, right: bool = True, limit: int = 10**6) -> None:
        self.label, self.right, self.left = label, right, limit

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        if (left := self.left - len(contexts)) < 0:
            raise BudgetSpent("no more calls")
        self.left = left
        return [Reply("even()" if not self.right or self._even(item) else "odd()") for item in contexts]

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is cached."""

    @staticmethod
    def _even(context: Context) -> bool:
        return int(context.messages[-1].content.split("number ")[1]) % 2 == 0


def suite(*families: str) -> Suite:
    return Suite([Part(Parity, families or Parity.families())])


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.open(tmp_path)


def measure(
    record: Record, tasks: list[Task], policy: Answers, *, prefix: str = "", seen: frozenset[str] = frozenset()
) -> Arm:
    return evaluate_arm(
        record,
        tasks,
        policy,
        lambda _: Parity(),
        act=ActConfig(width=3),
        key_prefix=prefix or f"eval/{policy.label}/off/validation",
        cycle=1,
        student_label=policy.label,
        split=Split.VALIDATION,
        seen=seen,
    )


def test_held_out_tasks_are_balanced_nested_and_disjoint() -> None:
    tasks = held_out_tasks(suite(), Split.VALIDATION, 20, seed=4)
    assert len({task.id for task in tasks}) == 20
    counts = [sum(task.family == family for task in tasks) for family in Parity.families()]
    assert max(counts) - min(counts) <= 1
    assert tasks == held_out_tasks(suite(), Split.VALIDATION, 20, seed=4)
    assert tasks[:8] == held_out_tasks(suite(), Split.VALIDATION, 8, seed=4)
    assert {task.seed for task in tasks}.isdisjoint(
        task.seed for task in held_out_tasks(suite(), Split.TEST, 20, seed=4)
    )
    assert {task.family for task in held_out_tasks(suite("plain"), Split.TEST, 5)} == {"plain"}


def test_a_stopped_evaluation_goes_on_without_doubling(record: Record) -> None:
    tasks = held_out_tasks(suite("plain", "wide"), Split.VALIDATION, 20)
    with pytest.raises(BudgetSpent):
        measure(record, tasks, Answers("student@1", limit=7))
    kept = [item.id for item in record.trajectories()]
    assert 0 < len(kept) <= 7
    assert len(unfinished(record, tasks, "eval/student@1/off/validation")) == 20 - len(kept)

    arm = measure(record, tasks, Answers("student@1", limit=20 - len(kept)))
    assert arm.rate == arm.rate.model_copy(update={"successes": 20, "episodes": 20})
    assert set(kept) < set(arm.trajectories)
    assert [record.trajectory(item).task for item in arm.trajectories] == tasks
    assert measure(record, tasks, Answers("student@1", limit=0)) == arm
    assert len(record.trajectories(arm="eval/student@1/off/validation")) == 20


def test_pairs_seen_in_training_are_excluded_and_counted(record: Record) -> None:
    train = Parity.tasks(Split.TRAIN, ["plain"], count=4)
    measure(record, train, Answers("teacher"), prefix="collect")
    tasks = held_out_tasks(suite("plain", "wide"), Split.VALIDATION, 20)
    arm = measure(record, tasks, Answers("student@1"), seen=seen_pairs(record))
    assert len(seen_pairs(record)) == 4
    assert (arm.excluded, arm.rate.episodes, len(arm.trajectories)) == (4, 16, 16)
    assert (arm.by_family["parity/plain"].episodes, arm.by_family["parity/wide"].episodes) == (6, 10)


def test_arms_pair_by_task_and_leave_broken_episodes_out(record: Record) -> None:
    tasks = held_out_tasks(suite(), Split.VALIDATION, 30)
    old = measure(record, tasks, Answers("student@0", right=False))
    new = measure(record, tasks[:24], Answers("student@1"))
    broken = [task for task in tasks[:24] if task.family == "odd" and task.seed % 5 == 0]
    assert (old.broken, new.broken) == (2, len(broken))
    assert old.rate.episodes == 28

    found = compare_arms(record, old, new)
    ends = [record.trajectory(item) for item in old.trajectories[:24]]
    sound = [item for item in ends if item.ending is not Ending.ENVIRONMENT_ERROR]
    assert (found.pairs, found.broken) == (len(sound), 24 - len(sound))
    assert (found.won, found.lost) == (sum(_odd(item) for item in sound), 0)
    assert found.gain == pytest.approx(found.won / found.pairs)


def _odd(trajectory: Trajectory) -> bool:
    return int(trajectory.first_observation.split()[1]) % 2 == 1


def test_gate_wants_the_lower_bound_above_its_minimum() -> None:
    clear, none = compare([False] * 20, [True] * 20), compare([True] * 20, [True] * 20)
    assert gate(clear, GateConfig(min_gain=0.3))[0]
    passed, reason = gate(none, GateConfig())
    assert not passed
    assert "+0.0 points" in reason
    assert "20 pairs" in reason
    assert not gate(clear, GateConfig(min_gain=clear.low))[0]
    assert gate(compare([], []), GateConfig(min_gain=-1)) == (
        False,
        "not promoted: there are no validation pairs to compare",
    )

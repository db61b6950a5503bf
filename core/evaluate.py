"""Measuring a policy on held-out tasks, comparing two measurements, and deciding on a promotion."""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tutelage import stats
from tutelage.config import ActConfig, GateConfig
from tutelage.environments.base import SEEDS_PER_SPLIT, Environment
from tutelage.environments.suite import Suite
from tutelage.experience import Recaller
from tutelage.measures import Arm, Comparison, Rate
from tutelage.types import Ending, Policy, Split, Task, Trajectory

if TYPE_CHECKING:
    from tutelage.record import Record


MEASURING = ("evidence-off", "evidence-on", "evidence-alone")
"""Arms of train-split episodes that only measure what memory does (`tutelage.evidence`); nothing learns from them."""


def held_out_tasks(suite: Suite, split: Split, count: int, seed: int = 0) -> list[Task]:
    """`count` different tasks of `split`, spread evenly over environments and families; fewer where there are no
    more. The same arguments give the same tasks.

    They take turns, so fewer tasks are always the beginning of more tasks: an arm of 32 is paired with the
    first half of an arm of 64.
    """
    turn = len(suite.families)
    start = random.Random(seed).randrange(SEEDS_PER_SPLIT // 2) * turn
    return list(dict.fromkeys(suite.tasks(split, start, count)))


def pair_key(goal: str, first_observation: str) -> str:
    """What makes two tasks the same to an agent: a digest of goal and first observation."""
    return hashlib.sha256(f"{goal}\0{first_observation}".encode()).hexdigest()


def seen_pairs(record: "Record") -> frozenset[str]:
    """The pairs of all train-split episodes so far that something may have learned from, those collected as well as
    those of rollouts."""
    measuring = {item.id for arm in MEASURING for item in record.trajectories(arm=arm)}
    return frozenset(
        pair_key(item.goal, item.first_observation)
        for item in record.trajectories(split=Split.TRAIN)
        if item.steps and item.id not in measuring
    )


def exclude_seen(trajectories: Iterable[Trajectory], seen: frozenset[str]) -> tuple[list[Trajectory], int]:
    """The trajectories whose (goal, first observation) did not occur in training, and how many did."""
    trajectories = list(trajectories)
    fresh = [item for item in trajectories if pair_key(item.goal, item.first_observation) not in seen]
    return fresh, len(trajectories) - len(fresh)


def unfinished(record: "Record", tasks: Sequence[Task], key_prefix: str) -> list[Task]:
    """The tasks that this arm has no episode of yet."""
    return [task for task in tasks if not record.has_key(f"{key_prefix}/{task.id}")]


def evaluate_arm(
    record: "Record",
    tasks: Sequence[Task],
    policy: Policy,
    make_environment: Callable[[str], Environment],
    *,
    act: ActConfig,
    memory: Recaller | None = None,
    seed: int = 0,
    key_prefix: str,
    cycle: int,
    student_label: str,
    split: Split,
    seen: frozenset[str] = frozenset(),
    confidence: float = 0.95,
    progress: Callable[[str, int, int], None] | None = None,
) -> Arm:
    """Run the tasks that have no episode in the record yet, then measure all of them.

    Every episode is stored as it ends under ``{key_prefix}/{task.id}``, so an evaluation that was killed
    goes on where it stopped and counts nothing twice.

    Args:
        key_prefix: names the arm, e.g. ``eval/student@1/off/validation``.
        seen: pairs that occurred in training (`seen_pairs`); such episodes are excluded and counted.
        progress: called with what is going on, episodes done, and episodes in all.
    """
    from tutelage.agents.graph import run_episodes

    left = unfinished(record, tasks, key_prefix)
    done = len(tasks) - len(left)

    def store(index: int, trajectory: Trajectory) -> None:
        nonlocal done
        record.add_trajectory(trajectory, key=f"{key_prefix}/{left[index].id}", cycle=cycle, arm=key_prefix)
        done += 1
        if progress is not None:
            progress(key_prefix, done, len(tasks))

    if left:
        run_episodes(left, policy, make_environment, act=act, memory=memory, seed=seed, on_finished=store)
    return read_arm(
        record,
        tasks,
        key_prefix=key_prefix,
        student_label=student_label,
        memory=memory is not None,
        split=split,
        seen=seen,
        confidence=confidence,
    )


def read_arm(
    record: "Record",
    tasks: Sequence[Task],
    *,
    key_prefix: str,
    student_label: str,
    memory: bool,
    split: Split,
    seen: frozenset[str] = frozenset(),
    confidence: float = 0.95,
) -> Arm:
    """The arm as the record has it: finished episodes only, none whose pair was seen in training.

    Reading it again after more training, with what has been seen by then, makes arms of different times
    exclude the same tasks.
    """
    found = [record.trajectory_by_key(f"{key_prefix}/{task.id}") for task in tasks]
    return measured(
        [item for item in found if item is not None],
        student_label=student_label,
        memory=memory,
        split=split,
        seen=seen,
        confidence=confidence,
    )


def measured(
    trajectories: Sequence[Trajectory],
    *,
    student_label: str,
    memory: bool,
    split: Split | None,
    seen: frozenset[str] = frozenset(),
    confidence: float = 0.95,
) -> Arm:
    """An arm of these episodes: rates overall, by environment and by family."""
    fresh, excluded = exclude_seen(trajectories, seen)
    sound = [item for item in fresh if not _broken(item)]

    def rates(name: Callable[[Task], str]) -> dict[str, Rate]:
        names = sorted({name(item.task) for item in trajectories})
        return {each: _rate([item for item in sound if name(item.task) == each], confidence) for each in names}

    return Arm(
        student=student_label,
        memory=memory,
        split=split,
        rate=_rate(sound, confidence),
        by_environment=rates(lambda task: task.environment),
        by_family=rates(lambda task: task.kind),
        trajectories=tuple(item.id for item in fresh),
        excluded=excluded,
        broken=len(fresh) - len(sound),
    )


def compare_arms(
    record: "Record", old: Arm, new: Arm, *, confidence: float = 0.95, seed: int = 0, environment: str | None = None
) -> Comparison:
    """Paired comparison over the tasks (of one environment) that both arms count; pairs with a broken episode are
    left out."""
    before = {
        item.task.id: item
        for item in map(record.trajectory, old.trajectories)
        if environment in (None, item.task.environment)
    }
    after = {item.task.id: item for item in map(record.trajectory, new.trajectories)}
    both = [(item, after[task]) for task, item in before.items() if task in after]
    sound = [(first, second) for first, second in both if not (_broken(first) or _broken(second))]
    found = stats.compare(
        [first.success for first, _ in sound],
        [second.success for _, second in sound],
        confidence=confidence,
        seed=seed,
    )
    return found.model_copy(update={"broken": len(both) - len(sound)})


def gate(comparison: Comparison, config: GateConfig) -> tuple[bool, str]:
    """Whether the new student may be promoted, and why; only validation comparisons belong here."""
    if not comparison.pairs:
        return False, "not promoted: there are no validation pairs to compare"
    passed = comparison.low > config.min_gain
    return passed, (
        f"{'promoted' if passed else 'not promoted'}: paired gain {100 * comparison.gain:+.1f} points "
        f"({100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}, {comparison.pairs} pairs); the lower bound "
        f"{'is above' if passed else 'must be above'} {100 * config.min_gain:+.1f}"
    )


def _broken(trajectory: Trajectory) -> bool:
    return trajectory.ending is Ending.ENVIRONMENT_ERROR


def _rate(trajectories: Sequence[Trajectory], confidence: float) -> Rate:
    return stats.rate(sum(item.success for item in trajectories), len(trajectories), confidence)

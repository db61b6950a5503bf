"""Which drawn tasks to take next: families at the frontier of what the student can do, seeds not used yet."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

from tutelage.environments.suite import Part, Suite
from tutelage.record import Record
from tutelage.types import Split, Task, Trajectory


def pass_rate(successes: int, episodes: int) -> float:
    """Smoothed by Laplace's rule, so that it is never 0 or 1; ½ where nothing was tried."""
    return (successes + 1) / (episodes + 2)


def pace(rate: float, alpha: float, beta: float) -> float:
    """PACED's weight p^α(1 − p)^β (2603.11178): highest at the frontier, where p = α/(α + β)."""
    return float(rate**alpha * (1 - rate) ** beta)


def need(successes: int, episodes: int) -> float:
    """How much a family is worth practising at this pass rate p: √p·(1 − p), with p smoothed by Laplace's rule.

    PACED has α = β = 1, which gives up families that always fail; with α = ½ they rank above those that are nearly
    mastered. A family never tried counts as p = ½.
    """
    return pace(pass_rate(successes, episodes), 0.5, 1.0)


def needs(kinds: Sequence[str], trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """The `need` of every ``environment/family`` by the student's episodes in it."""
    tried: Counter[str] = Counter()
    solved: Counter[str] = Counter()
    for item in trajectories:
        tried[item.task.kind] += 1
        solved[item.task.kind] += item.success
    return {kind: need(solved[kind], tried[kind]) for kind in kinds}


def choose(
    suite: Suite, count: int, trajectories: Iterable[Trajectory], used: Callable[[Task], bool], seed: int
) -> list[Task]:
    """`count` tasks of the train split, families drawn by need; a family without an unused task is passed over.

    Args:
        trajectories: what the student did, on whatever split.
        used: whether a task was taken before.
    """
    weights = needs(suite.families, trajectories)
    parts = {f"{part.name}/{family}": part.environment for part in suite.parts for family in part.families}
    random, place = Random(seed), Counter[str]()
    chosen: list[Task] = []
    while weights and len(chosen) < count:
        kind = random.choices(list(weights), list(weights.values()))[0]
        environment, family = parts[kind], kind.partition("/")[2]
        seeds = environment.seeds(Split.TRAIN, family)
        task = None
        while place[kind] < len(seeds) and task is None:
            # From the far end, so that the cycles' own blocks, which begin at the other, are not used up.
            number = seeds[len(seeds) - 1 - place[kind]]
            candidate = Task(environment=environment.name, family=family, seed=number, split=Split.TRAIN)
            place[kind] += 1
            task = None if used(candidate) else candidate
        if task is None:
            del weights[kind]
        else:
            chosen.append(task)
    return chosen


def drawn_tasks(record: Record, run: str, parts: Sequence[Part], share: Mapping[str, int], seed: int) -> list[Task]:
    """The tasks of a run, chosen once and then kept; `share` says how many of each environment.

    What the student did counts on train tasks alone, with memory off: held-out results choose nothing.
    """
    body = record.get("drawn", run)
    if body is None:
        others = [task for old in record.items("drawn").values() for task in old["tasks"]]
        episodes = record.trajectories(split=Split.TRAIN)
        used = {item.task.id for item in episodes} | {Task.model_validate(task).id for task in others}
        by_student = [item for item in episodes if item.policy.startswith("student@") and not item.memory]
        tasks = [
            task
            for part in parts
            for task in choose(Suite([part]), share[part.name], by_student, lambda task: task.id in used, seed)
        ]
        body = {"tasks": [task.model_dump(mode="json") for task in tasks]}
        record.put("drawn", run, body)
    return [Task.model_validate(task) for task in body["tasks"]]

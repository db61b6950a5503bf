"""Two looks at a student while it trains: how it does on tasks that stay the same, and how far it has drifted."""

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from statistics import fmean
from typing import Any

from tutelage.agents.graph import run_episodes
from tutelage.training import weights
from tutelage.training.base import StageContext
from tutelage.training.rollout import Episode, broke
from tutelage.training.stripping import rescored
from tutelage.types import Policy, Split, Task

FEWEST = 8
"""Tasks that a probe has at least, unless fewer are asked for: of these, a single one says nothing."""


def probe_tasks(context: StageContext, count: int) -> list[Task]:
    """`count` tasks of the train split, from the families of the stage's tasks in turn.

    They are the last that a family has, where stages come last, and none of those that this stage trains on. Where
    these leave fewer than `count`, there are fewer, and none if that is less than `FEWEST`.
    """
    assert context.make_environment is not None, "a stage with rollouts needs an environment"
    trained = {task.id for task in context.tasks}
    by_family: list[list[Task]] = []
    for kind in dict.fromkeys((task.environment, task.family) for task in context.tasks):
        name, family = kind
        environment = context.make_environment(name)
        try:
            seeds = environment.seeds(Split.TRAIN, family)[-count - len(trained) :]
        finally:
            environment.close()
        tasks = [Task(environment=name, family=family, seed=seed, split=Split.TRAIN) for seed in reversed(seeds)]
        by_family.append([task for task in tasks if task.id not in trained])
    turns = [tasks[turn] for turn in range(count) for tasks in by_family if turn < len(tasks)]
    return turns[:count] if len(turns) >= min(count, FEWEST) else []


def probe(tasks: Sequence[Task], context: StageContext, policy: Policy) -> float | None:
    """Success on `tasks`, each played once and without memory, broken episodes left out; None if all broke.

    Args:
        policy: the student; greedy, so that the same weights always come to the same.
    """
    assert context.make_environment is not None
    played = run_episodes(tasks, policy, context.make_environment, act=context.config.act, seed=context.seed)
    whole = [float(item.success) for item in played if not broke(item)]
    return fmean(whole) if whole else None


def drift(
    episodes: Sequence[Episode], group_size: int, context: StageContext, model: Any, temperature: float
) -> float | None:
    """Mean of log p/p₀ per sampled token, in nats: an estimate of the KL divergence to the starting weights p₀.

    p is what the sampling weights gave. One episode of each group is looked at, which is estimate enough for an alarm
    and costs about a quarter of a forward pass over the batch. p₀ are the weights below the adapter, or are read from
    disk for the moment, so that nothing is kept in memory while the student trains.

    Args:
        episodes: of one batch, groups adjacent.
        model: the student, unwrapped.

    Returns:
        None if every episode broke.
    """
    groups = (episodes[first : first + group_size] for first in range(0, len(episodes), group_size))
    chosen = [episode for group in groups for episode in list(islice((e for e in group if not e.broken), 1))]
    if not chosen:
        return None
    dtype = weights.compute_dtype(context.config.student.dtype)
    adapted = hasattr(model, "disable_adapter")
    start = model if adapted else weights.load(context.start, dtype=dtype)[0].to(model.device)
    change: list[float] = []
    with model.disable_adapter() if adapted else nullcontext():
        for episode in chosen:
            for turn, before in zip(
                episode.turns, rescored(episode.turns, start, temperature=temperature, dtype=dtype), strict=True
            ):
                change += [now - then for now, then in zip(turn.logprobs, before.logprobs, strict=True)]
    return fmean(change)

"""Which tasks a stage's rollouts are spent on: families at the frontier of what the student can do.

After PACED (2603.11178): a family is drawn with weight p^α(1 − p)^β, where p is the student's pass rate in it, so that
what always fails and what is mastered get little. Departures: PACED weighs the loss of single problems by K rollouts
of each made beforehand; here whole families are drawn, and p goes on being counted while the student learns (all of
its episodes without memory, smoothed by Laplace's rule), because rollouts are what costs most.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from tutelage.agents.seeds import stable_seed
from tutelage.curriculum import pace, pass_rate
from tutelage.stage_config import RolloutStageConfig
from tutelage.types import Task, Trajectory


class Curriculum:
    """Draws the tasks of each batch, and counts what became of them.

    The draw depends on the seed, the batch and the counts alone, so a stage that was killed goes on with the tasks that
    it would have had.

    Args:
        tasks: to draw from; each family's are taken in order, from the first again once they run out.
        played: what the student did before the stage.
    """

    def __init__(
        self, stage: RolloutStageConfig, tasks: Sequence[Task], played: Iterable[Trajectory] = (), *, seed: int = 0
    ) -> None:
        self._stage, self._seed = stage, seed
        self._tasks: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            self._tasks[task.kind].append(task)
        self._tried: Counter[str] = Counter()
        self._solved: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self.saw(played)

    def draw(self, batch: int, groups: int) -> list[Task]:
        """A task for each group of batch number `batch`."""
        random, tasks = Random(stable_seed(self._seed, "paced", batch)), []
        for kind in random.choices(list(self._tasks), list(self.weights().values()), k=groups):
            tasks.append(self._tasks[kind][self._taken[kind] % len(self._tasks[kind])])
            self._taken[kind] += 1
        return tasks

    def weights(self) -> dict[str, float]:
        """By family, as ``environment/family``."""
        alpha, beta = self._stage.paced_alpha, self._stage.paced_beta
        rates = {kind: pass_rate(self._solved[kind], self._tried[kind]) for kind in self._tasks}
        # A large exponent must not make all of them zero, which nothing could be drawn by.
        return {kind: max(pace(rate, alpha, beta), sys.float_info.min) for kind, rate in rates.items()}

    def saw(self, trajectories: Iterable[Trajectory]) -> None:
        """Count finished episodes; those that were shown experiences say nothing about the weights."""
        for item in trajectories:
            if not item.memory:
                self._tried[item.task.kind] += 1
                self._solved[item.task.kind] += item.success

    def state(self) -> dict[str, Any]:
        """What `load` takes; JSON."""
        return {"tried": dict(self._tried), "solved": dict(self._solved), "taken": dict(self._taken)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`, whatever was counted so far."""
        self._tried, self._solved, self._taken = (Counter(state[name]) for name in ("tried", "solved", "taken"))

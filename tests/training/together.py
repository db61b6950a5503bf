"""What processes that train together are given in tests: an environment, and stages that are no stages of ours."""

import os
import signal
from dataclasses import replace
from typing import ClassVar

from tutelage.environments.toy import Toy
from tutelage.stage_config import DistillConfig, GrpoConfig, SdpoConfig, SftConfig, StageConfig
from tutelage.training import ranks
from tutelage.training.base import StageContext, StageResult, run_stage

SHARED = {"steps": 2, "batch_size": 4, "learning_rate": 1e-4}
ACTING = {**SHARED, "group_size": 4, "temperature": 1.2, "checkpoint_every": 1, "alarms": {"probe_tasks": 0}}
STAGES: tuple[StageConfig, ...] = (
    SftConfig(**{**SHARED, "learning_rate": 1e-3}),
    GrpoConfig(**ACTING, micro_batch_size=1),
    SdpoConfig(**ACTING, distillation_weight=0.5),
    DistillConfig(**{**ACTING, "group_size": 2}, teacher="student@50", other_teacher=True),
)
RESUMED = GrpoConfig(**{**ACTING, "steps": 4, "checkpoint_every": 2})


class Chance(Toy):
    """Solved by any action with a number of letters that three divides: a random student does so now and then."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        observation, _, _, truncated, info = super().step(action)
        won = len(action) % 3 == 0
        return observation, float(won), won, truncated, info


class Several(StageConfig):
    """All of `STAGES`, each from the student that the context has."""

    runs: ClassVar[str] = "together:several"
    type: str = "together:Several"
    steps: int = 1
    learning_rate: float = 1.0


def several(stage: Several, context: StageContext) -> StageResult:
    results = [run_stage(own, replace(context, number=number)) for number, own in enumerate(STAGES, start=1)]
    return replace(
        results[0],
        digest=" ".join(result.digest for result in results),
        metrics=[(number, result.metrics[-1][1]) for number, result in enumerate(results, start=1)],
    )


class Interrupted(StageConfig):
    """`RESUMED`, whose second process is killed after its third step if it `dies`."""

    runs: ClassVar[str] = "together:interrupted"
    type: str = "together:Interrupted"
    steps: int = 1
    learning_rate: float = 1.0
    dies: bool = False


def interrupted(stage: Interrupted, context: StageContext) -> StageResult:
    def progress(what: str, done: int, total: int) -> None:
        context.progress(what, done, total)
        if stage.dies and done == 3 and ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return run_stage(RESUMED, replace(context, progress=progress))


class Killed(StageConfig):
    """Its second process is killed while the first waits for it."""

    runs: ClassVar[str] = "together:killed"
    type: str = "together:Killed"
    steps: int = 1
    learning_rate: float = 1.0


def killed(stage: Killed, context: StageContext) -> StageResult:
    print("process", os.getpid(), flush=True)
    context.progress("waiting", 1, 2)
    ranks.everyone([0])
    if ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.everyone([1])
    raise AssertionError("the other process did not come")

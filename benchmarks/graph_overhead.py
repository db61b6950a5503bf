"""What the acting graph itself costs: share of the wall-clock spent neither in environments nor in the policy.

    python benchmarks/graph_overhead.py [--environment miniwob] [--families A B C] [--width 8] [--episodes 64]

The time in environments is the time during which at least one of them is busy, so that what runs at once is
counted once. Making and closing the environments belongs to them, too.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from threading import Lock

from rich.console import Console
from rich.table import Table

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import ActConfig
from tutelage.environments.base import Environment, environment_class
from tutelage.llm import LLM
from tutelage.types import Context, Policy, Reply, Split

FAMILIES = ["click-button", "enter-text", "login-user"]


class Busy:
    """Seconds during which at least one of many threads was inside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = 0
        self._since = 0.0
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._since = time.perf_counter()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self.seconds += time.perf_counter() - self._since


class TimedPolicy:
    def __init__(self, inner: Policy, busy: Busy) -> None:
        self.inner, self.busy, self.label = inner, busy, inner.label

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        with self.busy:
            return self.inner.act(contexts)

    def forget(self, keys: Sequence[str]) -> None:
        self.inner.forget(keys)


def timed(make: Callable[[], Environment], busy: Busy) -> Callable[[str], Environment]:
    """`make`, with the environment's methods timed."""

    def inside(method: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            with busy:
                return method(*args, **options)

        return call

    def made(_: str) -> Environment:
        with busy:
            environment = make()
        for name in ("reset", "step", "close"):
            setattr(environment, name, inside(getattr(environment, name)))
        return environment

    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="miniwob")
    parser.add_argument("--families", nargs="*", default=None)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=64)
    options = parser.parse_args()

    environment = environment_class(options.environment)
    families = options.families or (FAMILIES if options.environment == "miniwob" else environment.families())
    tasks = environment.tasks(Split.TRAIN, families, count=-(-options.episodes // len(families)))
    expert = LLMPolicy(LLM(f"expert/{options.environment}", role="teacher"))
    act = ActConfig(width=options.width)
    run_episodes(
        tasks[: options.width], expert, lambda _: environment(), act=act
    )  # imports and first use are not measured

    acting, answering = Busy(), Busy()
    started = time.perf_counter()
    trajectories = run_episodes(tasks, TimedPolicy(expert, answering), timed(environment, acting), act=act)
    total = time.perf_counter() - started
    graph = total - acting.seconds - answering.seconds

    steps = sum(len(trajectory.steps) for trajectory in trajectories)
    solved = sum(trajectory.success for trajectory in trajectories)
    table = Table(title=f"{options.environment}, {expert.label}, {options.width} contexts")
    for name in ("part", "seconds", "share", "ms per step"):
        table.add_column(name, justify="left" if name == "part" else "right")
    rows = (("environments", acting.seconds), ("policy", answering.seconds), ("graph", graph), ("total", total))
    for name, seconds in rows:
        table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.1%}", f"{1000 * seconds / steps:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{len(trajectories)} episodes, {steps} steps, {solved} solved")


if __name__ == "__main__":
    main()

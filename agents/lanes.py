"""Environments on threads of their own, so that many of them can step at once.

A lane makes one environment of each kind that its tasks ask for. An environment is made, used and closed by
one thread only: Playwright's objects, for one, belong to the thread that made them. A call that does not come
back in time costs its thread and its environments, never the program: the threads are daemons, and a fresh
lane takes the place of the lost one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from tutelage.environments.base import Environment
from tutelage.errors import EnvironmentBroken
from tutelage.types import Diagnosis, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Opening:
    """How an episode begins."""

    goal: str
    observation: str
    environment: Environment


@dataclass(frozen=True)
class Result:
    """What one action led to."""

    observation: str
    reward: float
    terminated: bool
    diagnosis: Diagnosis
    credit: float = 0.0


class Lane:
    """One thread; its environments are made when a task first needs them, and kept."""

    def __init__(self, make_environment: Callable[[str], Environment]) -> None:
        self._make = make_environment
        self._environments: dict[str, Environment] = {}
        self._current: Environment | None = None
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._run, name="environment", daemon=True).start()

    def reset(self, task: Task) -> "Future[Opening]":
        """Begin `task`; an environment that cannot is replaced by a new one, once."""
        return self._submit(lambda: self._reset(task))

    def step(self, action: str) -> "Future[Result]":
        return self._submit(lambda: self._step(action))

    def close(self) -> "Future[None]":
        """Close the environment and end the thread, after whatever it is still doing."""
        future = self._submit(self._close)
        self._work.put(None)
        return future

    def _submit(self, call: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._work.put((future, call))
        return future

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

    def _reset(self, task: Task) -> Opening:
        name = task.environment
        if name in self._environments:
            with suppress(EnvironmentBroken):
                return self._open(self._environments[name], task)
            _close(self._environments.pop(name))
        self._environments[name] = self._make(name)
        return self._open(self._environments[name], task)

    def _open(self, environment: Environment, task: Task) -> Opening:
        self._current = environment
        observation, info = environment.reset(seed=task.seed, options={"task": task})
        return Opening(info["goal"], observation, environment)

    def _step(self, action: str) -> Result:
        assert self._current is not None, "step before reset"
        observation, reward, terminated, _, info = self._current.step(action)
        return Result(observation, float(reward), terminated, info["diagnosis"], float(info.get("credit", 0.0)))

    def _close(self) -> None:
        while self._environments:
            _close(self._environments.popitem()[1])


def _close(environment: Environment) -> None:
    with suppress(EnvironmentBroken):  # it is broken and going away
        environment.close()


def outcomes(futures: "Sequence[Future[T]]", timeout: float) -> "list[T | EnvironmentBroken | TimeoutError]":
    """Results in order after at most `timeout` seconds; a broken or late one is returned as its error.

    Raises:
        Exception: whatever else a call raised.
    """
    wait(futures, timeout=timeout)
    results: list[T | EnvironmentBroken | TimeoutError] = []
    for future in futures:
        if not future.done():
            results.append(TimeoutError())
            continue
        try:
            results.append(future.result())
        except EnvironmentBroken as error:
            results.append(error)
    return results

"""Environments on threads of their own, so that many of them can step at once.

An environment is made, used and closed by one thread only: Playwright's objects, for one, belong to
the thread that made them. A call that does not come back in time costs its thread and its environment,
never the program: the threads are daemons, and a fresh lane takes the place of the lost one.
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


class Lane:
    """One thread with one environment, which is made on the first reset."""

    def __init__(self, make_environment: Callable[[], Environment]) -> None:
        self._make = make_environment
        self._environment: Environment | None = None
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
        if self._environment is not None:
            with suppress(EnvironmentBroken):
                return self._open(self._environment, task)
            self._close()
        self._environment = self._make()
        return self._open(self._environment, task)

    def _open(self, environment: Environment, task: Task) -> Opening:
        observation, info = environment.reset(seed=task.seed, options={"task": task})
        return Opening(info["goal"], observation, environment)

    def _step(self, action: str) -> Result:
        assert self._environment is not None, "step before reset"
        observation, reward, terminated, _, info = self._environment.step(action)
        return Result(observation, float(reward), terminated, info["diagnosis"])

    def _close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
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

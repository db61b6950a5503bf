"""The acting graph: retrieve → propose → guard → act → diagnose, for a whole batch of episodes at once.

One LangGraph run serves all tasks of a call. `ActConfig.width` episodes are open at a time and are
answered by one policy call per turn; when one ends, its environment takes the next task at once, so
that the batch stays full. The graph's state is one mutable batch and is never checkpointed: an
interrupted episode is simply run again.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from functools import cache
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tutelage.agents.episode import Episode, blocked
from tutelage.agents.guard import forbids
from tutelage.agents.lanes import Lane, Opening, Result, outcomes
from tutelage.agents.seeds import stable_seed
from tutelage.config import ActConfig
from tutelage.environments.base import Environment
from tutelage.experience import Recaller
from tutelage.types import Cause, Diagnosis, Ending, Policy, Task, Trajectory

CLOSING_SECONDS = 20.0
"""How long closing the environments may take; a hung one is left behind."""


class State(TypedDict):
    batch: "Batch"


def run_episodes(
    tasks: Sequence[Task],
    policy: Policy,
    make_environment: Callable[[str], Environment],
    *,
    act: ActConfig,
    memory: Recaller | None = None,
    seed: int = 0,
    begun: Mapping[str, int] | None = None,
    on_finished: Callable[[int, Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Run one episode per task and return their trajectories in the order of `tasks`.

    Args:
        make_environment: makes the environment with this short name, in the thread that will use it; called at
            most `act.width` times for each, unless one breaks.
        memory: what experiences and guardrails come from; None switches memory off.
        seed: with the task it determines how an episode is sampled, wherever the task stands in `tasks`;
            several episodes of one task are sampled differently.
        begun: per task id, how many episodes with this seed are played elsewhere; those here are sampled as if they
            came after them.
        on_finished: is given (place in `tasks`, trajectory) as each episode ends, in this thread.

    Raises:
        BudgetSpent: the policy may not go on; finished episodes were delivered through `on_finished`.
    """
    batch = Batch(tasks, policy, make_environment, act, memory, seed, begun or {}, on_finished)
    try:
        # At most six nodes run per turn, and a round serves at least one turn of one episode.
        limit = 6 * (len(tasks) * (act.max_steps + 1) + 1)
        # A fresh context: within another graph's node the run would inherit that graph's checkpointer.
        Context().run(_graph().invoke, {"batch": batch}, config={"recursion_limit": limit})
    finally:
        batch.close()
    return [batch.finished[index] for index in range(len(tasks))]


class Batch:
    """All episodes of one run; the graph's nodes are its methods."""

    def __init__(
        self,
        tasks: Sequence[Task],
        policy: Policy,
        make_environment: Callable[[str], Environment],
        act: ActConfig,
        memory: Recaller | None,
        seed: int,
        begun: Mapping[str, int],
        on_finished: Callable[[int, Trajectory], None] | None,
    ) -> None:
        self.policy = policy
        self.make_environment = make_environment
        self.config = act
        self.memory = memory
        self.on_finished = on_finished
        self.seed = seed
        self.begun: Counter[str] = Counter(begun)
        """How many episodes of each task have begun."""
        self.waiting = list(enumerate(tasks))[::-1]
        """Tasks not yet begun with their places, the next one last."""
        self.lanes = [Lane(make_environment) for _ in range(min(act.width, len(tasks)))]
        self.open: dict[int, Episode] = {}
        """Lane number → the episode it runs."""
        self.finished: dict[int, Trajectory] = {}

    # -- nodes ----------------------------------------------------------------------------------

    def retrieve(self) -> None:
        """Give every free environment a task, and every new episode what memory has to say."""
        while self.waiting and (free := [n for n in range(len(self.lanes)) if n not in self.open]):
            fresh = {number: self._next() for number in free[: len(self.waiting)]}
            futures = [self.lanes[number].reset(episode.task) for number, episode in fresh.items()]
            for (number, episode), opening in zip(fresh.items(), self._outcomes(futures), strict=True):
                if isinstance(opening, Opening):
                    episode.begin(opening.goal, opening.observation, opening.environment)
                    if self.memory is not None:
                        episode.recall = self.memory.recall(episode.task, episode.goal, episode.observation)
                    self.open[number] = episode
                else:
                    self._broken(number, opening)
                    self._deliver(episode, Ending.ENVIRONMENT_ERROR, self._why(opening))

    def propose(self) -> None:
        """One policy call for all open episodes."""
        episodes = list(self.open.items())
        replies = self.policy.act([episode.context() for _, episode in episodes])
        for (number, episode), reply in zip(episodes, replies, strict=True):
            if reply.error:
                self._end(number, Ending.POLICY_ERROR, reply.error)
            else:
                episode.propose(reply)

    def guard(self) -> None:
        """Stop what a guardrail forbids, before it is carried out."""
        for episode in self.open.values():
            proposal = episode.proposal
            assert proposal is not None
            if not proposal.meaning or not episode.recall.guardrails:
                continue
            rule = forbids(episode.recall.guardrails, proposal.meaning, episode.observation, episode.goal)
            if rule is not None:
                episode.record(blocked(rule), episode.observation, blocked_by=rule)

    def act(self) -> None:
        """Carry out every action that was not stopped, all environments at once."""
        acting = {number: episode for number, episode in self.open.items() if episode.proposal is not None}
        actions = {number: episode.proposal.action for number, episode in acting.items() if episode.proposal}
        futures = [self.lanes[number].step(action) for number, action in actions.items()]
        for (number, episode), result in zip(acting.items(), self._outcomes(futures), strict=True):
            if isinstance(result, Result):
                episode.record(result.diagnosis, result.observation, result.reward, result.credit)
                if result.terminated:
                    self._end(number, Ending.SOLVED if result.reward > 0 else Ending.FAILED)
            else:
                error = self._why(result)
                episode.record(Diagnosis(cause=Cause.ENVIRONMENT_ERROR, evidence=error), episode.observation)
                self._broken(number, result)
                self._end(number, Ending.ENVIRONMENT_ERROR, error)

    def diagnose(self) -> None:
        """End the episodes that are going nowhere."""
        for number, episode in list(self.open.items()):
            if episode.failed >= self.config.stall_after:
                self._end(number, Ending.STALLED)
            elif len(episode.steps) >= self.config.max_steps:
                self._end(number, Ending.STEP_LIMIT)

    def replan(self) -> None:
        for episode in self._lost():
            episode.replan()

    # -- edges ----------------------------------------------------------------------------------

    def after_retrieve(self) -> str:
        return "propose" if self.open else END

    def after_propose(self) -> str:
        return "guard" if self.open else self.onward()

    def after_guard(self) -> str:
        return "act" if any(episode.proposal for episode in self.open.values()) else "diagnose"

    def after_diagnose(self) -> str:
        return "replan" if self._lost() else self.onward()

    def onward(self) -> str:
        if self.waiting:
            return "retrieve"
        return "propose" if self.open else END

    def _lost(self) -> list[Episode]:
        return [episode for episode in self.open.values() if episode.failed >= self.config.replan_after]

    # -- the rest -------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget open episodes and close all environments."""
        self.policy.forget([episode.key for episode in self.open.values()])
        outcomes([lane.close() for lane in self.lanes], CLOSING_SECONDS)

    def _next(self) -> Episode:
        index, task = self.waiting.pop()
        seed = stable_seed(self.seed, task.id, self.begun[task.id])
        self.begun[task.id] += 1
        return Episode(index, task, seed, self.policy.label, self.memory is not None, time.monotonic())

    def _outcomes(self, futures: Sequence[Any]) -> list[Any]:
        return outcomes(futures, self.config.step_timeout)

    def _broken(self, number: int, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self.lanes[number].close()  # takes effect if the call ever comes back
            self.lanes[number] = Lane(self.make_environment)

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"the environment did not answer within {self.config.step_timeout:g} s"
        return str(error)

    def _end(self, number: int, ending: Ending, error: str = "") -> None:
        episode = self.open.pop(number)
        self.policy.forget([episode.key])
        self._deliver(episode, ending, error)

    def _deliver(self, episode: Episode, ending: Ending, error: str = "") -> None:
        trajectory = episode.trajectory(ending, error)
        self.finished[episode.index] = trajectory
        if self.on_finished is not None:
            self.on_finished(episode.index, trajectory)


@cache
def _graph() -> Any:
    graph = StateGraph(State)
    graph.add_node("retrieve", _node(Batch.retrieve))
    graph.add_node("propose", _node(Batch.propose))
    graph.add_node("guard", _node(Batch.guard))
    graph.add_node("act", _node(Batch.act))
    graph.add_node("diagnose", _node(Batch.diagnose))
    graph.add_node("replan", _node(Batch.replan))
    graph.add_edge(START, "retrieve")
    graph.add_conditional_edges("retrieve", _node(Batch.after_retrieve), ["propose", END])
    graph.add_conditional_edges("propose", _node(Batch.after_propose), ["guard", "retrieve", END])
    graph.add_conditional_edges("guard", _node(Batch.after_guard), ["act", "diagnose"])
    graph.add_edge("act", "diagnose")
    graph.add_conditional_edges("diagnose", _node(Batch.after_diagnose), ["replan", "retrieve", "propose", END])
    graph.add_conditional_edges("replan", _node(Batch.onward), ["retrieve", "propose"])
    return graph.compile()


def _node(method: Callable[[Batch], object]) -> Any:
    return lambda state: method(state["batch"])

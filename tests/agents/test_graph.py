"""The acting graph on a tiny real environment: order, admission, endings, replanning, guardrails, faults."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.calls import Call, CallError
from tutelage.config import ActConfig
from tutelage.environments.base import Environment, Outcome
from tutelage.errors import BudgetSpent, EnvironmentBroken
from tutelage.experience import Experience, Guardrail, Recall, Source
from tutelage.types import Cause, Context, Ending, Reply, Shown, Split, Task, Trajectory


class Counter(Environment):
    """Count to the goal; ``add(n)`` adds, ``say()`` ends. The family says how it misbehaves."""

    name = "counter"
    system = "Count."
    made = 0
    closed = 0

    def __init__(self) -> None:
        Counter.made += 1
        self.ruined = False

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return ("crash", "fine", "hang", "lasting", "noreset")

    def start(self, task: Task) -> tuple[str, str]:
        if self.ruined or task.family == "noreset":
            raise EnvironmentBroken("the page is gone")
        self.count, self.goal = 0, task.seed % 3 + 1
        return f"Count to {self.goal}", "count 0"

    def act(self, call: Call) -> Outcome:
        if self.task.family in ("crash", "lasting"):
            self.ruined = self.task.family == "lasting"
            raise EnvironmentBroken("the page crashed")
        if self.task.family == "hang":
            time.sleep(3)
        match call:
            case Call("add", (int() as n,)):
                self.count += n
                return Outcome(f"count {self.count}")
            case Call("say", ()):
                return Outcome("over", 1.0 if self.count == self.goal else -1.0, terminated=True)
        raise CallError("write add(n) or say()")

    def close(self) -> None:
        Counter.closed += 1


class Scripted:
    """Answers each context by a function of it; notes what it was asked to forget."""

    label = "counter (scripted)"

    def __init__(self, answer: Callable[[Context], str]) -> None:
        self.answer = answer
        self.widths: list[int] = []
        self.seeds: list[int] = []
        self.forgotten: list[str] = []

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        self.widths.append(len(contexts))
        self.seeds += [context.seed for context in contexts]
        return [Reply(self.answer(context)) for context in contexts]

    def forget(self, keys: Sequence[str]) -> None:
        self.forgotten += keys


def count(context: Context) -> str:
    goal = int(context.messages[1].content.split("Count to ")[1].split()[0])
    return "one more\nadd(1)" if len(context.messages) // 2 <= goal else "done\nsay()"


def tasks(number: int, family: str = "fine") -> list[Task]:
    return Counter.tasks(Split.TRAIN, [family], count=number)


def comparable(trajectory: Trajectory) -> Trajectory:
    return trajectory.model_copy(update={"id": "", "created": None, "seconds": 0.0})


@pytest.fixture(autouse=True)
def _balance() -> None:
    Counter.made = Counter.closed = 0


def test_order_admission_and_cleanup() -> None:
    policy, finished = Scripted(count), {}
    todo = tasks(10)
    trajectories = run_episodes(
        todo,
        policy,
        lambda _: Counter(),
        act=ActConfig(width=3),
        on_finished=lambda index, t: finished.update({index: t}),
    )
    assert [t.task for t in trajectories] == todo
    assert all(t.ending is Ending.SOLVED and t.reward == 1 for t in trajectories)
    assert finished == dict(enumerate(trajectories))
    assert sum(policy.widths) == sum(len(t.steps) for t in trajectories)
    assert policy.widths[: sum(policy.widths) // 3 - 2] == [3] * (sum(policy.widths) // 3 - 2), "the batch stays full"
    assert sorted(policy.forgotten) == sorted({*policy.forgotten})
    assert len(policy.forgotten) == 10
    assert (Counter.made, Counter.closed) == (3, 3)


def test_deterministic_at_any_width() -> None:
    runs = []
    for width in (1, 1, 4):
        policy = Scripted(count)
        runs.append(
            [
                comparable(t)
                for t in run_episodes(tasks(6), policy, lambda _: Counter(), act=ActConfig(width=width), seed=7)
            ]
        )
        assert len(set(policy.seeds)) == len(policy.seeds)
    assert runs[0] == runs[1] == runs[2]


def test_sampling_depends_on_the_task_not_on_its_place() -> None:
    whole, rest, group = Scripted(count), Scripted(count), Scripted(count)
    run_episodes(tasks(2), whole, lambda _: Counter(), act=ActConfig(width=1), seed=5)
    run_episodes(tasks(2)[1:], rest, lambda _: Counter(), act=ActConfig(width=1), seed=5)
    assert whole.seeds[-len(rest.seeds) :] == rest.seeds
    run_episodes(tasks(1) * 3, group, lambda _: Counter(), act=ActConfig(width=2), seed=5)
    assert len(set(group.seeds)) == len(group.seeds), "episodes of one task are sampled differently"
    last = Scripted(count)
    run_episodes(tasks(1), last, lambda _: Counter(), act=ActConfig(width=1), seed=5, begun={tasks(1)[0].id: 2})
    assert set(last.seeds) < set(group.seeds), "as the third of them, if two are played elsewhere"


def test_no_tasks() -> None:
    assert run_episodes([], Scripted(count), lambda _: Counter(), act=ActConfig()) == []


def test_failures_bring_notes_then_a_new_plan_then_the_end() -> None:
    seen: list[str] = []

    def nonsense(context: Context) -> str:
        seen.append(context.messages[-1].content)
        return "subtract(1)"

    act = ActConfig(replan_after=2, stall_after=4)
    (trajectory,) = run_episodes(tasks(1), Scripted(nonsense), lambda _: Counter(), act=act)
    assert trajectory.ending is Ending.STALLED
    assert [step.diagnosis.cause for step in trajectory.steps] == [Cause.INVALID_ACTION] * 4
    assert "Note: write add(n) or say()" in seen[1]
    assert "different plan" not in seen[1]
    assert "different plan" in seen[2]
    assert "subtract(1): write add(n) or say()" in seen[2]
    assert trajectory.steps[2].notes
    assert not trajectory.steps[0].notes


def test_endings() -> None:
    early = Scripted(lambda context: "say()")
    forever = Scripted(lambda context: "add(1)")
    assert run_episodes(tasks(1), early, lambda _: Counter(), act=ActConfig())[0].ending is Ending.FAILED
    limited = run_episodes(tasks(1), forever, lambda _: Counter(), act=ActConfig(max_steps=5))[0]
    assert limited.ending is Ending.STEP_LIMIT
    assert len(limited.steps) == 5


def test_policy_error_costs_one_episode() -> None:
    class Flaky(Scripted):
        def act(self, contexts: Sequence[Context]) -> list[Reply]:
            return [
                replace(reply, error="no answer") if "Count to 2" in context.messages[1].content else reply
                for context, reply in zip(contexts, super().act(contexts), strict=True)
            ]

    trajectories = run_episodes(tasks(4), Flaky(count), lambda _: Counter(), act=ActConfig(width=2))
    assert [t.ending for t in trajectories] == [Ending.SOLVED, Ending.POLICY_ERROR, Ending.SOLVED, Ending.SOLVED]
    assert trajectories[1].error == "no answer"


@pytest.mark.parametrize(("family", "made"), [("crash", 1), ("lasting", 2), ("noreset", 2), ("hang", 2)])
def test_environment_error_costs_one_episode(family: str, made: int) -> None:
    todo = [*tasks(1), *tasks(1, family), *tasks(2)]
    trajectories = run_episodes(todo, Scripted(count), lambda _: Counter(), act=ActConfig(width=1, step_timeout=0.5))
    assert [t.ending for t in trajectories] == [Ending.SOLVED, Ending.ENVIRONMENT_ERROR, Ending.SOLVED, Ending.SOLVED]
    assert trajectories[1].error
    assert Counter.made == made
    if family != "noreset":
        assert trajectories[1].steps[-1].diagnosis.cause is Cause.ENVIRONMENT_ERROR


def test_budget_stops_after_delivering() -> None:
    calls, finished = [], []

    def limited(context: Context) -> str:
        calls.append(context)
        if len(calls) > 9:
            raise BudgetSpent("calls: 9 of 9")
        return count(context)

    with pytest.raises(BudgetSpent):
        run_episodes(
            tasks(8),
            Scripted(limited),
            lambda _: Counter(),
            act=ActConfig(width=2),
            on_finished=lambda i, t: finished.append(i),
        )
    assert finished
    assert (Counter.made, Counter.closed) == (2, 2)


def test_memory_is_recalled_once_shown_recorded_and_enforced() -> None:
    rule = Experience(
        environment="counter",
        family="fine",
        goal="Count to {n}",
        content=Guardrail(trigger=("count 0",), root_cause="Nothing is counted yet.", forbidden="say()", remedy="Add."),
        sources=(Source(trajectory="trj_0", task="counter/fine@99"),),
        author="test",
    )

    class Memory:
        asked: list[str] = []

        def recall(self, task: Task, goal: str, observation: str) -> Recall:
            self.asked.append(task.id)
            return Recall(shown=(Shown(id="exp_1", version=1, text="Add one at a time."),), guardrails=(rule,))

    def hasty(context: Context) -> str:
        return "say()" if len(context.messages) == 2 else count(replace(context, messages=context.messages[:-2]))

    memory = Memory()
    (trajectory,) = run_episodes(tasks(1), Scripted(hasty), lambda _: Counter(), act=ActConfig(), memory=memory)
    first = trajectory.steps[0]
    assert memory.asked == [trajectory.task.id]
    assert trajectory.memory
    assert trajectory.shown[0].id == "exp_1"
    assert first.diagnosis.cause is Cause.BLOCKED
    assert first.blocked_by == rule.id
    assert first.after == "count 0"
    assert "Nothing is counted yet. Add." in trajectory.steps[1].notes[0]
    assert trajectory.ending is Ending.SOLVED
    (without,) = run_episodes(tasks(1), Scripted(hasty), lambda _: Counter(), act=ActConfig())
    assert without.ending is Ending.FAILED
    assert not without.memory
    assert not without.shown

"""Measuring students and other policies: the evaluation step of a cycle, and the same by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from tutelage.agents.graph import run_episodes
from tutelage.agents.seeds import stable_seed
from tutelage.cycle import ROLLOUTS, cycle_students, unhurried
from tutelage.environments.suite import Suite
from tutelage.errors import ConfigError, UnknownName
from tutelage.evaluate import compare_arms, evaluate_arm, held_out_tasks, measured, seen_pairs
from tutelage.measures import Arm, Student
from tutelage.progress import Reporter
from tutelage.results import ComparisonDoc, EvaluationDoc, load, percent, rates, save
from tutelage.results import interval as interval_text
from tutelage.types import Policy, Split, Task, Trajectory, new_id
from tutelage.workspace import ANY_EXPERT, Workspace

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Plan:
    """One arm a cycle wants measured."""

    name: str
    label: str
    student: Student
    memory: bool
    split: Split
    episodes: int


def plans(workspace: Workspace, students: Sequence[Student]) -> list[Plan]:
    """The arms of a cycle, those of one student together, so that its weights are loaded once."""
    config, found = workspace.config.evaluate, []
    for place, student in enumerate(students):
        label = ("base" if student.number == 0 else "before") if place == 0 else f"after {student.stage.upper()}"
        name = f"{place}-{student.stage if place else 'before'}"
        outer = place in (0, len(students) - 1)
        arms = [("off", False, Split.VALIDATION, config.episodes if outer else config.between)]
        if outer:
            arms += [("on", True, Split.VALIDATION, config.with_memory), ("test", False, Split.TEST, config.test)]
        found += [
            Plan(f"{name}-{arm}", label, student, memory, split, count) for arm, memory, split, count in arms if count
        ]
    return found


def evaluate(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Measure the student the cycle began with and the one after each stage, then compare them in pairs."""
    students = cycle_students(workspace, cycle, len(workspace.config.stages))
    wanted = plans(workspace, students)
    seen = seen_pairs(workspace.record)
    policies: dict[str, Policy] = {}
    for plan in wanted:
        if workspace.record.get("evaluation", f"{cycle}/{plan.name}") is not None:
            continue
        if plan.student.id not in policies:
            policies = {plan.student.id: workspace.student_policy(plan.student)}  # one set of weights at a time
        _measure(workspace, cycle, plan, policies[plan.student.id], seen, report)
    _compare(workspace, cycle, wanted)


def _measure(
    workspace: Workspace, cycle: int, plan: Plan, policy: Policy, seen: frozenset[str], report: Reporter
) -> None:
    config = workspace.config
    key = f"{cycle}/eval/{plan.name}"
    arm = evaluate_arm(
        workspace.record,
        _tasks(workspace, cycle, plan.split, plan.episodes),
        policy,
        workspace.suite.make_for_evaluation,
        act=config.act,
        memory=workspace.memory if plan.memory else None,
        seed=stable_seed(config.seed, key),
        key_prefix=key,
        cycle=cycle,
        student_label=plan.student.label,
        split=plan.split,
        seen=seen,
        confidence=config.evaluate.confidence,
        progress=report,
    )
    report.say(
        f"  {plan.label}, memory {'on' if plan.memory else 'off'}, {plan.split}: "
        f"{percent(arm.rate)} ({interval_text(arm.rate)})"
    )
    save(
        workspace.record,
        EvaluationDoc(**dict(arm), cycle=cycle, name=plan.name, label=plan.label, policy=policy.label),
    )


def _tasks(workspace: Workspace, cycle: int, split: Split, count: int) -> list[Task]:
    return held_out_tasks(workspace.suite, split, count, stable_seed(workspace.config.seed, cycle, split.value))


def _compare(workspace: Workspace, cycle: int, wanted: Sequence[Plan]) -> None:
    """Each arm against the one the cycle began with, and each stage against the stage before it."""
    docs = {doc.name: doc for doc in load(workspace.record, EvaluationDoc, cycle)}
    off = [plan for plan in wanted if not plan.memory and plan.split is Split.VALIDATION]
    pairs = [(off[0], plan) for plan in off[1:]]
    pairs += list(pairwise(off[1:]))
    for kind in (Split.VALIDATION, Split.TEST):
        ends = [plan for plan in wanted if plan.split is kind and plan not in off]
        pairs += list(pairwise(ends))
    pairs += [(plan, other) for plan in off for other in wanted if other.memory and other.student == plan.student]
    for old, new in pairs:
        compare = partial(
            compare_arms,
            workspace.record,
            docs[old.name],
            docs[new.name],
            confidence=workspace.config.evaluate.confidence,
            seed=workspace.config.seed,
        )
        names = workspace.suite.names if len(workspace.suite.names) > 1 else ()
        doc = ComparisonDoc(
            **dict(compare()),
            by_environment={name: compare(environment=name) for name in names},
            cycle=cycle,
            old=old.name,
            new=new.name,
            decides=(old, new) == (off[0], off[-1]),
        )
        save(workspace.record, doc)


# -- by hand ------------------------------------------------------------------------------------


def policy_named(workspace: Workspace, name: str) -> Policy:
    """The policy a command line names.

    Raises:
        UnknownName: it is neither teacher, expert, oracle, student, student@N nor a model string with a provider.
    """
    if name == "teacher":
        return workspace.acting()
    if name == "oracle":
        return workspace.oracle()
    if name == "student":
        return workspace.student_policy(workspace.current_student())
    if name.startswith("student@"):
        workspace.base_student()
        return workspace.student_policy(workspace.record.student(name))
    if name == "expert":
        name = ANY_EXPERT
    if "/" not in name:
        raise UnknownName(
            f"unknown policy {name!r}; known: teacher, expert, oracle, student, student@N, or a LiteLLM model string "
            "with its provider, such as openai/gpt-4o-mini"
        )
    return workspace.acting(name)


def playable(workspace: Workspace, policy: str, suite: Suite, report: Reporter) -> Suite:
    """The environments of `suite` that a policy named on the command line can act in; says what is left out.

    Raises:
        ConfigError: it can act in none of them.
    """
    from tutelage.agents.experts import expert_names

    scripted = policy == "expert" or (policy == "teacher" and workspace.config.teacher.model == ANY_EXPERT)
    able = suite.with_gold if policy == "oracle" else expert_names() if scripted else suite.names
    left = [name for name in suite.names if name not in able]
    if len(left) == len(suite.names):
        raise ConfigError(
            f"{policy} cannot act in {', '.join(left)}: "
            + ("no solutions are known there" if policy == "oracle" else "there is no scripted expert for it")
        )
    if left:
        report.say(f"{policy} cannot act in {', '.join(left)}, which is left out")
    return suite.only(environments=able)


def rollout(
    workspace: Workspace, tasks: Sequence[Task], policy: str, *, memory: bool, report: Reporter
) -> list[Trajectory]:
    """Run a policy on tasks and record its trajectories, whatever was recorded before.

    Raises:
        ConfigError: known solutions of held-out tasks would be recorded.
        RecordError: the runs of the workspace are another tenant's.
    """
    if policy == "oracle" and any(task.split is not Split.TRAIN for task in tasks):
        raise ConfigError(
            "an oracle's solutions are recorded for train tasks only; `tutelage eval --policy oracle` checks all"
        )
    workspace.record.claim()
    acting = policy_named(workspace, policy)
    batch, done = new_id("run"), 0

    def finished(index: int, trajectory: Trajectory) -> None:
        nonlocal done
        done += 1
        workspace.record.add_trajectory(trajectory, key=f"{batch}/{index}", cycle=0, arm=ROLLOUTS)
        report(f"{acting.label}", done, len(tasks))

    return run_episodes(
        tasks,
        acting,
        workspace.suite.make,
        act=workspace.config.act,
        memory=workspace.memory if memory else None,
        seed=workspace.config.seed,
        on_finished=finished,
    )


def evaluate_policy(
    workspace: Workspace,
    policy: str,
    suite: Suite,
    *,
    split: Split,
    episodes: int,
    memory: bool,
    report: Reporter,
    name: str = "",
) -> Arm:
    """Measure any policy on held-out tasks of `suite`, `episodes` per family on average.

    Args:
        name: of the measurement; the same name goes on with it. Default: a new one.

    Raises:
        RecordError: the runs of the workspace are another tenant's.
    """
    workspace.record.claim()
    acting = policy_named(workspace, policy)
    count = episodes * len(suite.families)
    tasks = held_out_tasks(suite, split, count, stable_seed(workspace.config.seed, "hand"))
    batch = name or new_id("run")
    return evaluate_arm(
        workspace.record,
        tasks,
        acting,
        workspace.suite.make_for_evaluation,
        act=workspace.config.act,
        memory=workspace.memory if memory else None,
        seed=workspace.config.seed,
        key_prefix=f"0/eval/{batch}",
        cycle=0,
        student_label=acting.label,
        split=split,
        seen=seen_pairs(workspace.record),
        confidence=workspace.config.evaluate.confidence,
        progress=report,
    )


def replay_gold(workspace: Workspace, suite: Suite, report: Reporter) -> Arm:
    """Replay the known solution of every task of every split, to check the environments themselves.

    Nothing is recorded: held-out solutions must not be there to learn from.

    Raises:
        ConfigError: none of these environments has known solutions.
    """
    oracle, done, parts = workspace.oracle(), 0, [part for part in suite.parts if part.name in suite.with_gold]
    tasks = [
        task
        for part in parts
        for family in part.families
        for split in Split
        for task in part.environment.tasks(split, [family], count=len(part.environment.seeds(split, family)))
    ]

    def finished(index: int, trajectory: Trajectory) -> None:
        nonlocal done
        done += 1
        report(oracle.label, done, len(tasks))

    found = run_episodes(
        tasks,
        oracle,
        suite.make_for_evaluation,
        act=unhurried(workspace.config.act),
        on_finished=finished,
    )
    return measured(found, student_label=oracle.label, memory=False, split=None)


def family_table(arm: Arm) -> "Table":
    """Success per task family, per environment where there are several, and overall, with intervals."""
    from rich.table import Table

    table = Table("family", "success", "interval", "episodes", title=f"{arm.student}, {arm.split or 'all tasks'}")
    for family, rate in [*rates(arm).items(), ("all", arm.rate)]:
        table.add_row(family, percent(rate), interval_text(rate), str(rate.episodes))
    if arm.excluded or arm.broken:
        table.caption = f"left out: {arm.excluded} seen in training, {arm.broken} broken"
    return table

"""One seed in one world: data, the student after fine-tuning, each arm's student from it, and how all of them do.

Everything is kept in one workspace per world and seed, so a run that was killed goes on where it was: episodes and
students are in its record, a stage that was under way has its checkpoint. Cycle `seed + 1` names the training tasks,
so that seeds share none, and all arms of a seed have the same.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plan import Plan, World

from tutelage import cycle as steps
from tutelage import distilling
from tutelage.agents.seeds import stable_seed
from tutelage.environments.suite import Suite
from tutelage.evaluate import evaluate_arm, exclude_seen, held_out_tasks, seen_pairs
from tutelage.measures import Student
from tutelage.progress import Reporter
from tutelage.results import AlarmDoc, load
from tutelage.stage_config import RolloutStageConfig, StageConfig
from tutelage.training.base import weights_of
from tutelage.training.need import check
from tutelage.types import BROKEN, Split, Task
from tutelage.workspace import Workspace

BASE, SFT = "base", "SFT"
SEEN, UNSEEN = "trained families", "unseen families"
CURVES = ("loss", "success", "reward", "probe", "entropy", "kl")

Cell = dict[str, Any]
"""A student of one seed, what its training took, and the outcome of each held-out task; JSON."""


def run(plan: Plan, name: str, seed: int, folder: Path, report: Reporter) -> Iterator[list[Cell]]:
    """Make and measure what is missing; after each student, the cells as they are so far.

    Raises:
        ConfigError: there is too little memory.
    """
    world = plan.worlds[name]
    workspace = Workspace(world.settings(folder / f"{name}-{seed}", seed, plan.sft))
    try:
        number = seed + 1
        for step in (steps.collect, distilling.judge, distilling.extract, distilling.consolidate):
            step(workspace, number, report)
        base = workspace.base_student()
        _check_memory(plan, workspace, base)
        students = {BASE: base}
        made: dict[str, list[str]] = {BASE: []}
        _play(plan, world, workspace, seed, base, report)
        yield cells(plan, name, seed, workspace, students, made)
        students[SFT] = steps.train_stage(workspace, number, 0, plan.sft, base, report, key=SFT)
        made[SFT] = [f"{SFT}-{plan.sft.type}"]
        _play(plan, world, workspace, seed, students[SFT], report)
        yield cells(plan, name, seed, workspace, students, made)
        for arm in plan.arms:
            student, made[arm] = students[SFT], []
            for place, stage in enumerate(plan.stages(arm)):
                key = f"{arm}/{place}"
                student = steps.train_stage(workspace, number, place + 1, stage, student, report, key=key)
                made[arm].append(f"{key}-{stage.type}")
            students[arm] = student
            _play(plan, world, workspace, seed, student, report)
            yield cells(plan, name, seed, workspace, students, made)
    finally:
        workspace.close()


def held_out(plan: Plan, world: World, seed: int) -> dict[str, list[Task]]:
    """The validation tasks that all students of a seed are measured on, by set."""

    def drawn(what: str, suite: Suite, count: int) -> list[Task]:
        return held_out_tasks(suite, Split.VALIDATION, count, stable_seed("learning", what, seed)) if count else []

    unseen = plan.episodes_unseen if world.unseen else 0
    return {SEEN: drawn(SEEN, world.suite, plan.episodes), UNSEEN: drawn(UNSEEN, world.suite_unseen, unseen)}


def _check_memory(plan: Plan, workspace: Workspace, base: Student) -> None:
    stages = (plan.sft, *(stage for arm in plan.arms.values() for stage in arm))
    left = range(len(stages)) if len(workspace.record.students()) == 1 else ()
    planned = workspace.config.model_copy(update={"stages": stages})
    check(planned, weights_of(base, workspace.folder), steps.experience_trajectories(workspace), left)


def _play(plan: Plan, world: World, workspace: Workspace, seed: int, student: Student, report: Reporter) -> None:
    """Play the held-out tasks that this student has not played yet: greedily, memory off."""
    sets = held_out(plan, world, seed)
    suites = {SEEN: world.suite, UNSEEN: world.suite_unseen}
    left = [what for what, tasks in sets.items() if not all(_key(student, what, t, workspace) for t in tasks)]
    if not left:
        return
    policy = workspace.student_policy(student)
    for what in left:
        evaluate_arm(
            workspace.record,
            sets[what],
            policy,
            suites[what].make_for_evaluation,
            act=workspace.config.act,
            seed=seed,
            key_prefix=f"learning/{student.number}/{what}",
            cycle=seed + 1,
            student_label=student.label,
            split=Split.VALIDATION,
            progress=report,
        )


def _key(student: Student, what: str, task: Task, workspace: Workspace) -> bool:
    return workspace.record.has_key(f"learning/{student.number}/{what}/{task.id}")


def cells(
    plan: Plan, name: str, seed: int, workspace: Workspace, students: dict[str, Student], made: dict[str, list[str]]
) -> list[Cell]:
    """The students so far, as the record has them; what occurred in training by now counts for none of them."""
    seen, found = seen_pairs(workspace.record), []
    alarms = load(workspace.record, AlarmDoc)
    for arm, student in students.items():
        stages = [plan.sft] if arm == SFT else list(plan.arms.get(arm, ()))
        took = [_figures(workspace, run, stage) for run, stage in zip(made[arm], stages, strict=True)]
        numbers = _lineage(workspace, student, len(stages))
        outcomes = {}
        for what, tasks in held_out(plan, plan.worlds[name], seed).items():
            keys = (f"learning/{student.number}/{what}/{task.id}" for task in tasks)
            played = [item for key in keys if (item := workspace.record.trajectory_by_key(key)) is not None]
            fresh, _ = exclude_seen(played, seen)
            outcomes[what] = {item.task.id: item.success for item in fresh if item.ending not in BROKEN}
        found.append(
            {
                "world": name,
                "seed": seed,
                "arm": arm,
                "student": student.label,
                "digest": student.digest,
                "steps": sum(item["steps"] for item in took),
                **{kind: sum(item[kind] for item in took) for kind in ("seconds", "watching", "sampled", "trained")},
                "alarms": [item.text for item in alarms if item.student in numbers],
                "curve": _joined([item["curve"] for item in took]),
                "outcomes": outcomes,
            }
        )
    return found


def _lineage(workspace: Workspace, student: Student, stages: int) -> set[int]:
    """Numbers of a student and of those that the stages before its own made in its arm."""
    numbers: set[int] = set()
    for _ in range(stages):
        numbers.add(student.number)
        if student.parent is not None:
            student = workspace.record.student(student.parent)
    return numbers


def _figures(workspace: Workspace, run: str, stage: StageConfig) -> dict[str, Any]:
    """What a stage took: steps, seconds, tokens sampled and tokens that carried loss; and its figures over time."""
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for row in workspace.record.metrics(run):
        by_step[row["step"]][row["name"]] = row["value"]
    acts = isinstance(stage, RolloutStageConfig)
    taken: dict[str, Any] = {"steps": 0, "seconds": 0.0, "watching": 0.0, "sampled": 0.0, "trained": 0.0, "curve": []}
    for step, values in sorted(by_step.items()):
        if step:
            taken["steps"] += 1
            taken["seconds"] += values["step_seconds" if acts else "seconds"]
            taken["watching"] += values.get("watch_seconds", 0.0)
            episodes = stage.batch_size * (1 - values.get("broken", 0.0))
            taken["sampled"] += values.get("sampled_tokens", 0.0) * episodes
            taken["trained"] += values.get("trained_tokens", 0.0)
        point = {item: values[item] for item in CURVES if item in values}
        if step or point:
            totals = {item: taken[item] for item in ("seconds", "sampled", "trained")}
            taken["curve"].append({**totals, **point})
    return taken


def _joined(curves: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Curves of stages one after the other as one."""
    points: list[dict[str, float]] = []
    for curve in curves:
        last = points[-1] if points else {}
        for point in curve:
            sums = {name: last.get(name, 0.0) + point[name] for name in ("seconds", "sampled", "trained")}
            points.append({**point, **sums})
    return points

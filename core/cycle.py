"""The steps of a cycle: collect → judge → extract → consolidate → train → evaluate → gate.

Each step reads the record, does what is missing there and writes it back under keys that name the work,
so that running it again adds nothing. `loop` strings them together; the command line also runs them singly.
"""

from collections.abc import Callable, Sequence
from itertools import chain

from tutelage import lineage
from tutelage.agents.graph import run_episodes
from tutelage.agents.seeds import stable_seed
from tutelage.config import ActConfig
from tutelage.correcting import Asker, correct
from tutelage.corrections import kept
from tutelage.designs import DESIGNED
from tutelage.environments.suite import Suite
from tutelage.errors import ConfigError
from tutelage.experience import IN_USE, Recaller
from tutelage.measures import Student
from tutelage.memory.trust import of_trajectory
from tutelage.progress import Reporter
from tutelage.results import AlarmDoc, load
from tutelage.stage_config import RolloutStageConfig, StageConfig
from tutelage.training.base import StageContext, run_stage, weights_of
from tutelage.training.tracking import track
from tutelage.types import SERVED, Policy, Split, Task, Trajectory
from tutelage.workspace import Workspace

SEEDS_PER_CYCLE = 5_000
"""Seeds of each split and family set apart for one cycle, so that no cycle sees another's tasks."""
TASKS_PER_STAGE = 1_000
"""Of these, for the rollouts of one stage."""

DEMONSTRATIONS, ORACLE, MISTAKEN, EXPLORED, UNGUARDED, GUARDED, ROLLOUTS = (
    "demonstrations",
    "oracle",
    "mistaken",
    "explored",
    "unguarded",
    "guarded",
    "rollouts",
)
EXPERIENCE_ARMS = (DEMONSTRATIONS, ORACLE, MISTAKEN, EXPLORED, ROLLOUTS, DESIGNED, SERVED)
"""Arms whose trajectories feed memory and SFT."""
PAIRED = {GUARDED: UNGUARDED}
"""Arms compared task by task: the former draws as the latter does, so they are equal until a guardrail steps in."""

LONGEST_GOLD = 1000
"""Steps of a known solution at most."""


def unhurried(act: ActConfig) -> ActConfig:
    """The same without limits that a known solution could reach."""
    return act.model_copy(update={"max_steps": LONGEST_GOLD, "stall_after": LONGEST_GOLD})


def task_block(
    workspace: Workspace, split: Split, cycle: int, start: int, count: int, suite: Suite | None = None
) -> list[Task]:
    """`count` tasks per family on average, environments and families taking turns, from this cycle's block.

    Args:
        suite: part of the workspace's environments; default: all of them.
    """
    suite = suite or workspace.suite
    if start + count > SEEDS_PER_CYCLE:
        raise ConfigError(f"a cycle has {SEEDS_PER_CYCLE} tasks per family; {start + count} are asked for")
    first, turn = max(cycle - 1, 0) * SEEDS_PER_CYCLE + start, len(suite.families)
    return suite.tasks(split, first * turn, count * turn)


def run_and_record(
    workspace: Workspace,
    tasks: Sequence[Task],
    policy: Policy,
    *,
    arm: str,
    cycle: int,
    report: Reporter,
    memory: Recaller | None = None,
) -> None:
    """Run those of `tasks` that the record has no episode of in this arm and cycle; keep each as it ends."""
    keys = {f"{cycle}/{arm}/{task.id}": task for task in tasks}
    missing = [key for key in keys if not workspace.record.has_key(key)]
    done = len(keys) - len(missing)

    def finished(index: int, trajectory: Trajectory) -> None:
        nonlocal done
        done += 1
        workspace.record.add_trajectory(trajectory, key=missing[index], cycle=cycle, arm=arm)
        report(arm, done, len(keys))

    if missing:
        run_episodes(
            [keys[key] for key in missing],
            policy,
            workspace.suite.make,
            act=unhurried(workspace.config.act) if arm == ORACLE else workspace.config.act,
            memory=memory,
            seed=stable_seed(workspace.config.seed, cycle, PAIRED.get(arm, arm)),
            on_finished=finished,
        )


def collect(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """Episodes of the train split: by the teacher, by gold replay, by the teacher with injected mistakes, and by
    the student."""
    plan, suite, taught = workspace.config.collect, workspace.suite, workspace.taught.names
    arms: dict[str, tuple[int, Sequence[str], Callable[[], Policy]]] = {
        DEMONSTRATIONS: (plan.demonstrations, taught, workspace.acting),
        ORACLE: (plan.oracle, suite.with_gold, workspace.oracle),
        MISTAKEN: (plan.mistaken, taught, workspace.clumsy_teacher),
        EXPLORED: (plan.explored, suite.names, lambda: workspace.student_policy(workspace.current_student())),
    }
    start = 0
    for arm, (count, names, policy) in arms.items():
        block = task_block(workspace, Split.TRAIN, cycle, start, count)
        tasks = [task for task in block if task.environment in names]
        start += count
        if tasks and not all(workspace.record.has_key(f"{cycle}/{arm}/{task.id}") for task in tasks):
            run_and_record(workspace, tasks, policy(), arm=arm, cycle=cycle, report=report)
    if plan.designed:
        from tutelage.annotation import annotate

        annotate(workspace, f"cycle {cycle}", plan.designed, report, cycle=cycle)
    if plan.corrected:
        correct(workspace, cycle, report, arm=EXPLORED)


def experience_trajectories(workspace: Workspace) -> list[Trajectory]:
    """All trajectories that may feed memory and weights: train split, by the arms that gather experience.

    Of designed tasks only those are among them that their filter accepted, or took for failures.
    """
    record = workspace.record
    filtered = {item for body in record.items("annotation").values() for item in body["accepted"] + body["failed"]}
    by_arm = (record.trajectories(arm=arm, split=Split.TRAIN) for arm in EXPERIENCE_ARMS)
    every = chain.from_iterable(by_arm)
    return [item for item in every if item.task.family != DESIGNED or item.id in filtered]


def accepted_trajectories(workspace: Workspace) -> list[Trajectory]:
    return [trajectory for trajectory in experience_trajectories(workspace) if trajectory.success]


def trainable_trajectories(workspace: Workspace) -> list[Trajectory]:
    """The accepted ones that no stranger had a part in: only they make training rows."""
    return [item for item in accepted_trajectories(workspace) if _trusted(workspace, item)]


def _trusted(workspace: Workspace, trajectory: Trajectory) -> bool:
    return of_trajectory(trajectory, workspace.trust) >= workspace.trust.threshold


def train(workspace: Workspace, cycle: int, report: Reporter, stages: Sequence[StageConfig] | None = None) -> None:
    """Run the stages that this cycle has no student of yet, each from the student before it.

    Raises:
        ConfigError: no environment is trusted enough to train on, or a stage needs more memory than there is.
    """
    stages = workspace.config.stages if stages is None else stages
    left_out = [name for name in workspace.suite.names if name not in workspace.trained_on.names]
    if left_out:
        report.say(f"  not trained on, for it is not trusted enough: {', '.join(left_out)}")
    student = start_of(workspace, cycle)
    left = [index for index in range(len(stages)) if workspace.record.get("stage", f"{cycle}/{index}") is None]
    if left:
        from tutelage.training.need import check

        planned = workspace.config.model_copy(update={"stages": tuple(stages)})
        check(planned, weights_of(student, workspace.folder), experience_trajectories(workspace), left)
    for index, stage in enumerate(stages):
        student = train_stage(workspace, cycle, index, stage, student, report)
        if index in left:
            track(workspace, report)


def start_of(workspace: Workspace, cycle: int) -> Student:
    """The student that a cycle trains from and is compared with: the one in use when it began, whatever came since.

    Of a cycle that noted none, for nothing is trained in it or an older version began it, the one in use now.
    """
    body = workspace.record.get("loop", str(cycle)) or {}
    return workspace.record.student(str(body["start"])) if "start" in body else workspace.current_student()


def train_stage(
    workspace: Workspace,
    cycle: int,
    index: int,
    stage: StageConfig,
    student: Student,
    report: Reporter,
    *,
    key: str = "",
) -> Student:
    """The student that a stage makes of `student`, or made of it before.

    Args:
        index: the stage's place in the cycle, which says what tasks it plays and how it is seeded.
        key: what it is called in the record; default: cycle and place.
    """
    record, name = workspace.record, stage.type
    key = key or f"{cycle}/{index}"
    made = record.get("stage", key)
    if made is not None:
        return record.student(str(made["student"]))
    number = max(known.number for known in record.students()) + 1
    report.say(f"[bold]{name}[/bold]: {student.label} → student@{number}, {stage.steps} steps")
    context = StageContext(
        record=record,
        workspace=workspace.folder,
        config=workspace.config,
        cycle=cycle,
        student=student,
        number=number,
        tasks=_rollout_tasks(workspace, cycle, index, stage),
        trajectories=trainable_trajectories(workspace),
        experiences=workspace.memory.experiences(statuses=IN_USE),
        make_environment=workspace.suite.make,
        memory=workspace.memory,
        seed=workspace.config.seed + 1000 * cycle + index,
        progress=report,
        corrections=[item for item in kept(record) if _trusted(workspace, item[0])],
        correct=Asker(workspace),
    )
    result = run_stage(stage, context)
    probes = [f"{100 * values['probe']:.0f} %" for _, values in result.metrics if "probe" in values]
    if probes:
        report.say(f"  probe: {' → '.join(probes)} of the same train tasks solved")
    for alarm in load(record, AlarmDoc, cycle):
        if alarm.student == number:
            report.say(f"  {alarm.text}")
    new = Student(
        number=number,
        stage=name,
        cycle=cycle,
        parent=student.id,
        weights=str(result.folder.relative_to(workspace.folder)),
        digest=result.digest,
        trajectories=result.trajectories,
        experiences=result.experiences,
        settings=stage.model_dump(mode="json"),
        **lineage.facts(workspace, context, result),
    )
    with record.transaction():
        record.add_student(new)
        for step, values in result.metrics:
            record.add_metrics(f"{key}-{name}", step, values)
        record.put("stage", key, {"student": new.id, "stage": name})
    return new


def _rollout_tasks(workspace: Workspace, cycle: int, index: int, stage: StageConfig) -> list[Task]:
    """Fresh train tasks for a stage that acts; each stage of a cycle has its own."""
    if not isinstance(stage, RolloutStageConfig):
        return []
    groups = stage.steps * stage.batch_size // stage.group_size
    suite = workspace.trained_on
    start = TASKS_PER_STAGE * (index + 1)
    if stage.curriculum == "paced":  # any family may be drawn every time
        return task_block(workspace, Split.TRAIN, cycle, start, min(groups, TASKS_PER_STAGE), suite)
    per_family = -(-groups // len(suite.families))
    return task_block(workspace, Split.TRAIN, cycle, start, per_family, suite)[:groups]


def cycle_students(workspace: Workspace, cycle: int, stages: int) -> list[Student]:
    """The students of a cycle: the one it began with, then one per finished stage."""
    made = [workspace.record.get("stage", f"{cycle}/{index}") for index in range(stages)]
    students = [workspace.record.student(str(item["student"])) for item in made if item is not None]
    if not students:
        return [start_of(workspace, cycle)]
    first = students[0].parent
    assert first is not None, "a trained student has a parent"
    return [workspace.record.student(first), *students]

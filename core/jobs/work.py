"""What each kind of job does. All of it goes on where a killed attempt left off, and does nothing twice."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from tutelage import loop, measure
from tutelage.annotation import annotate
from tutelage.cycle import EXPERIENCE_ARMS
from tutelage.cycle_lock import cycle_lock
from tutelage.jobs.kinds import AnnotateParams, EvaluateParams, Params, params_of, settings
from tutelage.jobs.model import Job
from tutelage.progress import Reporter
from tutelage.record import Record
from tutelage.results import GateDoc, load
from tutelage.service_config import JobKind
from tutelage.spending import accounted
from tutelage.usage import BY_CYCLE, Usage, in_all
from tutelage.workspace import Workspace

MEASURED = "measured by job"
"""Kind of the documents that keep which student a job measures, so that a promotion meanwhile changes nothing."""

Result = dict[str, Any]


def work(record: Record, folder: Path, job: Job, report: Reporter) -> Result:
    """Do a job.

    Args:
        record: that of the workspace in `folder`.

    Returns:
        What came of it, as JSON; always with ``usage``, what calls of language models it made.

    Raises:
        TutelageError: as what it does.
        Cancelled: the reporter was told to.
    """
    params = params_of(job.kind, job.params)
    config = settings(folder, params)
    mine = loop.own_cycle(record, job.id)
    if mine is not None:
        config = loop.own_settings(config, mine[1]["config"])
    with closing(Workspace(config, remember=False)) as workspace:
        return RUNNERS.get(job.kind, _cycle)(workspace, job, params, report)


def _cycle(workspace: Workspace, job: Job, params: Params, report: Reporter) -> Result:
    kind: Any = job.kind.value
    foretold = job.kind is not JobKind.CONSOLIDATE
    with accounted(workspace, report, kind) if foretold else nullcontext():
        cycle = loop.run(workspace, kind, report, job.id)
    record = workspace.record
    used = {
        key: Usage.model_validate(body)
        for key, body in record.items(BY_CYCLE).items()
        if key.partition("/")[0] == str(cycle)
    }
    result: Result = {"cycle": cycle, "usage": _told(in_all(used))}
    episodes = {arm: len(record.trajectories(arm=arm, cycle=cycle)) for arm in EXPERIENCE_ARMS}
    if counts := {arm: count for arm, count in episodes.items() if count}:
        result["episodes"] = counts
    if (extracted := record.get("extraction", str(cycle))) is not None:
        result["extraction"] = dict(extracted["funnel"])
    if made := [student.label for student in record.students() if student.cycle == cycle and student.number]:
        result["students"] = made
    for doc in load(record, GateDoc, cycle):
        result["promoted"] = doc.candidate if doc.promoted else None
        result["gate"] = f"{doc.candidate} {doc.reason}"
    return result


def _evaluate(workspace: Workspace, job: Job, params: Params, report: Reporter) -> Result:
    assert isinstance(params, EvaluateParams)
    before, policy = workspace.usage.total(), params.policy
    if policy == "student":
        workspace.record.put(MEASURED, job.id, _first(workspace, job))
        policy = _first(workspace, job)["policy"]
    suite = measure.playable(workspace, policy, workspace.suite.only(params.family), report)
    arm = measure.evaluate_policy(
        workspace,
        policy,
        suite,
        split=params.split,
        episodes=params.episodes,
        memory=params.memory,
        report=report,
        name=job.id,
    )
    return {"arm": arm.model_dump(mode="json"), "usage": _told(workspace.usage.total().minus(before))}


def _first(workspace: Workspace, job: Job) -> dict[str, str]:
    """The student that the first attempt found promoted."""
    return workspace.record.get(MEASURED, job.id) or {"policy": workspace.current_student().label}


def _annotate(workspace: Workspace, job: Job, params: Params, report: Reporter) -> Result:
    assert isinstance(params, AnnotateParams)
    before, tasks = workspace.usage.total(), params.tasks or workspace.config.annotate.tasks
    held = cycle_lock(workspace.folder, f"job {job.id}")  # what it adds would be in the middle of another's data
    with held, accounted(workspace, report, "annotate", tasks):
        found = annotate(workspace, job.id, tasks, report)
    counts = {"asked": tasks, "accepted": len(found.accepted), "failed": len(found.failed)}
    return {"run": job.id, "tasks": counts, "usage": _told(workspace.usage.total().minus(before))}


RUNNERS: dict[JobKind, Callable[[Workspace, Job, Params, Reporter], Result]] = {
    JobKind.EVALUATE: _evaluate,
    JobKind.ANNOTATE: _annotate,
}
"""All others are cycles."""


def _told(usage: Usage) -> dict[str, Any]:
    return {name: value for name, value in usage.model_dump().items() if value}

"""Measuring a judge against the programmatic checks of the workspace's environments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutelage.agents.calibration import Calibration, calibrate, calibration_episodes
from tutelage.agents.experts import covered_families, expert_names
from tutelage.agents.extraction import judge_missing
from tutelage.agents.judge import judge_label
from tutelage.environments.suite import Suite
from tutelage.measures import Rate
from tutelage.progress import Reporter
from tutelage.results import interval, percent
from tutelage.types import BROKEN, Split, Task, Trajectory, Verdict
from tutelage.workspace import Workspace

if TYPE_CHECKING:
    from rich.table import Table

CALIBRATION = "calibration"
"""Arm of the episodes, which feed nothing else, and kind of the documents: one per judge, by its label."""
FIRST = 900_000
"""Place of the first task among a family's train tasks, far from those that cycles use."""


def calibrate_judge(workspace: Workspace, model: str, episodes: int, report: Reporter) -> Calibration:
    """Measure a judge on at least `episodes` real episodes in all; the result is kept in the record.

    Episodes and verdicts that the record has already are used again, so that it goes on where it was stopped. Every
    calibration episode of the workspace's environments that this judge has seen counts, so that measuring it on a few
    later takes nothing back.

    Args:
        model: LiteLLM model string; empty for the configured judge. It votes as often as `teacher.votes` says.

    Raises:
        BudgetSpent: a limit was reached; episodes and verdicts so far are in the record.
        RecordError: the runs of the workspace are another tenant's.
    """
    workspace.record.claim()
    llm, votes = workspace.llm("judge", model), workspace.config.teacher.votes
    label, wanted = judge_label(llm, votes), _episodes(workspace, episodes, report)
    verdicts = {verdict.trajectory: verdict for verdict in workspace.record.verdicts() if verdict.judge == label}
    cases = wanted + _seen_before(workspace, verdicts, wanted)
    verdicts = {item.id: verdicts[item.id] for item in cases if item.id in verdicts}

    def keep(verdict: Verdict) -> None:
        workspace.record.add_verdict(verdict)
        report("judged for calibration", len(verdicts), len(cases))

    judge_missing(cases, verdicts, llm, keep, votes=votes)
    parts: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for item in cases:
        parts[item.task.environment].append(item)
    found = _compared(cases, verdicts, label)
    by_environment = {name: _compared(part, verdicts, label) for name, part in parts.items()}
    found = found.model_copy(update={"by_environment": by_environment})
    workspace.record.put(CALIBRATION, label, found.model_dump(mode="json"))
    return found


def calibration_table(found: Calibration) -> "Table":
    """What was measured, per environment where there are several, and overall."""
    from rich.table import Table

    columns = ("environment", "episodes", "solved", "precision", "recall", "agreement", "cannot tell", "no answer")
    table = Table(*columns, title=f"judge {found.judge}, 95 % intervals")
    several = found.by_environment if len(found.by_environment) > 1 else {}
    for name, part in {**several, " + ".join(found.by_environment): found}.items():
        rates = (_told(part.precision), _told(part.recall), _told(part.agreement))
        table.add_row(name, str(part.n), str(part.positives), *rates, str(part.cannot_tell), str(part.unanswered))
    return table


def _told(rate: Rate) -> str:
    return f"{percent(rate)} ({interval(rate)})" if rate.episodes else "–"


def _compared(cases: list[Trajectory], verdicts: dict[str, Verdict], label: str) -> Calibration:
    answered = [(verdicts[item.id], item.success) for item in cases if item.id in verdicts]
    return calibrate(answered, label, unanswered=len(cases) - len(answered))


def _episodes(workspace: Workspace, count: int, report: Reporter) -> list[Trajectory]:
    """Episodes of the environments with a scripted expert, which take turns; none broke."""
    record, tasks = workspace.record, {_key(task): task for task in _tasks(workspace.suite, count)}
    if not tasks:
        report.say(f"  none of {', '.join(workspace.suite.names)} has a scripted expert to measure a judge with")
    known = {task.id for key, task in tasks.items() if record.has_key(key)}
    done = len(known)

    def finished(trajectory: Trajectory) -> None:
        nonlocal done
        done += 1
        record.add_trajectory(trajectory, key=_key(trajectory.task), cycle=0, arm=CALIBRATION)
        report("episodes for calibration", done, len(tasks))

    calibration_episodes(
        list(tasks.values()),
        workspace.suite.make,
        act=workspace.config.act,
        seed=workspace.config.seed,
        on_finished=finished,
        known=frozenset(known),
    )
    found = (record.trajectory_by_key(key) for key in tasks)
    return [item for item in found if item is not None and item.ending not in BROKEN]


def _seen_before(
    workspace: Workspace, verdicts: Mapping[str, Verdict], wanted: Sequence[Trajectory]
) -> list[Trajectory]:
    """Further calibration episodes with a verdict, of the environments that the workspace has now."""
    names, ids = workspace.suite.names, {item.id for item in wanted}
    found = workspace.record.trajectories(arm=CALIBRATION)
    return [item for item in found if item.id in verdicts and item.id not in ids and item.task.environment in names]


def _tasks(suite: Suite, count: int) -> list[Task]:
    """Train tasks that the expert covers: environments take turns, and so do the families of each."""
    able = (part for part in suite.parts if part.name in expert_names())
    covered = ((part, [name for name in part.families if name in covered_families(part.name)]) for part in able)
    parts = [(part.environment, families) for part, families in covered if families]
    found = []
    for place in range(count if parts else 0):
        turn, which = divmod(place, len(parts))
        environment, families = parts[which]
        start, family = divmod(turn, len(families))
        found += environment.tasks(Split.TRAIN, [families[family]], start=FIRST + start)
    return found


def _key(task: Task) -> str:
    return f"0/{CALIBRATION}/{task.id}"

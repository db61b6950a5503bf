"""Training figures and results for trackio or Weights & Biases, if the settings name one.

The record keeps every figure first; what stands here is a copy for those who like to look at curves there. Each
training stage is one run, each cycle's results are another; what has been handed over is noted in the record, so a
killed command goes on where it was. Both keep everything on this machine unless their own environment variables say
otherwise (``WANDB_MODE=online``, ``TRACKIO_SPACE_ID``, ``TRACKIO_SERVER_URL``).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tutelage.config import Config, TrackingConfig
from tutelage.errors import MissingPart
from tutelage.results import EvaluationDoc, GateDoc, load

if TYPE_CHECKING:
    from tutelage.progress import Reporter
    from tutelage.record import Record
    from tutelage.workspace import Workspace

TRACKED = "tracked"
"""Kind of the record's documents that say what was handed over."""
INSTALL = {"wandb": "pip install 'tutelage[track]'", "trackio": "pip install trackio"}


@dataclass(frozen=True)
class Run:
    """What a tracker shows as one run."""

    name: str
    """E.g. ``1/0-sft`` for the first stage of cycle 1, or ``1/results``."""
    config: dict[str, Any]
    figures: Sequence[tuple[int, dict[str, float]]]
    """Optimiser step (of results: the cycle) and its figures, in order."""


def check(config: TrackingConfig) -> None:
    """See that the tracker is there.

    Raises:
        MissingPart: it is not installed.
    """
    if config.to != "none" and find_spec(config.to) is None:
        raise MissingPart(f'tracking.to = "{config.to}" needs it installed: {INSTALL[config.to]}')


def track(workspace: "Workspace", report: "Reporter") -> None:
    """Hand over what is new; a tracker that fails costs a line of warning and nothing else.

    Raises:
        MissingPart: the tracker is not installed.
    """
    config = workspace.config
    if config.tracking.to == "none":
        return
    check(config.tracking)
    for run in untracked(workspace.record, config):
        try:
            publish(run, config.tracking, workspace.folder)
        except Exception as error:  # it is another program's, and the figures are safe in the record
            text = " ".join(str(error).split())[:200]
            why = escape(f"{type(error).__name__}: {text}")
            report.say(f"  [yellow]{config.tracking.to} did not take {run.name}: {why}[/yellow]")
            return
        workspace.record.put(TRACKED, f"{config.tracking.to}/{run.name}", {"steps": len(run.figures)})


def untracked(record: "Record", config: Config) -> Iterator[Run]:
    """Runs of which the tracker has not got all figures, oldest first."""
    done = {key: body["steps"] for key, body in record.items(TRACKED).items()}
    for run in runs(record, config):
        if done.get(f"{config.tracking.to}/{run.name}") != len(run.figures):
            yield run


def runs(record: "Record", config: Config) -> list[Run]:
    """All runs of a record: training stages in order of insertion, then results by cycle."""
    steps: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in record.metrics():
        steps[row["run"]][row["step"]][row["name"]] = row["value"]
    students = {student.id: student for student in record.students()}
    made = {f"{key}-{body['stage']}": students.get(str(body["student"])) for key, body in record.items("stage").items()}
    found = []
    for name, figures in steps.items():
        student = made.get(name)
        about = {"student": student.label, "parent": student.parent, **student.settings} if student else {}
        found.append(Run(name, {"seed": config.seed, **about}, sorted(figures.items())))
    return [*found, *_results(record, config)]


def _results(record: "Record", config: Config) -> Iterator[Run]:
    """One run per cycle that is decided, with one step: the rates of each arm, and whether a student was promoted."""
    for gate in load(record, GateDoc):
        values = {"promoted": float(gate.promoted)}
        for arm in load(record, EvaluationDoc, gate.cycle):
            values |= {f"{arm.name}/{bound}": getattr(arm.rate, bound) for bound in ("rate", "low", "high")}
        about = {"seed": config.seed, "candidate": gate.candidate, "reason": gate.reason}
        yield Run(f"{gate.cycle}/results", about, [(gate.cycle, values)])


def publish(run: Run, config: TrackingConfig, folder: Path) -> None:
    """Hand one run over, whole; handed over again after a kill, it goes on in the run of that name.

    Args:
        folder: the workspace; W&B's files go there, trackio's where it keeps all its projects (``TRACKIO_DIR``).
    """
    name = f"{folder.resolve().name}/{run.name}"
    if config.to == "wandb":
        _wandb(run, config.project, name, folder)
    else:
        _trackio(run, config.project, name)


def _wandb(run: Run, project: str, name: str, folder: Path) -> None:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported; it reports to its makers
    import wandb

    quiet: Any = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    opened = wandb.init(
        project=project,
        name=name,
        group=folder.resolve().name,
        id=hashlib.sha256(f"{folder.resolve()}/{run.name}".encode()).hexdigest()[:16],
        config=run.config,
        dir=str(folder),
        mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
        settings=quiet,
    )
    try:
        for step, values in run.figures:
            opened.log(values, step=step)
    finally:
        opened.finish()


def _trackio(run: Run, project: str, name: str) -> None:
    with redirect_stdout(StringIO()):  # it prints, and what commands print may be read by programs
        import trackio

        opened = trackio.init(
            project=project,
            name=name,
            config=run.config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        try:
            for step, values in run.figures:
                opened.log(values, step=step)
        finally:
            trackio.finish()

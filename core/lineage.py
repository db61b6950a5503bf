"""Where a student comes from: what is noted of it when it is made, and what the record tells about it since."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage import __version__
from tutelage.config import Config
from tutelage.cycle_settings import as_learnt
from tutelage.measures import Student, address
from tutelage.results import EvaluationDoc, GateDoc, load
from tutelage.types import Trajectory

if TYPE_CHECKING:
    from tutelage.record import Record
    from tutelage.training.base import StageContext, StageResult
    from tutelage.workspace import Workspace

SHAPING = ("method", "lora_rank", "lora_alpha", "dtype", "quantize", "max_length")
"""Settings of ``student`` that shape weights; the others say how replies are generated."""


def facts(workspace: "Workspace", context: "StageContext", result: "StageResult") -> dict[str, Any]:
    """What is noted of the student that a stage has made, as fields of `Student`; write-protects its files."""
    from tutelage.training import content

    known = {item.id: item for item in context.trajectories}
    trained_on = (known.get(item) or workspace.record.trajectory(item) for item in result.trajectories)
    return {
        "files": content.seal(result.folder),
        **_base(workspace, context.student),
        "data": data_digest(trained_on),
        "config": config_digest(context.config),
        "trained_as": context.config.student.model_dump(mode="json", include=set(SHAPING)),
        "seed": context.seed,
        "version": __version__,
        "commit": commit(),
    }


def _base(workspace: "Workspace", parent: Student) -> dict[str, str]:
    """Name and content of the weights that the line began with."""
    from tutelage.training import content, weights
    from tutelage.training.base import weights_of

    if parent.base_content:
        return {"base": parent.base, "base_content": parent.base_content}
    base = line(workspace.record, parent)[0]
    folder = weights.ensure(weights_of(base, workspace.folder))
    return {"base": base.weights, "base_content": address(content.digests(folder))}


def data_digest(trajectories: Iterable[Trajectory]) -> str:
    """SHA-256 over what happened in these episodes, in no order; ids and times are no part of it. Empty for none."""
    each = sorted(hashlib.sha256(json.dumps(_happened(item)).encode()).hexdigest() for item in trajectories)
    return hashlib.sha256("".join(each).encode()).hexdigest() if each else ""


def _happened(item: Trajectory) -> list[Any]:
    steps = [[step.observation, step.thought, step.action] for step in item.steps]
    return [item.task.id, item.policy, item.goal, item.success, [shown.text for shown in item.shown], steps]


def config_digest(config: Config) -> str:
    """SHA-256 over the settings, but for those that an unfinished cycle may change."""
    return hashlib.sha256(json.dumps(as_learnt(config), sort_keys=True).encode()).hexdigest()


@cache
def commit() -> str:
    """The commit of Tutelage's source tree, if it runs from one; with ``+`` if files of it have been changed since."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if head and changed else head


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a tree on a disk that does not answer
        return ""
    return done.stdout.strip()


# -- what the record tells ------------------------------------------------------------------------


def line(record: "Record", student: Student) -> list[Student]:
    """The student and all that it was trained from, the first one first."""
    known = {item.id: item for item in record.students()}
    found = [student]
    while (parent := known.get(found[-1].parent or "")) is not None and parent not in found:
        found.append(parent)
    return found[::-1]


def children(record: "Record", student: Student) -> list[Student]:
    """Those that were trained from it."""
    return [item for item in record.students() if item.parent == student.id]


def evaluations(record: "Record", student: Student) -> list[EvaluationDoc]:
    """Every arm it was measured in, oldest first."""
    return [doc for doc in load(record, EvaluationDoc) if doc.student == student.label]


def gates(record: "Record", student: Student) -> list[GateDoc]:
    """The decisions on it."""
    return [doc for doc in load(record, GateDoc) if doc.candidate == student.label]


def promotions(record: "Record", student: Student) -> list[dict[str, Any]]:
    """When it came into use and why, oldest first."""
    return [item for item in record.promotions() if item["student"] == student.id]


def trained_on(record: "Record", students: Sequence[Student]) -> Iterator[Trajectory]:
    """The trajectories that these were trained on, each once, as far as the record still has them."""
    for name in dict.fromkeys(item for student in students for item in student.trajectories):
        if record.has_trajectory(name):
            yield record.trajectory(name)

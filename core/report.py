"""The report: one self-contained HTML page about everything a workspace's record holds.

The page loads nothing, neither from the network nor from disk, and its content security policy keeps it
so. All text from pages and models is escaped by the template engine.
"""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage import __version__, plots, results
from tutelage.absorption import MEASUREMENT, restorations
from tutelage.experience import Experience, Kind
from tutelage.measures import Measurement, Student
from tutelage.results import AlarmDoc, ComparisonDoc, CycleDoc, EvaluationDoc, GateDoc
from tutelage.types import Split, Trajectory, now

if TYPE_CHECKING:
    from tutelage.record import Record

MOST_TRAJECTORIES = 60
MOST_EXPERIENCES = 30
"""Of each kind."""
MOST_CURVES = 6
"""Of each training run."""
CURVES = ("probe", "loss", "reward", "success", "accuracy", "kl", "entropy", "length", "invalid", "grad")
"""Metrics whose names contain one of these are drawn first, in this order."""


def write_report(record: "Record", path: Path) -> Path:
    """Write the page and return where it is."""
    from jinja2 import Environment, StrictUndefined

    templates = files("tutelage") / "templates"
    script = (templates / "report.js").read_text()
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters |= {"percent": results.percent, "interval": results.interval, "points": results.points}
    template = engine.from_string((templates / "report.html.j2").read_text())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (templates / "report.css").read_text()
    page = template.render(**_view(record), script=script, script_digest=digest, style=style)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _view(record: "Record") -> dict[str, Any]:
    """Everything the template shows."""
    whose = record.tenant or record.runs_of()
    trajectories = record.trajectories(tenant=whose)
    experiences = record.experiences(tenant=whose)
    shown = list(chain.from_iterable(_first_of_each_kind(experiences)))
    chosen = choose(trajectories, shown)
    cycles = [_cycle(record, number) for number in reversed(results.cycles(record))]
    students = record.students()
    return {
        "version": __version__,
        "created": now(),
        "name": record.name,
        "summary": summary(cycles),
        "cycles": cycles,
        "latest": cycles[0] if cycles else None,
        "labels": _labels(students, trajectories),
        "runs": _runs(record),
        "alarms": results.load(record, AlarmDoc),
        "experiences": shown,
        "experience_ids": {item.id for item in shown},
        "experience_counts": Counter(f"{item.status} {item.kind}" for item in experiences),
        "experiences_in_all": len(experiences),
        "trajectories": chosen,
        "trajectory_ids": {item.id for item in chosen},
        "trajectories_in_all": len(trajectories),
        "blocked": sum(step.blocked_by is not None for item in trajectories for step in item.steps),
        "verdicts": {verdict.trajectory: verdict for verdict in record.verdicts()},
        "students": students,
        "student_labels": {student.id: student.label for student in students},
        "promoted": record.promoted(),
        "promotions": record.promotions(),
        "usage": record.items("usage"),
        "memory": _memory(record),
    }


def choose(
    trajectories: Sequence[Trajectory], experiences: Iterable[Experience], limit: int = MOST_TRAJECTORIES
) -> list[Trajectory]:
    """Which trajectories the page embeds, in the order of the record.

    A third goes to those in which a guardrail blocked something, a third to those that the shown experiences
    come from; the rest is spread over policies, memory, splits, families and outcomes, the newest first.
    """
    by_id = {item.id: item for item in trajectories}
    blocked = [item.id for item in reversed(trajectories) if any(step.blocked_by for step in item.steps)]
    sources = [source.trajectory for item in experiences for source in item.sources if source.trajectory in by_id]
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for item in reversed(trajectories):
        groups[item.policy, item.memory, item.task.split, item.task.kind, item.success].append(item.id)
    spread = [name for turn in zip_longest(*groups.values()) for name in turn if name is not None]
    picked = dict.fromkeys([*blocked[: limit // 3], *list(dict.fromkeys(sources))[: limit // 3]])
    picked |= dict.fromkeys(name for name in spread if name not in picked)
    keep = set(list(picked)[:limit])
    return [item for item in trajectories if item.id in keep]


def summary(cycles: Sequence[dict[str, Any]]) -> str:
    """The newest measured cycle in a sentence or two."""
    for cycle in cycles:
        if cycle["ends"] is None:
            continue
        first, last = cycle["ends"]
        text = (
            f"In cycle {cycle['number']} the student went from {_of(first)} to {_of(last)} on held-out validation "
            "tasks, without memory."
        )
        gains = [item for item in cycle["comparisons"] if (item.old, item.new) == (first.name, last.name)]
        if gains:
            text += f" Paired gain in points: {results.points(gains[0])}."
        if cycle["gate"]:
            text += f" {cycle['gate'].candidate} was {'' if cycle['gate'].promoted else 'not '}promoted."
        return text
    return "Nothing has been compared yet."


def _ends(evaluations: Sequence[EvaluationDoc]) -> tuple[EvaluationDoc, EvaluationDoc] | None:
    """The first and the last student's arms that count most: validation, memory off."""
    arms = [item for item in evaluations if not item.memory and item.split is Split.VALIDATION]
    return (arms[0], arms[-1]) if len(arms) > 1 else None


def _of(doc: EvaluationDoc) -> str:
    return f"{results.percent(doc.rate)} ({doc.rate.successes} of {doc.rate.episodes})"


def _cycle(record: "Record", number: int) -> dict[str, Any]:
    evaluations = results.load(record, EvaluationDoc, number)
    comparisons = results.load(record, ComparisonDoc, number)
    gates = results.load(record, GateDoc, number)
    docs = results.load(record, CycleDoc, number)
    families = sorted({family for item in evaluations for family in results.rates(item)})
    return {
        "number": number,
        "doc": docs[-1] if docs else None,
        "rows": [
            {
                "doc": item,
                "rates": results.rates(item),
                "gains": [
                    {"doc": found, "versus": results.heading(evaluations, found.old)}
                    for found in comparisons
                    if found.new == item.name
                ],
            }
            for item in evaluations
        ],
        "comparisons": comparisons,
        "gate": gates[-1] if gates else None,
        "ends": _ends(evaluations),
        "families": families,
        "success_chart": _success_chart(evaluations),
        "gain_chart": _gain_chart(evaluations, comparisons),
    }


def _memory(record: "Record") -> dict[str, Any] | None:
    """What memory does to success, what of it the weights hold, and what came back; None before a measurement."""
    done = [Measurement.model_validate(body) for body in record.items(MEASUREMENT).values()]
    done = [item for item in done if item.finished]
    if not done:
        return None
    newest = done[-1]
    measured = next((item for item in reversed(done) if item.effects), newest)
    return {
        "measured": measured,
        "student": record.student(measured.student).label,
        "families": [item for item in measured.effects if not item.experience],
        "singly": [item for item in measured.effects if item.experience],
        "moves": [move for item in reversed(done) for move in item.moves],
        "restorations": restorations(record),
        "unmeasured": newest.unmeasured,
        "holdings": newest.holdings,
    }


def _success_chart(evaluations: Sequence[EvaluationDoc]) -> str:
    bars = [
        plots.Bar(
            label=_arm_label(item),
            value=100 * item.rate.rate,
            low=100 * item.rate.low,
            high=100 * item.rate.high,
            group="on" if item.memory else "off",
        )
        for item in evaluations
        if item.rate.episodes
    ]
    return plots.intervals(bars, low=0, high=100, unit=" %", name="Success per arm") if bars else ""


def _gain_chart(evaluations: Sequence[EvaluationDoc], comparisons: Sequence[ComparisonDoc]) -> str:
    bars = [
        plots.Bar(
            label=f"{results.heading(evaluations, item.new)} vs {results.heading(evaluations, item.old)}",
            value=100 * item.gain,
            low=100 * item.low,
            high=100 * item.high,
        )
        for item in comparisons
        if item.pairs
    ]
    low = -100 if any(bar.low < -25 for bar in bars) else -25
    return plots.intervals(bars, low=low, high=100, unit="", name="Paired gains") if bars else ""


def _arm_label(item: EvaluationDoc) -> str:
    parts = [item.label, "memory on" if item.memory else "", "test" if item.split is Split.TEST else ""]
    return ", ".join(part for part in parts if part)


def _labels(students: Sequence[Student], trajectories: Sequence[Trajectory]) -> list[str]:
    """What a reader must know to judge the numbers: which policies are scripted, which models are random."""
    notes = []
    scripted = sorted({item.policy for item in trajectories if "(scripted" in item.policy})
    if scripted:
        notes.append(f"Scripted demonstrators, not models: {', '.join(scripted)}.")
    if any(item.policy.startswith("oracle") for item in trajectories):
        notes.append(
            "An oracle that replays known solutions is among the demonstrators; it sees more than a model would."
        )
    if any(student.weights == "tiny" for student in students):
        notes.append(
            "The student is tiny: a random two-layer model that was never pretrained. It shows that the parts work "
            "together, not how good a student becomes."
        )
    if any(item.task.environment == "toy" for item in trajectories):
        notes.append("The environment is toy: a small text game, without a browser.")
    return notes


def _runs(record: "Record") -> list[dict[str, Any]]:
    """Learning curves of each training run."""
    runs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in record.metrics():
        runs[row["run"]][row["name"]].append((row["step"], row["value"]))
    views = []
    for run, series in runs.items():
        names = sorted((name for name, points in series.items() if len(points) > 1), key=_curve_rank)
        charts = [plots.curve(sorted(series[name]), name) for name in names[:MOST_CURVES]]
        views.append({"name": run, "charts": charts, "others": names[MOST_CURVES:]})
    return views


def _curve_rank(name: str) -> tuple[int, str]:
    return next((rank for rank, part in enumerate(CURVES) if part in name.lower()), len(CURVES)), name


def _first_of_each_kind(experiences: Sequence[Experience]) -> list[list[Experience]]:
    """The experiences to show: active ones first, then the newest, of each kind."""
    kinds: tuple[Kind, ...] = ("guardrail", "skill", "sticker")
    ranked = sorted(experiences, key=lambda item: item.status != "active")
    return [[item for item in ranked if item.kind == kind][:MOST_EXPERIENCES] for kind in kinds]

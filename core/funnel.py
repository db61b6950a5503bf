"""What becomes of designed tasks: designed → valid → annotated → judged → accepted, with every loss counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutelage.designs import Design
from tutelage.types import BROKEN, Frozen, Trajectory, Verdict

if TYPE_CHECKING:
    from rich.table import Table

ACCEPTED = "accepted"
UNFIT = "the judge is not fit to filter"


class Funnel(Frozen):
    """How many tasks there were at each point, and why the others were lost on the way to the next one."""

    counts: tuple[tuple[str, int], ...]
    losses: tuple[tuple[str, str, int], ...]
    """(point, reason, how many)."""
    accepted: tuple[str, ...]
    """Ids of the accepted trajectories."""
    failed: tuple[str, ...] = ()
    """Ids of the trajectories that may be learned from as failures: their check was no model's, or a fit judge agrees
    with it."""
    outcomes: dict[str, str] = {}
    """What became of each task that was played, by its id: ``accepted``, or why not."""
    cycle: int = 0
    """The cycle that it was part of; 0: by hand."""


def funnel(
    *,
    asked: Mapping[str, int],
    designs: Sequence[Design],
    drawn: int,
    lost: Sequence[str],
    episodes: Sequence[Trajectory],
    verdicts: Mapping[str, Verdict],
    fit: bool,
    cycle: int,
) -> Funnel:
    """Filter the episodes, and count.

    Args:
        asked: how many tasks were wanted per environment.
        drawn: tasks that were drawn, where goals cannot be designed.
        lost: why something that was designed became no task, once for each.
        fit: whether the judge may filter.
    """
    losses = Counter(("designed", reason) for reason in lost)
    made = Counter(design.task.environment for design in designs)
    spare = sum(max(0, count - asked[name]) for name, count in made.items())
    by_task = {design.task.id: design for design in designs}
    accepted, failed, outcomes = [], [], {}
    for item in episodes:
        verdict, design = verdicts.get(item.id), by_task.get(item.task.id)
        judged = verdict is not None and item.ending not in BROKEN
        reason = refusal(item, verdict, design, fit=fit)
        outcomes[item.task.id] = reason or ACCEPTED
        if reason:
            losses["judged" if judged else "annotated", reason] += 1
        else:
            accepted.append(item.id)
        if judged and not item.success and (_by_rule(design) or (fit and verdict and not verdict.successful)):
            failed.append(item.id)
    if spare:
        losses["valid", "more than asked for"] = spare
    valid = len(designs) + drawn
    unplayed = valid - spare - len(episodes)
    if unplayed > 0:
        losses["valid", "not played yet"] = unplayed
    counts = {
        "asked": sum(asked.values()),
        "designed": valid + len(lost),
        "valid": valid,
        "annotated": len(episodes),
        "judged": sum(item.id in verdicts for item in episodes if item.ending not in BROKEN),
        "accepted": len(accepted),
    }
    return Funnel(
        counts=tuple(counts.items()),
        losses=tuple((*key, count) for key, count in losses.most_common()),
        accepted=tuple(accepted),
        failed=tuple(failed),
        outcomes=outcomes,
        cycle=cycle,
    )


def refusal(item: Trajectory, verdict: Verdict | None, design: Design | None, *, fit: bool) -> str:
    """Why an episode is not accepted; empty if it is.

    The environment's check must hold, and there must be a verdict. Where a model wrote the check, a fit judge must
    agree with it.
    """
    if item.ending in BROKEN:
        return item.ending.value.replace("_", " ")
    if verdict is None:
        return "not judged"
    if not item.success:
        return item.ending.value.replace("_", " ")
    if not any(step.diagnosis.fine for step in item.steps):
        return "no action that did anything"
    if _by_rule(design):
        return ""
    if not fit:
        return UNFIT
    return "" if verdict.successful else "the judge is not convinced"


def _by_rule(design: Design | None) -> bool:
    """Whether no model had a hand in the check; a task that was drawn has no design."""
    return design is None or design.by_rule


def funnel_table(found: Funnel) -> "Table":
    """One line per point, with what was lost on the way to the next."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("point")
    table.add_column("tasks", justify="right")
    table.add_column("lost on the way to the next")
    for point, count in found.counts:
        reasons = [f"{number} {reason}" for at, reason, number in found.losses if at == point]
        table.add_row(point, str(count), "; ".join(reasons))
    return table

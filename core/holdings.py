"""How much of the used memory a student's weights hold, and how many prompt tokens that saves."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tutelage.absorption import harmful
from tutelage.errors import TutelageError
from tutelage.evaluate import MEASURING
from tutelage.experience import IN_USE, Experience, Status
from tutelage.measures import FamilyHoldings, Holdings
from tutelage.types import Trajectory

if TYPE_CHECKING:
    from tutelage.workspace import Workspace

CHARACTERS = 4
"""Of a token, where there is no tokenizer to ask."""
USED = (*IN_USE, Status.ABSORBED)


def holdings(workspace: "Workspace", measured: Sequence[Trajectory]) -> Holdings:
    """What the student in use holds.

    Args:
        measured: episodes with memory on that showed the absorbed ones too; how many prompt tokens experiences cost
            is taken from them.
    """
    student, uses = workspace.current_student(), workspace.record.uses()
    items = {item.id: item for item in workspace.memory.experiences(statuses=USED) if item.kind != "guardrail"}
    used = [item for item in items.values() if item.id in uses and uses[item.id].shown]
    held = [item for item in used if item.status is Status.ABSORBED]
    name, count = _counter(workspace)
    absorbed = {item.id for item in items.values() if item.status is Status.ABSORBED}
    by_family: dict[str, list[Experience]] = defaultdict(list)
    for item in used:
        by_family[f"{item.environment}/{item.family}"].append(item)
    episodes, saved = _saved(workspace, [items[key] for key in absorbed], count)
    return Holdings(
        student=student.label,
        tokenizer=name,
        used=len(used),
        held=len(held),
        shown=sum(uses[item.id].shown for item in used),
        held_shown=sum(uses[item.id].shown for item in held),
        harmful=len(harmful(workspace.memory.experiences(statuses={Status.RETIRED}))),
        families={
            family: _family(mine, [item for item in measured if item.task.kind == family], absorbed, count)
            for family, mine in by_family.items()
        },
        episodes=episodes,
        tokens_saved=saved,
    )


def _family(
    used: Sequence[Experience], measured: Sequence[Trajectory], absorbed: set[str], count: Callable[[list[str]], int]
) -> FamilyHoldings:
    everything = [count([shown.text for shown in item.shown]) for item in measured]
    now = [count([shown.text for shown in item.shown if shown.id not in absorbed]) for item in measured]
    return FamilyHoldings(
        used=len(used),
        held=sum(item.status is Status.ABSORBED for item in used),
        episodes=len(measured),
        tokens_all=round(sum(everything) / len(measured), 1) if measured else 0.0,
        tokens_now=round(sum(now) / len(measured), 1) if measured else 0.0,
    )


def _saved(
    workspace: "Workspace", absorbed: Sequence[Experience], count: Callable[[list[str]], int]
) -> tuple[int, int]:
    """Episodes with memory on since something was absorbed, and the prompt tokens that they were spared."""
    since = {item.id: _absorbed_at(workspace.memory.history(item.id)) for item in absorbed}
    if not since:
        return 0, 0
    first, recaller = min(since.values()), workspace.memory.recaller(absorbed=True)
    measuring = {item.id for arm in MEASURING for item in workspace.record.trajectories(arm=arm)}
    later = [
        item
        for item in workspace.record.trajectories()
        if item.memory and item.steps and item.created > first and item.id not in measuring
    ]
    saved = 0
    for item in later:
        shown = {each.id for each in item.shown}
        texts = [each.text for each in item.shown]
        left_out = [
            each.text
            for each in recaller.recall(item.task, item.goal, item.first_observation).shown
            if each.id in since and since[each.id] < item.created and each.id not in shown
        ]
        saved += count(texts + left_out) - count(texts)
    return len(later), saved


def _absorbed_at(history: Sequence[Experience]) -> datetime:
    """When the present absorption began."""
    last_in_use = max((place for place, item in enumerate(history) if item.status is not Status.ABSORBED), default=-1)
    return history[last_in_use + 1].created


def _counter(workspace: "Workspace") -> tuple[str, Callable[[list[str]], int]]:
    """The name of the student's tokenizer, and how many tokens these lines are in its prompt."""
    from tutelage.training.base import weights_of
    from tutelage.training.weights import load_tokenizer

    student = workspace.current_student()
    try:
        tokenizer = load_tokenizer(weights_of(student, workspace.folder))
    except TutelageError:
        return "", lambda texts: len(_block(texts)) // CHARACTERS
    return student.label, lambda texts: len(tokenizer.encode(_block(texts), add_special_tokens=False))


def _block(texts: Sequence[str]) -> str:
    """As it stands in the first message of an episode."""
    return "Experience:\n" + "".join(f"- {text}\n" for text in texts) if texts else ""

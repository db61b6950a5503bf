"""Experiences leave the student's prompt while it trains: all of them, then half, then none.

After SKILL0 (2604.02268): skills begin in the prompt and are withdrawn in three phases of equal length; those whose
measured Δ (success with minus without) is not positive go at once, and of the others the most useful ones stay longest.
Departures:

* SKILL0 measures Δ per task type at each validation and withdraws whole files of skills. Here Δ is what evidence
  measured of each experience (`tutelage.evidence`) before the stage, and single experiences are withdrawn; held-out
  episodes decide nothing.
* Where Δ was not measured, an experience ranks behind those that are known to help, and families take turns, so that no
  family loses all of its own first. SKILL0 has no such case.
* SKILL0 drops Δ < 0, we drop Δ ≤ 0: what changes nothing need not be taught to do without. Δ is a point estimate, and
  decides nothing about memory itself.
* The place that a withdrawn experience leaves in the prompt stays empty; SKILL0 fills its budget again.
* Only some of a group's episodes are shown experiences at all (`with_memory`); in SKILL0 all are.

Guardrails are not enforced in training rollouts. A stopped action changes what happens next and what the student is
told, and the reward would praise or blame it for a choice that code made.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tutelage.absorption import MEASUREMENT
from tutelage.experience import Experience, Recall, Recaller
from tutelage.measures import Measurement
from tutelage.types import Task

if TYPE_CHECKING:
    from tutelage.record import Record

PHASES = (1.0, 0.5, 0.0)
"""Share of the experiences that is shown in each third of a stage."""


def phase(batch: int, batches: int) -> float:
    """Share of the experiences that batch number `batch` (from 0) of a stage may show."""
    return PHASES[min(len(PHASES) * batch // batches, len(PHASES) - 1)]


def measured_gains(record: "Record", experiences: Iterable[Experience]) -> dict[str, float]:
    """Δ of each experience that has been measured, by id: success with it minus without, from the newest measurement.

    What an experience did alone says more about it than what it did among others. One whose status rests on numbers
    from elsewhere (an import) has those.
    """
    gains = {
        item.id: float(item.change.numbers["gain"])
        for item in experiences
        if isinstance(item.change.numbers.get("gain"), int | float)
    }
    for body in record.items(MEASUREMENT).values():  # oldest first
        effects = [item for item in Measurement.model_validate(body).effects if item.difference.pairs]
        for effect in sorted(effects, key=lambda item: item.alone):
            if effect.experience:
                gains[effect.experience] = effect.difference.gain
    return gains


def ranking(experiences: Sequence[Experience], gains: Mapping[str, float]) -> list[str]:
    """Ids of the stickers and skills that may be shown, the last to go first.

    Known to help, by how much; then unmeasured ones, the families in turn, oldest first. Others are left out.
    """
    texts = [item for item in experiences if item.kind != "guardrail"]
    helping = [item.id for item in texts if gains.get(item.id, 0.0) > 0]
    unmeasured = [item for item in texts if item.id not in gains]
    of_family: Counter[str] = Counter()
    turn: dict[str, int] = {}
    for item in unmeasured:
        family = f"{item.environment}/{item.family}"
        turn[item.id] = of_family[family]
        of_family[family] += 1
    return [
        *sorted(helping, key=lambda key: -gains[key]),
        *(item.id for item in sorted(unmeasured, key=lambda item: turn[item.id])),
    ]


class Shrinking:
    """Memory of which only the first of a ranking are still shown, and whose guardrails are not enforced.

    Args:
        kept: ids that may be shown; None means all.
    """

    def __init__(self, memory: Recaller, kept: Iterable[str] | None = None) -> None:
        self._memory, self._kept = memory, None if kept is None else frozenset(kept)

    def recall(self, task: Task, goal: str, observation: str) -> Recall:
        shown = self._memory.recall(task, goal, observation).shown
        return Recall(shown=tuple(item for item in shown if self._kept is None or item.id in self._kept))


def memory_at(memory: Recaller, ranked: Sequence[str] | None, batch: int, batches: int) -> Shrinking | None:
    """What episodes with memory are shown in batch `batch`; None: nothing any more.

    Args:
        ranked: from `ranking`; None where nothing is withdrawn.
    """
    if ranked is None:
        return Shrinking(memory)
    share = phase(batch, batches)
    kept = ranked[: -int(-share * len(ranked) // 1)]  # rounded up, so that a lone one is kept a phase longer
    return Shrinking(memory, kept) if kept else None

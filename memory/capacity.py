"""Which experiences go when there are more in use than the memory shall hold."""

from collections.abc import Mapping, Sequence

from tutelage.experience import Experience, Status
from tutelage.record_experiences import Uses

NEVER = Uses(0, 0, 0)
STOPPED = "mistakes stopped"
"""Entry of `Change.numbers` where a guardrail was replayed."""


def least_useful(items: Sequence[Experience], uses: Mapping[str, Uses], count: int) -> list[Experience]:
    """The `count` experiences of `items` (oldest first) to retire, least useful first.

    What was never shown goes first, the oldest before the newer; then what was shown, by `utility`. Active guardrails
    that stop a recorded mistake act without being shown; they go last of all.
    """

    def worth(item: Experience) -> tuple[bool, bool, float]:
        used = uses.get(item.id, NEVER)
        shown = used.sound > 0
        return protects(item), shown, utility(used) if shown else 0.0

    return sorted(items, key=worth)[: max(count, 0)]


def utility(used: Uses) -> float:
    """Share of the episodes with it that were solved, after Laplace: (solved + 1) / (sound + 2) (EvolveR, 2510.16079).

    Only sound episodes of train tasks count in which it really stood in the prompt. It says how episodes with it
    ended, not that they ended so because of it.
    """
    return (used.solved + 1) / (used.sound + 2)


def protects(item: Experience) -> bool:
    """Whether it is an active guardrail; those are only active if they stop mistakes, or a hand made them so."""
    active = item.kind == "guardrail" and item.status is Status.ACTIVE
    return active and float(item.change.numbers.get(STOPPED, 1)) > 0

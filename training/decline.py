"""Whether a student still does what it did: success over its newest batches, against its best batches in a row.

Batches are a few tasks of families that take turns, so only windows are compared that cover the families, and the
intervals of both rates (Wilson, 95 %) have to lie apart. They count tasks, not episodes: those of one task go together.
The newer window grows until it is clear or reaches back to the best one, as a weak student's success can only be missed
in many batches. Ours; in simulated healthy runs (30 batches of 2 or 4 tasks, 4 to 9 families of very different success,
drawn at random) at most one in fifty lost more than half of its success by this measure, and of those whose families
took turns none; a student of 25 % that solves nothing more (4 tasks a batch) is noticed after about 8 batches.
"""

from collections.abc import Mapping
from typing import Any

from tutelage.stats import rate

BATCHES = 4
"""Fewest batches of a window."""


class Decline:
    """Remembers the success of a stage's batches.

    Args:
        window: batches that are compared at least.
    """

    def __init__(self, window: int = BATCHES) -> None:
        self._window = window
        self._batches: list[list[float]] = []
        """Success and number of tasks of each."""
        self._since = 0
        """Batches before this one are of weights that are not used any more."""

    def saw(self, success: float, tasks: float) -> None:
        """Another batch was played."""
        self._batches.append([success, tasks])

    def doubtful(self, share: float) -> bool:
        """Whether the newest batch alone lost more than `share` of the best success before it."""
        best = self._best(len(self._batches) - 1)
        return best is not None and self._batches[-1][0] < (1 - share) * self._rate(*best)[0]

    def lost(self, share: float) -> str:
        """What is wrong if the newest batches have clearly lost more than `share` of the best success; or nothing."""
        end = len(self._batches)
        best = self._best(end - self._window)
        if best is None:
            return ""
        before, solved, of = self._rate(*best)
        for first in range(end - self._window, max(best[1], self._since) - 1, -1):
            now, solved_now, of_now = self._rate(first, end)
            if now < (1 - share) * before and rate(solved_now, of_now).high < rate(solved, of).low:
                return (
                    f"{now:.0%} of the episodes of the last {end - first} batches are solved, after {before:.0%} in "
                    f"the best {self._window} in a row"
                )
        return ""

    def calm(self) -> None:
        """Other weights are looked at from now on."""
        self._since = len(self._batches)

    def state(self) -> dict[str, Any]:
        """What `load` takes; JSON."""
        return {"batches": [list(item) for item in self._batches], "since": self._since}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on as when `state` was taken."""
        self._batches, self._since = [list(item) for item in state["batches"]], int(state["since"])

    def _best(self, end: int) -> tuple[int, int] | None:
        """The window (first batch, last one excluded) of the highest success that ended before batch `end`."""
        windows = [(first, first + self._window) for first in range(end - self._window + 1)]
        return max(windows, key=lambda window: (self._rate(*window)[0], window), default=None)

    def _rate(self, first: int, end: int) -> tuple[float, int, int]:
        """Success over these batches, and as solved tasks of how many; rounded, as a task may be solved in part."""
        tasks = sum(count for _, count in self._batches[first:end])
        solved = sum(success * count for success, count in self._batches[first:end])
        return solved / tasks, round(solved), round(tasks)

"""Which of its rollouts a stage's weights have learned from, and that those are in the record."""

from hashlib import sha256
from typing import Any

from tutelage.training import ranks
from tutelage.training.base import StageContext, identity
from tutelage.training.rollout import Rollouts, taught


class Learnt:
    """What each optimiser step put into the weights, as long as they have it in them.

    Args:
        what: the stage's name.
    """

    def __init__(self, rollouts: Rollouts, context: StageContext, what: str) -> None:
        self._rollouts, self._context, self._what = rollouts, context, what
        self._learnt: dict[int, int] = {}
        """Step → number (from 1) of the batch of rollouts whose loss it put into the weights as they are."""
        self._ids: dict[int, list[str]] = {}
        """Number of a batch → ids of its trajectories in the record that carried loss."""

    def note(self, step: int) -> None:
        """A step was made on the newest batch."""
        self._learnt[step] = self._rollouts.played

    def go_back(self, good: int) -> None:
        """The weights are those after step `good` again, or will be at the end."""
        self._learnt = {step: batch for step, batch in self._learnt.items() if step <= good}

    def keep(self) -> tuple[str, ...]:
        """Write the rollouts that are not in the record yet; after a kill right behind this, these stand.

        Returns:
            Ids of the trajectories whose loss the weights have in them.
        """
        context, stage, record = self._context, self._rollouts.stage, self._context.record
        run = sha256(identity(stage, context).encode()).hexdigest()[:12]  # other settings play other episodes
        before = self._rollouts.played - len(self._rollouts.batches)
        batches = {
            number: ranks.everyone(batch)
            for number, batch in enumerate(self._rollouts.batches, start=before + 1)
            if number not in self._ids
        }

        def write() -> dict[int, list[str]]:
            found: dict[int, list[str]] = {}
            with record.transaction():
                for number, batch in batches.items():
                    found[number] = []
                    for place, (episode, loss) in enumerate(zip(batch, taught(batch, stage), strict=True)):
                        key = f"{context.cycle}/{self._what}/{context.number}/{run}/{number}/{place}"
                        record.add_trajectory(episode.trajectory, key=key, cycle=context.cycle, arm=self._what)
                        kept = record.trajectory_by_key(key)
                        assert kept is not None
                        found[number] += [kept.id] if loss else []
            return found

        self._ids |= ranks.first(write)
        return tuple(key for batch in dict.fromkeys(self._learnt.values()) for key in self._ids[batch])

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"learnt": self._learnt, "ids": self._ids}

    def load(self, state: dict[str, Any]) -> None:
        """Go on as when `state` was taken; it may have more in it."""
        self._learnt, self._ids = state["learnt"], state["ids"]

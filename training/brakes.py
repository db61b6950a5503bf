"""The last good weights of a running stage: kept after every step, gone back to after an alarm.

The figures of a batch of rollouts speak of the weights that played it. So the weights after a step are kept as a
candidate, and become the last good ones when the next batch raises no suspicion; where probes are played, they are
good as soon as they have passed one. Each is one file that is written whole; those that neither the running stage nor
its checkpoint can come back to are removed.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer

from tutelage.training import checkpoints

START = 0
"""Step of the weights that the stage began with."""


class Brakes:
    """Keeps the last good weights of one stage in files.

    Args:
        folder: where.
        whole: keep optimiser and self-teacher too, so that training can go on from there; else weights alone.
        writes: whether this process writes; of several that train together, one does.
    """

    def __init__(self, folder: Path, *, whole: bool, writes: bool = True) -> None:
        self._folder, self._whole, self._writes = folder, whole, writes
        self.good = START
        """Step after which the last good weights were reached."""
        self._candidate: int | None = None

    def begin(self, trainer: Trainer) -> None:
        """Keep what the stage begins with, if it may have to go on from there; else its starting weights are known."""
        if self._whole:
            self._write(trainer, START)

    def offer(self, trainer: Trainer, step: int, *, proven: bool = False) -> None:
        """Keep the weights after `step`: as good ones if they are proven, else as a candidate."""
        self._write(trainer, step)
        self._candidate = step
        if proven:
            self.confirm()

    def confirm(self) -> None:
        """The candidate, if there is one, has shown nothing suspicious."""
        if self._candidate is not None:
            self.good, self._candidate = self._candidate, None

    def reject(self) -> None:
        """The candidate, if there is one, is not to be trusted."""
        self._candidate = None

    def go_back(self, trainer: Trainer) -> None:
        """Put the last good weights into the trainer, and what belongs to them.

        Those that the stage began with are only here if `whole`.
        """
        self._candidate = None
        checkpoints.put_back(trainer, checkpoints.read(self._file(self.good)))

    def steps(self) -> set[int]:
        """The steps whose weights may be needed still."""
        return {self.good} | ({self._candidate} if self._candidate is not None else set())

    def prune(self, needed: Collection[int]) -> None:
        """Remove all weights but those after these steps."""
        if self._writes:
            for file in self._folder.glob("after-*.pt"):
                if int(file.stem.rpartition("-")[2]) not in needed:
                    file.unlink()

    def state(self) -> dict[str, Any]:
        """What `load` takes; JSON."""
        return {"good": self.good, "candidate": self._candidate}

    def load(self, state: Mapping[str, Any]) -> None:
        self.good, self._candidate = state["good"], state["candidate"]

    def _write(self, trainer: Trainer, step: int) -> None:
        if self._writes:
            made = checkpoints.training(trainer) if self._whole else {"weights": checkpoints.weights(trainer)}
            checkpoints.write(self._file(step), made, sync=False)  # every step; it would be half a gigabyte each

    def _file(self, step: int) -> Path:
        return self._folder / f"after-{step}.pt"

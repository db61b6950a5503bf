"""Corrections: what a teacher would have done in a state that the student itself came to (after DAgger, 1011.0686)."""

from typing import TYPE_CHECKING, Final

from pydantic import Field

from tutelage.conversation import split_reply
from tutelage.errors import TutelageError
from tutelage.types import Frozen, Trajectory

if TYPE_CHECKING:
    from tutelage.record import Record

CORRECTION: Final = "correction"
"""Kind of the record's documents; their key is ``TRAJECTORY/STEP``."""


class Correction(Frozen):
    """The teacher's answer at one step of a student's trajectory; marks what is trained on it as not the student's."""

    trajectory: str
    """Id of the trajectory."""
    step: int = Field(ge=0)
    reply: str = Field(min_length=1)
    """Thought and action that were right in that state, as the teacher would have replied."""
    words: str = ""
    """One or two sentences on what was wrong and what is right; may be empty."""
    author: str
    """Label of the teacher."""

    @property
    def key(self) -> str:
        return f"{self.trajectory}/{self.step}"

    @property
    def note(self) -> str:
        """What the teacher has to say about the student's action, in one line."""
        return f"The teacher says: {self.words or f'Right here is {split_reply(self.reply)[1]}.'}"


class NoCorrection(TutelageError):
    """The teacher was asked and nothing came of it; `reason` is what such cases are counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


Corrected = tuple[Trajectory, Correction]
"""A trajectory of the student and what was right at one of its steps."""


def corrected(trajectory: Trajectory, correction: Correction) -> Trajectory:
    """The student's episode up to that state, and the teacher's reply in the place of the student's.

    Raises:
        ValueError: the correction is of another trajectory, or of a step that does not exist.
    """
    if correction.trajectory != trajectory.id or correction.step >= len(trajectory.steps):
        raise ValueError(f"{trajectory.id} with {len(trajectory.steps)} steps has no state {correction.key}")
    thought, action = split_reply(correction.reply)
    # What the student sampled, did and was told there says nothing about this reply.
    reply = {"reply": correction.reply, "thought": thought, "action": action, "meaning": "", "tokens": None}
    last = trajectory.steps[correction.step].model_copy(update=reply)
    return trajectory.model_copy(update={"steps": (*trajectory.steps[: correction.step], last)})


def keep(record: "Record", correction: Correction, *, arm: str, cycle: int) -> None:
    """Keep a correction of a trajectory of `arm`; keeping it again changes nothing."""
    body = {"cycle": cycle, "arm": arm, "correction": correction.model_dump(mode="json"), "dropped": ""}
    record.put(CORRECTION, correction.key, body)


def keep_none(record: "Record", trajectory: str, step: int, found: NoCorrection, *, arm: str, cycle: int) -> None:
    """Keep that the teacher was asked about this state in vain, so that it is not asked again."""
    body = {"cycle": cycle, "arm": arm, "correction": None, "dropped": found.reason}
    record.put(CORRECTION, f"{trajectory}/{step}", body)


def kept(record: "Record") -> list[Corrected]:
    """All corrections with their trajectories, in the order in which they were first kept."""
    bodies = (body["correction"] for body in record.items(CORRECTION).values())
    corrections = [Correction.model_validate(body) for body in bodies if body is not None]
    # A kill between a stage's rollouts and its end leaves corrections of rollouts that never were.
    return [
        (record.trajectory(item.trajectory), item) for item in corrections if record.has_trajectory(item.trajectory)
    ]

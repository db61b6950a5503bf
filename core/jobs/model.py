"""What a job is, and which states may follow which."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field

from tutelage.service_config import JobKind
from tutelage.types import Frozen


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    """A dispatcher has taken it and is starting its process."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUNS = (State.LEASED, State.RUNNING)
"""States in which a job has a lease, and only in these."""
OVER = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.LEASED, State.CANCELLED}),
    State.LEASED: frozenset({State.RUNNING, State.QUEUED, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED, State.CANCELLED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}
"""Which states may follow; back to `queued` by a further attempt, by a takeover, or by hand (`retry`). Cancelling one
that has failed gives up what it left unfinished."""


class Again(StrEnum):
    """Why a job was queued again."""

    FAILED = "failed"
    TAKEN_OVER = "taken over"
    BUSY = "busy"
    """Something else ran where it would have; that counts against nothing."""
    HANDED_BACK = "handed back"
    """Its process was told to end; that counts against nothing either."""
    BY_HAND = "by hand"
    """The counts of failures and takeovers begin anew."""


CANCEL: Final = "cancel"
Cancel = Literal["cancel"]
"""What a heartbeat is answered with once the job was told to stop."""

LANES: dict[JobKind, str] = {kind: "cycle" for kind in JobKind if kind is not JobKind.EVALUATE}
"""Jobs of one lane wait for each other: whatever adds to experience or weights happens one at a time."""


class Progress(Frozen):
    """How far a running job is."""

    what: str = ""
    done: int = 0
    total: int = 0


class Move(Frozen):
    """One state that a job came into."""

    state: State
    attempt: int
    """Counts up with every lease, from 1; 0 before the first."""
    worker: str = ""
    reason: str = ""
    due: float = 0.0
    """Of a queued one: not before this, in seconds since 1970."""
    result: dict[str, Any] = {}
    """Of a job that is over; one that is queued again says why: ``{"again": Again}``."""
    created: datetime


class Job(Frozen):
    """A job as it stands now."""

    id: str
    kind: JobKind
    key: str
    """A second job with the same key is the same job."""
    by: str
    """``hand:NAME`` or ``trigger:NAME``."""
    params: dict[str, Any]
    """As the class of its kind takes them (`tutelage.jobs.kinds`)."""
    created: datetime
    moves: tuple[Move, ...] = Field(min_length=1)
    """Oldest first."""
    progress: Progress = Progress()
    until: float = 0.0
    """While it is leased: when it counts as abandoned."""
    handle: str = ""
    """What the launcher knows its process by."""
    cancel: bool = False
    """Whether it was told to stop."""

    @property
    def last(self) -> Move:
        return self.moves[-1]

    @property
    def state(self) -> State:
        return self.last.state

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def worker(self) -> str:
        return self.last.worker

    def times(self, again: Again) -> int:
        """How often it was queued again for this reason, since it was last retried by hand."""
        count = 0
        for move in self.moves:
            why = move.result.get("again") if move.state is State.QUEUED else None
            count = 0 if why == Again.BY_HAND else count + (why == again)
        return count

    def handed_back_at_once(self, now: float, seconds: float) -> int:
        """How many attempts in a row were handed back before they had run for so long, counting the present one as
        handed back now."""
        began, count = now, 0
        for move in self.moves:
            if move.state in RUNS:
                began = move.created.timestamp()
            elif move.state is State.QUEUED:
                handed = move.result.get("again") == Again.HANDED_BACK
                count = count + 1 if handed and move.created.timestamp() - began < seconds else 0
        return count + 1 if self.state in RUNS and now - began < seconds else 0


class Line(Frozen):
    """A line that a job said."""

    n: int
    """Counts up over all jobs."""
    attempt: int
    created: datetime
    text: str

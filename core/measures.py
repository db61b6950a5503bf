"""The nouns of measurement: versions of the student, rates with intervals, paired comparisons, measured arms, and
what memory does to success."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from tutelage.types import Frozen, Split, new_id, now


class Student(Frozen):
    """One immutable version of the local model, with its lineage."""

    id: str = Field(default_factory=lambda: new_id("stu"))
    number: int
    """Counts up within a workspace; 0 is the base student."""
    stage: str
    """``base``, or the stage that made it."""
    cycle: int
    parent: str | None = None
    weights: str
    """Folder (relative to the workspace) or name that `training.weights.load` takes."""
    digest: str = ""
    """SHA-256 of the saved weights."""
    trajectories: tuple[str, ...] = ()
    """Ids of the trajectories it was trained on."""
    experiences: tuple[str, ...] = ()
    """Ids of the experiences that took part in its training."""
    settings: dict[str, object] = {}
    """The stage's configuration."""
    created: datetime = Field(default_factory=now)
    # What follows was not noted of the first students that there were.
    files: dict[str, str] = {}
    """SHA-256 of each file in its folder, by name: weights, tokenizer and configuration (`training.content`)."""
    base: str = ""
    """Name of the weights that its line began with."""
    base_content: str = ""
    """`address` of those."""
    data: str = ""
    """Digest of what happened in ``trajectories``; equal for the same episodes, whatever their ids."""
    config: str = ""
    """Digest of the configuration that it was made under."""
    trained_as: dict[str, object] = {}
    """Of the configuration's ``student``, what shapes weights: method, rank, precision."""
    seed: int | None = None
    """Of its stage."""
    version: str = ""
    """Of Tutelage."""
    commit: str = ""
    """Of Tutelage's source tree, where it ran from one."""

    @property
    def label(self) -> str:
        return f"student@{self.number}"

    @property
    def content(self) -> str:
        """What it is: a digest over its files; empty if they were not noted."""
        return address(self.files)


def address(files: Mapping[str, str]) -> str:
    """One digest for files by name and digest; empty for none."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest() if files else ""


class Rate(Frozen):
    """A success rate with its interval: Wilson's, or by betting where it is looked at more than once."""

    successes: int
    episodes: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.successes / self.episodes if self.episodes else 0.0


class Comparison(Frozen):
    """Paired difference of two arms over the same tasks."""

    pairs: int
    gain: float
    low: float
    high: float
    """Interval of ``gain``."""
    won: int
    lost: int
    """Tasks only the new (old) arm solved."""
    p_value: float
    """Exact McNemar test."""
    method: Literal["paired bootstrap", "Tango score", "betting"] = "paired bootstrap"
    """How the interval was made; the score interval stands in where resampling cannot vary (`tutelage.stats`), betting
    where the number of pairs depends on what they showed (`tutelage.anytime`)."""
    broken: int = 0
    """Pairs left out because the environment broke in either arm."""


class Arm(Frozen):
    """One measured condition: a student, memory on or off, a split."""

    student: str
    memory: bool
    split: Split | None
    """None for tasks of all splits."""
    rate: Rate
    by_environment: dict[str, Rate] = {}
    by_family: dict[str, Rate] = {}
    """By ``environment/family``."""
    trajectories: tuple[str, ...]
    excluded: int = 0
    """Held-out episodes whose goal and first observation occurred in training; not counted."""
    broken: int = 0
    """Episodes among ``trajectories`` whose environment broke; not counted in the rates."""


# -- what memory does ---------------------------------------------------------------------------


class Finding(StrEnum):
    """What the intervals of an effect say (`tutelage.effects`)."""

    HELPS = "helps"
    """Success with it is higher."""
    HARMS = "harms"
    """Success with it is lower, whether the student is able without or not."""
    HELD = "held"
    """The student is able, as good without it, and not known to be worse with it."""
    UNDECIDED = "undecided"


class Effect(Frozen):
    """Success with and without memory in a task family, or with and without one experience alone."""

    family: str
    """As ``environment/family``."""
    experience: str = ""
    """Id; empty for whatever memory shows there."""
    alone: bool = False
    """Whether it was shown alone, and not with the rest of memory."""
    difference: Comparison
    """With minus without."""
    with_memory: Rate
    without: Rate
    finding: Finding
    seen: int = 0
    """Pairs left out because their goal and first observation occurred in training."""
    unshown: int = 0
    """Pairs left out because the experience could not be shown in them."""
    blocked: int = 0
    """Pairs in which a guardrail stopped an action."""


class Move(Frozen):
    """An experience that got another status, and why."""

    experience: str
    kind: str
    family: str
    """As ``environment/family``."""
    before: str
    after: str
    reason: str


class FamilyHoldings(Frozen):
    """Of one task family: the stickers and skills that were used, and what they cost in a prompt."""

    used: int
    held: int
    episodes: int = 0
    """Of the measurement that the prompt tokens are taken from."""
    tokens_all: float = 0.0
    """Prompt tokens of experiences per episode, were nothing absorbed."""
    tokens_now: float = 0.0
    """The same without what is absorbed."""


class Holdings(Frozen):
    """How much of the memory that was used a student's weights hold, and what that saves."""

    student: str
    """Label."""
    tokenizer: str
    """What tokens are counted with; empty: estimated, four characters to a token."""
    used: int
    """Stickers and skills that an episode was ever shown, and that are not retired or quarantined."""
    held: int
    """Of these, the absorbed ones."""
    shown: int
    """How often the used ones were shown."""
    held_shown: int
    """How often those were shown that are held now."""
    harmful: int = 0
    """Retired because they harm this student, which is able without them; neither used nor held."""
    families: dict[str, FamilyHoldings] = {}
    episodes: int = 0
    """Episodes with memory on since something was absorbed, measuring ones aside."""
    tokens_saved: int = 0
    """Prompt tokens that they would have had more, by recalling again what was left out."""


class Measurement(Frozen):
    """One round of evidence: what was to be measured on which budget, and once it is finished, what came out."""

    name: str
    """Names it in the record, e.g. ``1/evidence``."""
    cycle: int
    place: int
    """Where its tasks begin in the stretch of the train split that is set apart for measuring."""
    student: str
    """Id."""
    pairs: int
    item_pairs: int
    families: dict[str, tuple[str, ...]]
    """Ids of the experiences that are measured together, by family; the most used family first."""
    chosen: tuple[str, ...] | None = None
    """Ids of those that are measured alone, once they are known."""
    finished: bool = False
    effects: tuple[Effect, ...] = ()
    moves: tuple[Move, ...] = ()
    unmeasured: int = 0
    """Stickers and skills in use that nothing was measured of."""
    holdings: Holdings | None = None
    """As it stood after the moves."""

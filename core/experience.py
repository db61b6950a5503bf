"""The nouns of memory: what was learned, where it comes from, what became of it, and what an agent is shown."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Literal, Protocol

from pydantic import Field

from tutelage.types import OWN, TENANT, Frozen, Shown, Task, new_id, now


class Sticker(Frozen):
    """The situation as atomic conditions and the question restated (after Sticker-TTS, 2509.05007)."""

    kind: Literal["sticker"] = "sticker"
    conditions: tuple[str, ...] = Field(min_length=1)
    question: str


class Skill(Frozen):
    """What worked (after Steve-Evolving, 2603.13131)."""

    kind: Literal["skill"] = "skill"
    preconditions: tuple[str, ...]
    procedure: tuple[str, ...] = Field(min_length=1)
    """Resolved actions with slots instead of literals, e.g. ``fill(textbox 'Username', "{goal}")``."""
    verification: tuple[str, ...]


class Guardrail(Frozen):
    """What must not be repeated; checked in code before an action runs (agents.guard)."""

    kind: Literal["guardrail"] = "guardrail"
    trigger: tuple[str, ...]
    """Line patterns; each must match some line of the observation for the rule to apply."""
    root_cause: str
    forbidden: str
    """Pattern over the action's meaning, in the same language as ``trigger``."""
    remedy: str


Content = Annotated[Sticker | Skill | Guardrail, Field(discriminator="kind")]
Kind = Literal["sticker", "skill", "guardrail"]


class Source(Frozen):
    """Where an experience comes from: a trajectory and the steps in it, or a hand or a file outside the record."""

    trajectory: str
    """Id; empty where there is none, for what was written by hand or imported."""
    task: str
    """Id of its task; empty where there is none."""
    steps: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    origin: str = OWN
    """``own`` (played here), ``import:NAME`` or ``user:NAME``; what it is trusted for is configured."""


class Scope(Frozen):
    """One thing that an experience is about."""

    type: Literal["file", "tool", "concept", "workflow"]
    key: str
    label: str = ""
    relevance: float = Field(1.0, ge=0, le=1)


class Status(StrEnum):
    """Where an experience stands; each move is a version with its reason and numbers."""

    CANDIDATE = "candidate"
    """Admitted, its effect unmeasured; may be shown and enforced, marked as on trial."""
    ACTIVE = "active"
    """Shown and enforced on evidence."""
    ABSORBED = "absorbed"
    """A student does as well without it; it has left the prompt."""
    RETIRED = "retired"
    """Neither shown nor enforced any more."""
    QUARANTINED = "quarantined"
    """Not trusted enough to reach an actor or a training row until someone reviews it."""


IN_USE = frozenset({Status.CANDIDATE, Status.ACTIVE})
"""Statuses of what agents may be shown and training may use."""


class Change(Frozen):
    """Why a version differs from the one before it."""

    by: str = ""
    """What or who made it, e.g. ``extraction``, ``evidence``, ``absorption``, ``merging``, ``hand:NAME``."""
    reason: str = ""
    numbers: dict[str, float | str] = {}
    """What the reason rests on."""


class Experience(Frozen):
    """A sticker, skill or guardrail with its provenance. A change makes a new version."""

    id: str = Field(default_factory=lambda: new_id("exp"))
    version: int = 1
    tenant: str = TENANT
    """Whose it is; no other tenant ever sees it."""
    environment: str
    """Where it applies; it is shown and enforced nowhere else."""
    family: str
    goal: str
    """The goal it was drawn from, with slots instead of literals; what search embeds first."""
    content: Content
    core: str = ""
    """What it comes to, in one or two sentences."""
    scopes: tuple[Scope, ...] = ()
    touched: tuple[str, ...] = ()
    """Files and addresses that its source steps name, found by pattern and never by a model."""
    sources: tuple[Source, ...] = Field(min_length=1)
    trust: float = Field(1.0, ge=0, le=1)
    """The least trust among what its words come from (memory.trust)."""
    status: Status = Status.CANDIDATE
    absorbed_by: str = ""
    """Id of the student that needs it no more, while it is absorbed."""
    merged: tuple[str, ...] = ()
    """Ids of the experiences that it stands for since they were merged into it."""
    author: str
    """Label of the distiller that wrote it."""
    verbatim: str = ""
    """One exact detail from the source, for keyword search."""
    change: Change = Change()
    created: datetime = Field(default_factory=now)

    @property
    def kind(self) -> Kind:
        return self.content.kind


def identity(experience: Experience) -> str:
    """A digest of what it says and where; of two with the same one, memory keeps one."""
    place = (experience.tenant, experience.environment, experience.family)
    return sha256("\n".join((*place, experience.content.model_dump_json())).encode()).hexdigest()


def stand_ins(experiences: Iterable[Experience]) -> dict[str, Experience]:
    """Who stands for each experience that was merged into another, by its id."""
    known = list(experiences)
    gone = {merged for item in known for merged in item.merged}
    return {merged: item for item in known if item.id not in gone for merged in item.merged}


class Recall(Frozen):
    """What memory has to say about one task: texts for the prompt and rules for the code."""

    shown: tuple[Shown, ...] = ()
    guardrails: tuple[Experience, ...] = ()


class Recaller(Protocol):
    """Memory as an acting agent sees it."""

    def recall(self, task: Task, goal: str, observation: str) -> Recall:
        """Experiences for this situation; never one that was drawn from this very task."""
        ...

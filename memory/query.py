"""What can be asked of memory, and what an answer looks like."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tutelage.experience import IN_USE, Experience, Kind, Status


@dataclass(frozen=True)
class Query:
    """What to look for. Each filter that is given must hold; the tenant is always the store's own."""

    text: str
    kinds: Collection[Kind] = ()
    """Empty: all."""
    environment: str | None = None
    family: str | None = None
    statuses: Collection[Status] = IN_USE
    """Empty: all."""
    min_trust: float = 0.0
    since: datetime | None = None
    """Newest version made at this time or later."""
    until: datetime | None = None
    """Newest version made before this time."""
    exclude_task: str | None = None
    """Leaves out whatever was drawn from the task with this id."""
    prefer_family: str | None = None
    """Experiences of this family score higher."""
    mode: Literal["fused", "vector", "keyword"] = "fused"
    k: int = 5
    trusted: bool = False
    """Only what agents may be shown, and those who may only read; `MemoryStore.trusts`."""


@dataclass(frozen=True)
class Hit:
    """An experience found, with its score and what that is made of."""

    experience: Experience
    score: float
    """Between 0 and 1 (above with the family's boost), comparable within one search only."""
    vector: float
    """Cosine similarity to the distilled text."""
    keyword: float
    """BM25 score over the verbatim text."""
    parts: dict[str, float] = field(default_factory=dict)
    """The terms that `score` is the sum of."""

"""What an attacker could have written, where it came from and where it went.

An entry is an experience with at least one source that is not trusted enough by today's configuration, whatever its
status is: also what was told again in our own words, what others corroborated, and what a person approved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tutelage.config import TrustConfig
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Experience, Source, Status
from tutelage.memory import trust
from tutelage.memory.gate import ADMISSION
from tutelage.memory.store import MemoryStore
from tutelage.record import Record

Words = Literal["theirs", "ours", "corroborated", "approved"]
"""Whose words the newest version holds: a stranger's, our own, such as others use too, or such as a person let pass."""


@dataclass(frozen=True)
class Origin:
    """One source of an experience, as far back as it is known."""

    source: Source
    trust: float
    voice: str
    policy: str = ""
    """Who acted in its episode; empty where there is none."""
    known: bool = False
    """Whether the record holds the episode."""


@dataclass(frozen=True)
class Entry:
    """One experience that a stranger had a part in."""

    experience: Experience
    words: Words
    origins: tuple[Origin, ...]
    """The untrusted ones first."""
    said: Experience | None
    """What the stranger had said, where it was told again in our own words."""
    shown: int
    """Episodes in whose first message it stood."""
    students: tuple[str, ...]
    """Labels of the students in whose training it took part."""
    trained_on_source: tuple[str, ...]
    """Labels of the students that were trained on one of its untrusted episodes."""


def audit(memory: MemoryStore, record: Record, config: TrustConfig) -> list[Entry]:
    """All entries of this tenant's memory, those that went furthest first."""
    uses = record.uses(tenant=memory.tenant)
    students = record.students()
    found = []
    for item in memory.experiences():
        origins = sorted(_origins(item, record, config), key=lambda origin: origin.trust)
        strange = [origin for origin in origins if origin.trust < config.threshold]
        if not strange:
            continue
        episodes = {origin.source.trajectory for origin in strange} - {""}
        entry = Entry(
            experience=item,
            words=_words(item, memory, config),
            origins=tuple(origins),
            said=taken_out(memory, item),
            shown=uses[item.id].shown if item.id in uses else 0,
            students=tuple(student.label for student in students if item.id in student.experiences),
            trained_on_source=tuple(student.label for student in students if episodes & set(student.trajectories)),
        )
        found.append(entry)
    return sorted(found, key=lambda entry: (-len(entry.students), -entry.shown, entry.words != "theirs"))


def in_review(memory: MemoryStore) -> list[Experience]:
    """What waits for a person, oldest first: what is in quarantine, or would be by the trust of today."""
    items = memory.experiences(statuses=[Status.QUARANTINED, *IN_USE])
    return [item for item in items if item.status is Status.QUARANTINED or not memory.trusts(item)]


def taken_out(memory: MemoryStore, experience: Experience) -> Experience | None:
    """What a source that is not trusted had said before it was told again in our own words, if that was done."""
    versions = memory.history(experience.id)
    before = [item for item in versions if item.status is Status.QUARANTINED and item.content != experience.content]
    return before[-1] if before and experience.status is not Status.QUARANTINED else None


def _words(item: Experience, memory: MemoryStore, config: TrustConfig) -> Words:
    if item.status is Status.QUARANTINED:
        return "theirs"
    versions = memory.history(item.id)
    if any(version.status is Status.QUARANTINED and version.content == item.content for version in versions):
        by = next((version.change.by for version in versions if version.change.reason.startswith("corroborated")), "")
        return "corroborated" if by == ADMISSION else "approved"
    if trust.of_sources(item, config) >= config.threshold:
        return "corroborated"
    return "ours" if item.trust >= config.threshold else "theirs"


def _origins(item: Experience, record: Record, config: TrustConfig) -> Iterator[Origin]:
    acted: Mapping[str, str] = {}
    for source in item.sources:
        try:
            acted = {source.trajectory: record.trajectory(source.trajectory).policy} if source.trajectory else {}
        except RecordError:
            acted = {}
        yield Origin(
            source=source,
            trust=trust.of_source(source, item.environment, config),
            voice=trust.voice(source, item.environment, config),
            policy=acted.get(source.trajectory, ""),
            known=source.trajectory in acted,
        )

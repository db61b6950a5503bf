"""Tables of the record. Every row is written once; what changes gets a new row with a higher version."""

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    or_,
)

SCHEMA_VERSION = 3

METADATA = MetaData()


def _number() -> Column[int]:
    """Order of insertion."""
    return Column("n", Integer, primary_key=True, autoincrement=True)


META = Table("meta", METADATA, Column("key", String, primary_key=True), Column("value", String, nullable=False))

TRAJECTORIES = Table(
    "trajectories",
    METADATA,
    _number(),
    Column("id", String, nullable=False, unique=True),
    Column("key", String, nullable=False, unique=True),
    Column("cycle", Integer, nullable=False),
    Column("arm", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("family", String, nullable=False, index=True),
    Column("seed", Integer, nullable=False),
    Column("split", String, nullable=False),
    Column("policy", String, nullable=False),
    Column("memory", Boolean, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("reward", Float),  # empty: not a number
    Column("ending", String, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("body", Text, nullable=False),
    Column("tenant", String, nullable=False, server_default="default"),
    Column("origin", String, nullable=False, server_default="own"),
)


def played_by(student: str) -> ColumnElement[bool]:
    """Whether the student of this label played an episode: its policy's label may go on with what it was made from."""
    policy = TRAJECTORIES.c.policy
    return or_(policy == student, policy.startswith(f"{student} (", autoescape=True))


USES = Table(
    "uses",
    METADATA,
    _number(),
    Column("trajectory", String, ForeignKey("trajectories.id"), nullable=False, index=True),
    Column("experience", String, nullable=False, index=True),
    Column("version", Integer, nullable=False),
)
"""Which experiences stood in which episode's first message."""

VERDICTS = Table(
    "verdicts",
    METADATA,
    _number(),
    Column("trajectory", String, ForeignKey("trajectories.id"), nullable=False),
    Column("judge", String, nullable=False),
    Column("successful", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("trajectory", "judge"),
)

EXPERIENCES = Table(
    "experiences",
    METADATA,
    _number(),
    Column("id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("family", String, nullable=False),
    Column("status", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("body", Text, nullable=False),
    Column("tenant", String, nullable=False, server_default="default", index=True),
    Column("trust", Float, nullable=False, server_default="1"),
    Column("identity", String, nullable=False, server_default="", index=True),  # digest of what it says, and where
    UniqueConstraint("id", "version"),
    sqlite_autoincrement=True,  # the number of a forgotten row is never used again
)

TOMBSTONES = Table(
    "tombstones",
    METADATA,
    _number(),
    Column("kind", String, nullable=False),  # experience or trajectory
    Column("id", String, nullable=False, unique=True),
    Column("tenant", String, nullable=False, server_default="default"),
    Column("reason", Text, nullable=False),
    Column("by", String, nullable=False),
    Column("derived", Text, nullable=False),  # JSON: what was made from it, by kind
    Column("created", DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)
"""What was forgotten: that it was there, and what was made from it, but none of its content."""

EXPERIENCE_SOURCES = Table(
    "experience_sources",
    METADATA,
    _number(),
    Column("experience_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("trajectory", String, nullable=False, index=True),
    Column("task", String, nullable=False, index=True),
    Column("step", Integer),  # empty: the trajectory as a whole
    ForeignKeyConstraint(["experience_id", "version"], ["experiences.id", "experiences.version"]),
    Index("ix_experience_sources_experience", "experience_id", "version", "task"),
)

STUDENTS = Table(
    "students",
    METADATA,
    _number(),
    Column("id", String, nullable=False, unique=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("label", String, nullable=False, unique=True),
    Column("body", Text, nullable=False),
)

PROMOTIONS = Table(
    "promotions",
    METADATA,
    _number(),
    Column("student", String, ForeignKey("students.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)

METRICS = Table(
    "metrics",
    METADATA,
    _number(),
    Column("run", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("value", Float),  # empty: not a number
    UniqueConstraint("run", "step", "name"),
)

DOCUMENTS = Table(
    "documents",
    METADATA,
    _number(),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("kind", "key", "version"),
)

JOBS = Table(
    "jobs",
    METADATA,
    _number(),
    Column("id", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False, unique=True),  # of a second job with the same key nothing is written
    Column("by", String, nullable=False),  # hand:NAME or trigger:NAME
    Column("params", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)

JOB_MOVES = Table(
    "job_moves",
    METADATA,
    _number(),
    Column("job", String, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("due", Float, nullable=False),  # of a queued one: not before this, in seconds since 1970
    Column("result", Text, nullable=False),  # JSON
    Column("created", DateTime(timezone=True), nullable=False),
)
"""The states of each job; the last one holds."""

LEASES = Table(
    "leases",
    METADATA,
    Column("job", String, ForeignKey("jobs.id"), primary_key=True),
    Column("lane", String, unique=True),  # of jobs in one lane one runs at a time; empty: in none
    Column("attempt", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("handle", String, nullable=False),  # what the launcher knows it by
    Column("until", Float, nullable=False),  # seconds since 1970
    Column("progress", Text, nullable=False),  # JSON
    Column("cancel", Boolean, nullable=False),
)
"""Who runs a job now. A lock is no history: this is the one table whose rows are changed and deleted."""

JOB_LINES = Table(
    "job_lines",
    METADATA,
    _number(),
    Column("job", String, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("text", Text, nullable=False),
)
"""What each job said."""

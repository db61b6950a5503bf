"""Schema 3: jobs, their states, leases and lines."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables; nothing comes from older ones."""
    op.create_table(
        "jobs",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "job_moves",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String, sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("job", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("lane", sa.String, unique=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("handle", sa.String, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("cancel", sa.Boolean, nullable=False),
    )
    op.create_table(
        "job_lines",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String, sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")

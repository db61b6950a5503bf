"""Schema 2: tenants, origins and trust; which experiences were shown where; tombstones of what was forgotten."""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BATCH = 500
TENANT = "default"


def upgrade() -> None:
    """Add what is missing and fill it from the bodies."""
    with op.batch_alter_table("trajectories") as table:
        table.add_column(sa.Column("tenant", sa.String, nullable=False, server_default=TENANT))
        table.add_column(sa.Column("origin", sa.String, nullable=False, server_default="own"))
    # Made anew, because only so SQLite never uses the number of a forgotten row again.
    numbers = {"sqlite_autoincrement": True}
    with op.batch_alter_table("experiences", recreate="always", table_kwargs=numbers) as table:
        table.add_column(sa.Column("tenant", sa.String, nullable=False, server_default=TENANT))
        table.add_column(sa.Column("trust", sa.Float, nullable=False, server_default="1"))
        table.add_column(sa.Column("identity", sa.String, nullable=False, server_default=""))
    for name in ("tenant", "identity"):
        op.create_index(f"ix_experiences_{name}", "experiences", [name])
    op.create_index("ix_experience_sources_experience", "experience_sources", ["experience_id", "version", "task"])
    _create_tables()
    _fill_identities(op.get_bind())
    _fill_uses(op.get_bind())
    op.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")


def _create_tables() -> None:
    op.create_table(
        "uses",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("trajectory", sa.String, sa.ForeignKey("trajectories.id"), nullable=False, index=True),
        sa.Column("experience", sa.String, nullable=False, index=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "tombstones",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("tenant", sa.String, nullable=False, server_default=TENANT),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("derived", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )


def _fill_identities(connection: sa.Connection) -> None:
    """The digest of place and content; the content's JSON as it stands in the body."""
    digest = sa.text("UPDATE experiences SET identity = :identity WHERE n = :n")
    for row in _all(connection, "SELECT n, environment, family, body FROM experiences WHERE n > :n ORDER BY n"):
        content = json.dumps(json.loads(row.body)["content"], separators=(",", ":"), ensure_ascii=False)
        said = "\n".join((TENANT, row.environment, row.family, content))
        connection.execute(digest, {"identity": sha256(said.encode()).hexdigest(), "n": row.n})


def _fill_uses(connection: sa.Connection) -> None:
    use = sa.text("INSERT INTO uses (trajectory, experience, version) VALUES (:trajectory, :experience, :version)")
    for row in _all(connection, "SELECT n, id, body FROM trajectories WHERE memory AND n > :n ORDER BY n"):
        for item in json.loads(row.body)["shown"]:
            connection.execute(use, {"trajectory": row.id, "experience": item["id"], "version": item["version"]})


def _all(connection: sa.Connection, query: str) -> Iterator[sa.Row[Any]]:
    """Rows in batches, so that no more than one batch of bodies is in memory."""
    last = 0
    while rows := connection.execute(sa.text(f"{query} LIMIT {BATCH}"), {"n": last}).all():
        yield from rows
        last = rows[-1].n

"""Migrations of the record from every schema that was ever released, one file per step in `versions`.

A step is written against the tables as they were then: it imports nothing of Tutelage, whose nouns go on changing.
"""

import threading
from pathlib import Path

from sqlalchemy import Connection

_LOCK = threading.Lock()  # Alembic keeps the migration that runs in module globals


def migrate(connection: Connection, found: int) -> None:
    """Bring tables of schema version `found` to the newest, inside the transaction that `connection` is in."""
    from alembic import command
    from alembic.config import Config

    folder = Path(__file__).parent
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    with _LOCK:
        # The record keeps its version itself (`meta`), so Alembic's own note of it is made anew each time.
        command.stamp(config, revision(found), purge=True)
        command.upgrade(config, "head")


def revision(version: int) -> str:
    """Alembic's name of a schema version."""
    return f"{version:04d}"

"""Run by Alembic: uses the connection, and so the transaction, of whoever opens the record."""

from alembic import context

from tutelage.record_tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()

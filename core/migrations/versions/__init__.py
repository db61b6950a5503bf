"""One module per schema version; Alembic finds them by their `revision`."""

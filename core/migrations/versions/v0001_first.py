"""Schema 1: trajectories, verdicts, experiences with their sources, students, promotions, metrics, documents.

The tables were made by the first release as a whole; there is nothing to come from.
"""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: a record never has less than schema 1."""

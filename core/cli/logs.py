"""What commands that run by themselves write to stderr."""

import logging
import os

_JOURNAL = "JOURNAL_STREAM"
"""Set by systemd where stderr goes to its journal, which reads priorities and adds times."""
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}


class _Lines(logging.Formatter):
    """With the priority before every line that the journal is to file under it."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 7)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def log_to_stderr() -> None:
    """Write what happens in Tutelage, and what goes wrong anywhere."""
    handler = logging.StreamHandler()
    journal = _JOURNAL in os.environ
    handler.setFormatter(
        _Lines("%(message)s") if journal else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("tutelage").setLevel(logging.INFO)

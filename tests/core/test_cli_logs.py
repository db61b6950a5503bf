"""A service's log lines as systemd's journal files them."""

import os
import subprocess
import sys

SCRIPT = """
import logging
from tutelage.cli.logs import log_to_stderr
log_to_stderr()
logging.getLogger("tutelage.jobs").info("queued")
logging.getLogger("tutelage.serving").error("two\\nlines")
logging.getLogger("other").info("chatter")
"""


def said(**environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_every_line_has_its_priority_where_the_journal_reads_it() -> None:
    assert said(JOURNAL_STREAM="8:1") == ["<6>queued", "<3>two", "<3>lines"]
    first, second, _ = said()
    assert first.endswith(" INFO queued")
    assert second.endswith(" ERROR two")

"""The command line. Heavy parts are imported by the command that needs them, never by ``--help``."""

import sys

from tutelage.cli.app import app, fail
from tutelage.errors import TutelageError

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Entry point: a `TutelageError` is one line on stderr and exit code 2."""
    from tutelage.cli import (  # noqa: F401  (they register their commands)
        annotate,
        calibrate,
        consolidate,
        evidence,
        job_queue,
        job_triggers,
        jobs,
        keeping,
        look,
        memory,
        memory_files,
        memory_writing,
        money,
        retrieval,
        serve,
        served,
        serving,
        stores,
        students,
        training,
        trust,
    )

    if unreadable := next((word for word in sys.argv[1:] if not _is_text(word)), None):
        fail(f"{unreadable!a} is not UTF-8 text")
    try:
        app()
    except TutelageError as error:
        fail(str(error))
    except Exception as error:
        if reason := _busy(error):
            fail(f"the database is busy or away: {reason}")
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, job_queue.Stopped):  # it has said so itself
            raise
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:  # what Typer makes of Ctrl-C
            raise
        print("stopped; what is finished is saved, and the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _busy(error: Exception) -> str:
    """What keeps a database from answering now; empty: something else is wrong."""
    from sqlalchemy.exc import OperationalError  # here, for --help wants none of it

    if not isinstance(error, OperationalError):
        return ""
    # SQLite says the same kind of error of a statement that makes no sense, which is a mistake of ours.
    return "" if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR" else str(error.orig)


def _is_text(word: str) -> bool:
    """Whether no byte of an argument stands for itself: such a word can be neither kept nor searched for."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True

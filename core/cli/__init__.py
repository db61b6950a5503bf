"""The command line. Heavy parts are imported by the command that needs them, never by ``--help``."""

import sys

from tutelage.cli.app import app, fail
from tutelage.errors import TutelageError

__all__ = ["main"]


def main() -> None:
    """Entry point: a `TutelageError` is one line on stderr and exit code 2."""
    from tutelage.cli import annotate, calibrate, jobs, look, money, stores  # noqa: F401  (they register their commands)

    try:
        app()
    except TutelageError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command continues where it was", file=sys.stderr)
        sys.exit(130)

"""Commands in this process, as they are typed."""

import sys

import pytest

from tutelage.cli import main


def command(*words: str) -> int:
    """The exit code of ``tutelage WORD …``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tutelage", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)

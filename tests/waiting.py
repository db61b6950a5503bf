"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

import pytest


def until(come: Callable[[], object], seconds: float = 30.0) -> None:
    """Return as soon as it has come."""
    end = time.monotonic() + seconds
    while not come():
        if time.monotonic() > end:
            pytest.fail(f"it did not come to that within {seconds:g} s")
        time.sleep(0.01)

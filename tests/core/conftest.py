"""Fixtures for tests of the core."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_students import opened

from tutelage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """One with its base student; files that need another one make their own."""
    workspace = opened(tmp_path / "w")
    workspace.base_student()
    yield workspace
    workspace.close()

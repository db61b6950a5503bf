"""Options and fixtures of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-counts", action="store_true", help="run the slow suites in full, not on a sample")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for `full_counts` is slow in full; `-m slow` selects those."""
    for item in items:
        if "full_counts" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def full_counts(request: pytest.FixtureRequest) -> bool:
    """Whether slow suites run everything they have."""
    return bool(request.config.getoption("--full-counts"))

"""What all models of one provider share in this process: the calls under way, and what it was found to refuse."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition

from tutelage.completion import provider_name

BASES = ("API_BASE", "BASE_URL")
"""Endings of the environment variables that LiteLLM takes a provider's address from."""


class Provider:
    """One address that is called; use `provider_of`."""

    def __init__(self) -> None:
        self.without_schema: set[str] = set()
        """Models that refused `response_format`."""
        self._under_way = 0
        self._changed = Condition()

    @contextmanager
    def place(self, limit: int) -> Iterator[None]:
        """Wait until fewer than `limit` calls to this provider are under way, and be one of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < limit)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()


def provider_of(model: str) -> Provider:
    """What is shared about the provider of `model` at the address that the environment gives it now."""
    name = provider_name(model)
    variables = [f"{name.upper()}_{ending}" for ending in BASES]
    return _provider(name, next((os.environ[each] for each in variables if os.environ.get(each)), ""))


@cache
def _provider(name: str, address: str) -> Provider:
    return Provider()

"""Exact nearest neighbours in memory: what a process without the Chroma index searches with, and what is fastest for
few candidates."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.memory.embedder import Vectors

_START = 64
_DENSE = 0.5
"""Share of all rows from which it is faster to compare with every row than to gather those wanted."""


class ExactIndex:
    """Vectors by slot, in one growing matrix."""

    def __init__(self, dimension: int) -> None:
        self._matrix = np.zeros((_START, dimension), dtype=np.float32)
        self._size = 0

    def put(self, slot: int, vector: Vectors) -> None:
        """Add or replace the vector of shape (dimension,) of a slot; slots are numbered from 0 without gaps."""
        while slot >= len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._matrix[slot] = vector
        self._size = max(self._size, slot + 1)

    def vectors(self, slots: NDArray[np.int64]) -> Vectors:
        return self._matrix[slots]

    def similarities(self, vector: Vectors, slots: NDArray[np.int64]) -> Vectors:
        """Cosine similarity to each slot, for vectors of length 1."""
        if len(slots) > _DENSE * self._size:
            return _products(self._matrix[: self._size], vector)[slots]
        return _products(self._matrix[slots], vector)

    def nearest(self, vector: Vectors, slots: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The `count` slots that are most similar, in no order."""
        if len(slots) <= count:
            return slots
        return slots[top(self.similarities(vector, slots), count)]


def _products(matrix: Vectors, vector: Vectors) -> Vectors:
    """Not with `@`: its threads wait for each other, on two busy cores 26 ms for 4,096 rows against 0.2 ms."""
    return np.asarray(np.einsum("ij,j->i", matrix, vector))


def top(scores: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of the `count` highest scores, in no order."""
    if len(scores) <= count:
        return np.arange(len(scores))
    return np.argpartition(scores, len(scores) - count)[len(scores) - count :]

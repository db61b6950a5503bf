"""Texts to vectors, offline."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import MissingPart
from tutelage.registry import resolve

BUILTIN = {"wordllama": "tutelage.memory.embedder:WordLlamaEmbedder"}
ENTRY_POINTS = "tutelage.embedders"

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Constructed without arguments; the same text always gives the same vector."""

    name: str
    """Names the model that the vectors come from; vectors of different names are never compared."""
    dimension: int

    def embed(self, texts: list[str]) -> Vectors:
        """Float32 of shape (texts, dimension); rows have length 1, or 0 where there is nothing to embed."""
        ...


class WordLlamaEmbedder:
    """WordLlama: averaged token embeddings of a large language model; its weights are in its wheel."""

    name = "wordllama/l2_supercat_256"
    dimension = 256

    def __init__(self) -> None:
        try:
            with _logging_kept():
                import wordllama
        except ModuleNotFoundError as error:
            raise MissingPart("the wordllama embedder is missing: pip install 'tutelage[memory]'") from error
        # By default it looks for the tokenizer in a folder that its wheel does not have, then downloads.
        home = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(dim=self.dimension, cache_dir=home, disable_download=True)

    def embed(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return unit(self._model.embed(texts, norm=False))


@contextmanager
def _logging_kept() -> Iterator[None]:
    """WordLlama sets up the root logger when imported; that is the application's business."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def unit(vectors: NDArray[Any]) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def known_embedder(name: str) -> Callable[[], Embedder]:
    """What makes the embedder that `name` stands for: a short name, an entry point or a dotted path.

    Raises:
        UnknownName: listing what exists.
    """
    return resolve(name, BUILTIN, what="embedder", group=ENTRY_POINTS)


def embedder(name: str) -> Embedder:
    """The embedder itself.

    Raises:
        UnknownName: listing what exists.
        MissingPart: its library is not installed.
    """
    return known_embedder(name)()

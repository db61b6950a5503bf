"""The vector index: an embedded Chroma collection that may be lost at any time without loss.

Chroma is only ever used inside one process (several on one folder hang or corrupt it), with explicit
embeddings (its default embedder downloads a model) and without telemetry.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from tutelage.errors import MemoryBusy, MissingPart
from tutelage.memory.embedder import Vectors

_LOG = logging.getLogger(__name__)
_COLLECTION = "experiences"
_BATCH = 1000

Metadata = Mapping[str, str | int]


class VectorIndex:
    """Ids with a vector and metadata (its `version` above all), searched by cosine similarity.

    Opening takes the folder for this process. A missing or damaged index, or one made by another
    embedder, is replaced by an empty one; compare `versions()` with what should be there.
    """

    def __init__(self, folder: Path, *, embedder: str, dimension: int) -> None:
        self.folder = folder
        self._identity: dict[str, str | int] = {"embedder": embedder, "dimension": dimension}
        self._lock = _take(folder)
        self._client: Any = None
        self._collection: Any = None
        try:
            self._open(dimension)
        except BaseException:
            self.close()
            raise

    def _open(self, dimension: int) -> None:
        stores = sorted(self.folder.glob("chroma-*"))
        if len(stores) != 1:
            self._replace("there is none" if not stores else "several were left behind")
            return
        try:
            self._connect(stores[0])
            identity = {name: (self._collection.metadata or {}).get(name) for name in self._identity}
            if identity == self._identity:
                # Damage to the vectors' own files shows only when they are searched.
                self.search(np.ones(dimension, dtype=np.float32), 1)
                self.versions()
                return
            problem = f"it holds vectors of {identity['embedder']} ({identity['dimension']} numbers)"
        except Exception as error:  # whatever a damaged file makes Chroma raise: the record has everything
            problem = f"it cannot be read ({error})"
        self._replace(problem)

    def versions(self) -> dict[str, int]:
        """The version of every id."""
        found = self._collection.get(include=["metadatas"])
        return {key: int(data["version"]) for key, data in zip(found["ids"], found["metadatas"], strict=True)}

    def upsert(self, ids: Sequence[str], vectors: Vectors, metadata: Sequence[Metadata]) -> None:
        """Add or replace; `vectors` has shape (ids, dimension)."""
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            self._collection.upsert(
                ids=list(ids[part]), embeddings=vectors[part], metadatas=[dict(data) for data in metadata[part]]
            )

    def delete(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _BATCH):
            self._collection.delete(ids=list(ids[start : start + _BATCH]))

    def search(self, vector: Vectors, count: int, where: Mapping[str, Any] | None = None) -> dict[str, float]:
        """The nearest ids with their cosine similarity, nearest first; `where` is a Chroma filter."""
        found = self._collection.query(
            query_embeddings=[vector], n_results=count, where=dict(where) if where else None, include=["distances"]
        )
        return {key: 1 - distance for key, distance in zip(found["ids"][0], found["distances"][0], strict=True)}

    def similarities(self, vector: Vectors, ids: Sequence[str]) -> dict[str, float]:
        """Cosine similarity of the given ids; ones that are not there are left out."""
        if not ids:
            return {}
        found = self._collection.get(ids=list(ids), include=["embeddings"])
        return dict(zip(found["ids"], (np.asarray(found["embeddings"]) @ vector).tolist(), strict=True))

    def clear(self) -> None:
        """Start again from nothing."""
        self._replace("asked to")

    def close(self) -> None:
        """Give the folder free for other processes."""
        self._disconnect()
        self._lock.close()

    def _connect(self, path: Path) -> None:
        os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
        try:
            import chromadb
            from chromadb.config import Settings
        except ModuleNotFoundError as error:
            raise MissingPart("Chroma is missing: pip install 'tutelage[memory]'") from error
        self._client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
        self._collection = self._client.get_or_create_collection(
            _COLLECTION,
            embedding_function=None,
            metadata=self._identity,
            configuration={"hnsw": {"space": "cosine"}},
        )

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._collection = None

    def _replace(self, reason: str) -> None:
        _LOG.info("building the memory index %s anew: %s", self.folder, reason)
        self._disconnect()
        for store in self.folder.glob("chroma-*"):
            shutil.rmtree(store)
        # A fresh name each time: within a process, Chroma remembers clients by path, broken ones too.
        self._connect(self.folder / f"chroma-{uuid4().hex[:8]}")


def _take(folder: Path) -> IO[str]:
    """Lock the folder for this process until the file is closed, by a kill too."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise MemoryBusy(f"the memory index {folder} is in use by process {holder}; wait for it or end it") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock

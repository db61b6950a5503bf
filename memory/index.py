"""The Chroma index: approximate nearest neighbours on disk, which may be lost at any time without loss.

Chroma is only ever used inside one process (several on one folder hang or corrupt it), with explicit embeddings (its
default embedder downloads a model) and without telemetry. A `where` filter makes it scan the whole collection (70 ms
among 100,000), so it is given none: each tenant and environment has a collection of its own, and whoever asks filters
what it gets.
"""

import ctypes
import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from tutelage.errors import MemoryBusy, MissingPart
from tutelage.memory.embedder import Vectors

_LOG = logging.getLogger(__name__)
_BATCH = 1000
_PAGE = 10_000
_HNSW = {
    "space": "cosine",
    "batch_size": 1000,
    # By default the graph is written out whole after every 1,000 vectors; what is not written is replayed at open.
    "sync_threshold": 5000,
}


class VectorIndex:
    """One tenant's ids with a vector each, by environment, searched by cosine similarity.

    Opening takes the folder for this process. An index that is missing, damaged, or was made by another embedder or
    version of Chroma is replaced by an empty one; `done` says how far each collection is.
    """

    def __init__(self, folder: Path, *, tenant: str, made_with: str, dimension: int) -> None:
        """`made_with` names all that vectors depend on.

        Raises:
            MemoryBusy: another process, or another store of this one, has the folder.
            MissingPart: Chroma is not installed.
        """
        self.folder = folder
        self._tenant, self._dimension = tenant, dimension
        self._collections: dict[str, Any] = {}
        self._client: Any = None
        self._lock = _take(folder)
        try:
            self._chroma = _library()
            self._identity = {"made_with": f"{made_with}, {dimension} numbers, Chroma {self._chroma.__version__}"}
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        stores = sorted(self.folder.glob("chroma-*"))
        if len(stores) != 1:
            self._replace("there is none" if not stores else "several were left behind")
            return
        try:
            self._connect(stores[0])
            problem = self._check()
        except Exception as error:  # whatever a damaged file makes Chroma raise: the record has everything
            problem = f"it cannot be read ({error})"
        if problem:
            self._replace(problem)

    def _check(self) -> str:
        """What is wrong with this tenant's collections, if anything."""
        for collection in self._client.list_collections():
            data = collection.metadata or {}
            made_with = data.get("made_with", "something else")
            if made_with != self._identity["made_with"]:
                return f"it was made with {made_with}, not with {self._identity['made_with']}"
            if data["tenant"] == self._tenant:
                self._collections[data["environment"]] = collection
        for environment in self._collections:
            # Damage to the vectors' own files shows only when they are searched.
            with _nothing_left_in_memory():
                self.search(environment, np.ones(self._dimension, dtype=np.float32), 1)
        return ""

    @property
    def environments(self) -> list[str]:
        return sorted(self._collections)

    def done(self, environment: str) -> int:
        """The number that the environment was last marked with; 0 if never."""
        collection = self._collections.get(environment)
        return int(collection.metadata.get("done", 0)) if collection is not None else 0

    def mark(self, environment: str, done: int) -> None:
        """Keep a number beside the vectors: how far they go."""
        collection = self._collection(environment)
        collection.modify(metadata={**collection.metadata, "done": done})

    def count(self, environment: str) -> int:
        collection = self._collections.get(environment)
        return collection.count() if collection is not None else 0

    def ids(self, environment: str) -> Iterator[str]:
        if environment in self._collections:
            collection, start = self._collections[environment], 0
            while found := collection.get(include=[], limit=_PAGE, offset=start)["ids"]:
                yield from found
                start += len(found)

    def upsert(self, environment: str, ids: Sequence[str], vectors: Vectors) -> None:
        """Add or replace; `vectors` has shape (ids, dimension)."""
        with _nothing_left_in_memory():
            for start in range(0, len(ids), _BATCH):
                part = slice(start, start + _BATCH)
                self._collection(environment).upsert(ids=list(ids[part]), embeddings=vectors[part])

    def delete(self, environment: str, ids: Sequence[str]) -> None:
        if environment in self._collections:
            with _nothing_left_in_memory():
                for start in range(0, len(ids), _BATCH):
                    self._collections[environment].delete(ids=list(ids[start : start + _BATCH]))

    def search(self, environment: str, vector: Vectors, count: int) -> dict[str, float]:
        """The nearest ids with their cosine similarity, nearest first."""
        if environment not in self._collections:
            return {}
        collection = self._collections[environment]
        found = collection.query(query_embeddings=[vector], n_results=count, include=["distances"])
        return {key: 1 - distance for key, distance in zip(found["ids"][0], found["distances"][0], strict=True)}

    def drop(self, environment: str) -> None:
        """Forget an environment."""
        if self._collections.pop(environment, None) is not None:
            self._client.delete_collection(self._name(environment))

    def clear(self) -> None:
        """Start again from nothing."""
        self._replace("asked to")

    def close(self) -> None:
        """Give the folder free for other processes."""
        self._disconnect()
        self._lock.close()

    def _name(self, environment: str) -> str:
        return sha256(f"{self._tenant}\n{environment}".encode()).hexdigest()[:32]

    def _collection(self, environment: str) -> Any:
        if environment not in self._collections:
            self._collections[environment] = self._client.create_collection(
                self._name(environment),
                embedding_function=None,
                metadata={**self._identity, "tenant": self._tenant, "environment": environment, "done": 0},
                configuration={"hnsw": {**_HNSW, "num_threads": os.cpu_count() or 1}},
            )
        return self._collections[environment]

    def _connect(self, path: Path) -> None:
        from chromadb.config import Settings

        self._client = self._chroma.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))

    def _disconnect(self) -> None:
        if self._client is not None:
            with _nothing_left_in_memory():
                self._client.close()
        self._client = None
        self._collections = {}

    def _replace(self, reason: str) -> None:
        _LOG.info("building the memory index %s anew: %s", self.folder, reason)
        self._disconnect()
        for store in self.folder.glob("chroma-*"):
            shutil.rmtree(store)
        # A fresh name each time: within a process, Chroma remembers clients by path, broken ones too.
        self._connect(self.folder / f"chroma-{uuid4().hex[:8]}")


_M_PERTURB, _PATTERN = -6, 0x55  # of glibc's mallopt
_perturbing = threading.Lock()
_inside = 0


@contextmanager
def _nothing_left_in_memory() -> Iterator[None]:
    """Memory that is allocated inside is overwritten first, where the C library can do that (glibc).

    Chroma writes the whole buffer of a small collection to its file, used or not; without this it holds whatever this
    process had there before, texts that were forgotten since among it.
    """
    global _inside
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    with _perturbing:
        _inside += 1
        if mallopt is not None and _inside == 1:
            mallopt(_M_PERTURB, _PATTERN)
    try:
        yield
    finally:
        with _perturbing:
            _inside -= 1
            if mallopt is not None and _inside == 0:
                mallopt(_M_PERTURB, 0)


def _library() -> Any:
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    try:
        import chromadb
    except ModuleNotFoundError as error:
        raise MissingPart("Chroma is missing: pip install 'tutelage[memory]'") from error
    return chromadb


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

"""Many processes on one workspace: nothing is lost, versions never collide, and a kill leaves nothing behind."""

import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import memory_worker as worker
import numpy as np
import pytest

from tutelage.config import MemoryConfig
from tutelage.experience import Change
from tutelage.memory.embedder import embedder
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.memory.text import gist
from tutelage.record import Record

WORKER = Path(__file__).with_name("memory_worker.py")


@contextmanager
def a_process(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(WORKER), str(folder), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _told(process: "subprocess.Popen[str]", order: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_of_what_many_processes_write_at_once_nothing_is_lost(tmp_path: Path, full_counts: bool) -> None:
    processes, writes = (16, 1000) if full_counts else (4, 30)
    record = Record.open(tmp_path)
    store = MemoryStore(record, tmp_path / "index", MemoryConfig())
    store.add(worker.a_skill("counter", 0, id="exp_counter"))
    command = [sys.executable, str(WORKER), str(tmp_path)]
    running = [subprocess.Popen([*command, f"p{name}", "write", str(writes)]) for name in range(1, processes + 1)]
    assert [process.wait() for process in running] == [0] * processes
    shared = range(0, writes, worker.SHARED)
    own = [f"p{name}word{index}" for name in range(1, processes + 1) for index in range(writes)]
    goals = [item.goal for item in store.experiences() if item.id != "exp_counter"]
    assert sorted(goals) == sorted([*own, *(f"shared{index}" for index in shared)])
    for item in store.experiences():
        versions = [version.version for version in store.history(item.id)]
        assert versions == list(range(1, item.version + 1))
        if item.goal.startswith("shared"):
            assert (len(item.sources), item.version) == (processes, processes)
    assert store.get("exp_counter").version == 1 + processes * len(shared)
    # The store was open all the time: it follows, by words and by vectors.
    for goal in random.Random(0).sample(own, 20):
        assert store.search(Query(goal, k=1))[0].experience.goal == goal
    figures = store.stats()
    assert figures["indexed"] == figures["experiences"] == len(goals) + 1
    store.close()


def test_who_holds_the_index_and_who_does_not_see_the_same_and_the_next_takes_over(tmp_path: Path) -> None:
    def opened() -> MemoryStore:
        return MemoryStore(Record.open(tmp_path), tmp_path / "index", MemoryConfig())

    with a_process(tmp_path, "p1", "serve") as holder:
        assert _told(holder, "index") == "Chroma, kept by this process"
        first = _told(holder, "add feed the cat")
        reader = opened()
        assert f"in use by process {holder.pid}" in reader.stats()["index"]
        assert reader.search(Query("give the cat some food", k=1))[0].experience.id == first
        reader.add(worker.a_skill("water the plants", 2))
        assert _told(holder, "find give the plants some water") == "water the plants"
        reader.change(first, Change(by="hand:me"), goal="feed the dog")
        assert _told(holder, "find feed the dog") == "feed the dog"
        reader.forget(first, reason="private", by="hand:me")
        assert _told(holder, "find feed the dog") == "water the plants"
        reader.close()
    after = opened()
    assert after.stats()["index"] == "Chroma, kept by this process"
    assert [hit.experience.goal for hit in after.search(Query("plants"))] == ["water the plants"]
    after.close()


def test_a_kill_during_writes_loses_nothing_that_was_answered(
    tmp_path: Path, full_counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    chance, told = random.Random(1), dict[str, int]()
    for kill in range(200 if full_counts else 5):
        with a_process(tmp_path, f"k{kill}", "flood") as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            time.sleep(chance.random() / 2)
            process.kill()
            lines += process.stdout.readlines()
        for line in lines:
            if line.endswith("\n"):
                *ids, version = line.split()
                told |= {**dict.fromkeys(ids, 1), ids[0]: int(version)}
        record = Record.open(tmp_path)
        there = {item.id: item for item in record.experiences()}
        assert told.items() <= {key: item.version if key in told else 0 for key, item in there.items()}.items()
        with (
            caplog.at_level(logging.INFO, "tutelage"),
            MemoryStore(record, tmp_path / "index", MemoryConfig()) as store,
        ):
            figures = store.stats()
            assert figures["indexed"] == figures["experiences"] == len(there)
        assert "it cannot be read" not in caplog.text
        record.close()
        held = _held(tmp_path / "index")
        assert held.keys() == there.keys()
        made = embedder("wordllama").embed([gist(item) for item in there.values()])
        assert np.allclose([held[key] for key in there], made, atol=1e-5), "vectors are those of the newest versions"


def _held(folder: Path) -> dict[str, Any]:
    """What Chroma itself holds."""
    import chromadb
    from chromadb.config import Settings

    (store,) = folder.glob("chroma-*")
    client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
    held: dict[str, Any] = {}
    for collection in client.list_collections():
        found = collection.get(include=["embeddings"])
        held |= dict(zip(found["ids"], np.asarray(found["embeddings"]), strict=True))
    client.close()
    return held

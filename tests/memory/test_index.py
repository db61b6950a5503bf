"""The vector index may be damaged, lost, locked or of another embedder; the record has everything."""

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tutelage.config import MemoryConfig
from tutelage.errors import MemoryBusy
from tutelage.experience import Experience, Skill, Source, Status
from tutelage.memory.index import VectorIndex
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.record import Record

OTHER_EMBEDDER = """
import numpy as np

class Letters:
    name = "letters"
    dimension = 26

    def embed(self, texts):
        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
"""


def a_skill(text: str) -> Experience:
    return Experience(
        environment="toy",
        family="f",
        goal=text,
        content=Skill(preconditions=(), procedure=(f"say({text!r})",), verification=()),
        sources=(Source(trajectory="trj_0", task="toy/f@0"),),
        status=Status.ACTIVE,
        author="rules (scripted)",
        verbatim=text,
    )


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Record, Path]:
    """A record with three experiences and the folder of its memory, closed."""
    record = Record.open(tmp_path)
    with MemoryStore(record, tmp_path / "memory", MemoryConfig()) as memory:
        memory.add_many(a_skill(text) for text in ("open the door", "feed the cat", "count the money"))
        memory.sync()
    return record, tmp_path / "memory"


def _goals(record: Record, folder: Path, query: str, config: MemoryConfig | None = None) -> list[str]:
    with MemoryStore(record, folder, config or MemoryConfig()) as memory:
        assert memory.stats()["indexed"] == memory.stats()["experiences"] == 3
        return [hit.experience.goal for hit in memory.search(Query(query, k=1))]


def an_index(folder: Path, made_with: str = "e", dimension: int = 3) -> VectorIndex:
    return VectorIndex(folder, tenant="default", made_with=made_with, dimension=dimension)


def test_vectors_are_found_replaced_and_kept_apart_by_environment(tmp_path: Path) -> None:
    index = an_index(tmp_path)
    eye = np.eye(3, dtype=np.float32)
    index.upsert("here", ["a", "b"], eye[:2])
    index.upsert("there", ["c"], eye[2:])
    index.mark("here", 7)
    assert index.search("here", eye[1], 1) == {"b": pytest.approx(1)}
    assert list(index.search("there", eye[1], 1)) == ["c"]
    assert index.search("nowhere", eye[1], 1) == {}
    index.upsert("here", ["a"], eye[1:2])
    assert index.search("here", eye[1], 2) == {"a": pytest.approx(1), "b": pytest.approx(1)}
    index.delete("here", ["b"])
    index.close()
    again = an_index(tmp_path)
    assert (again.environments, again.done("here"), again.done("there")) == (["here", "there"], 7, 0)
    assert ([*again.ids("here")], again.count("there")) == (["a"], 1)
    again.drop("here")
    assert (again.environments, again.count("here"), again.done("here")) == (["there"], 0, 0)
    again.close()
    stranger = VectorIndex(tmp_path, tenant="other", made_with="e", dimension=3)
    assert stranger.environments == []
    stranger.close()


def test_an_intact_index_is_not_rebuilt(filled: tuple[Record, Path], caplog: pytest.LogCaptureFixture) -> None:
    record, folder = filled
    with caplog.at_level(logging.INFO, "tutelage"):
        assert _goals(record, folder, "give food to the cat") == ["feed the cat"]
    assert caplog.messages == []


@pytest.mark.parametrize("damage", ["folder gone", "database overwritten", "database emptied"])
def test_a_damaged_index_is_rebuilt_with_a_line_in_the_log(
    filled: tuple[Record, Path], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = filled
    if damage == "folder gone":
        shutil.rmtree(folder)
    else:
        (database,) = folder.glob("*/chroma.sqlite3")
        database.write_bytes(b"garbage" * 5000 if "overwritten" in damage else b"")
    with caplog.at_level(logging.INFO, "tutelage"):
        assert _goals(record, folder, "give food to the cat") == ["feed the cat"]
    assert "3 experiences to write" in caplog.text


def test_what_was_written_behind_its_back_is_repaired(filled: tuple[Record, Path]) -> None:
    record, folder = filled
    cat = next(item for item in record.experiences() if "cat" in item.goal)
    record.save_experience(cat.model_copy(update={"version": 2, "status": Status.RETIRED}))
    with closing(sqlite3.connect(next(folder.glob("chroma-*")) / "chroma.sqlite3")) as database:
        ((ours,),) = database.execute("select str_value from collection_metadata where key = 'made_with'").fetchall()
    made_with = ours.partition(", 256 numbers")[0]
    index = an_index(folder, made_with, 256)
    assert [*index.ids("toy")] == [item.id for item in record.experiences()]
    index.upsert("toy", ["exp_ghost"], np.ones((1, 256), dtype=np.float32))
    index.upsert("gone", ["exp_ghost"], np.ones((1, 256), dtype=np.float32))
    index.delete("toy", [cat.id])
    index.close()
    assert _goals(record, folder, "give food to the cat") != ["feed the cat"]


@pytest.mark.parametrize("damage", ["gone", "overwritten", "cut off", "rows too short"])
def test_what_was_made_for_search_is_made_again(filled: tuple[Record, Path], damage: str) -> None:
    record, folder = filled
    path = folder / "search.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        if damage == "rows too short":
            database.execute("update derived set vector = x'00', words = x'00'")
        database.execute("pragma wal_checkpoint(truncate)")
    content = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "overwritten":
            path.write_bytes(b"garbage" * 5000)
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        assert _goals(record, folder, "give food to the cat") == ["feed the cat"]
    with MemoryStore(record, folder, MemoryConfig()) as memory:
        assert memory.search(Query("cat", mode="keyword"))[0].experience.goal == "feed the cat"


def test_another_version_of_chroma_rebuilds(
    filled: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = filled
    monkeypatch.setattr("chromadb.__version__", "99.0")
    with caplog.at_level(logging.INFO, "tutelage"):
        assert _goals(record, folder, "give food to the cat") == ["feed the cat"]
    assert "256 numbers, Chroma 99.0" in caplog.text
    assert "3 experiences to write, 0 to remove" in caplog.text


def test_search_goes_on_when_chroma_fails_under_way(
    filled: tuple[Record, Path], caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = filled
    memory = MemoryStore(record, folder, MemoryConfig())
    assert memory.stats()["indexed"] == 3
    (store,) = folder.glob("chroma-*")
    shutil.rmtree(store)
    memory.add(a_skill("water the plants"))
    memory.reindex()
    assert memory.search(Query("give the plants some water", k=1))[0].experience.goal == "water the plants"
    memory.close()
    with MemoryStore(record, folder, MemoryConfig()) as memory:
        assert memory.stats()["indexed"] == 4


def test_another_embedder_rebuilds_and_is_used(
    filled: tuple[Record, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = filled
    (tmp_path / "letters_embedder.py").write_text(OTHER_EMBEDDER)
    monkeypatch.syspath_prepend(tmp_path)
    letters = MemoryConfig(embedder="letters_embedder:Letters", vector_weight=1)
    with caplog.at_level(logging.INFO, "tutelage"):
        assert _goals(record, folder, "moneyy the count", letters) == ["count the money"]
    assert "it was made with wordllama/l2_supercat_256, texts" in caplog.text
    assert _goals(record, folder, "give food to the cat") == ["feed the cat"]


HOLDER = """
import sys, time
from pathlib import Path
from tutelage.memory.index import VectorIndex

index = VectorIndex(Path(sys.argv[1]), tenant="t", made_with="e", dimension=2)
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_in_use_is_refused_by_pid_and_free_again_after_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(MemoryBusy, match=f"in use by process {child.pid}"):
            an_index(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
    an_index(tmp_path).close()


def test_files_hold_nothing_of_what_the_memory_of_the_process_held(tmp_path: Path) -> None:
    """Chroma writes its buffer out whole; what nobody put there must not be what stood there before."""
    with closing(VectorIndex(tmp_path, tenant="default", made_with="m", dimension=256)) as index:
        index.upsert("toy", ["a"], np.ones((1, 256), dtype=np.float32))
    (file,) = tmp_path.rglob("data_level0.bin")
    unused = np.frombuffer(file.read_bytes(), dtype=np.uint8)[-50_000:]
    assert set(unused.tolist()) == {0xFF ^ 0x55}, "overwritten when it was allocated"

"""The vector index may be damaged, lost, locked or of another embedder; the record has everything."""

import logging
import os
import shutil
import signal
import subprocess
import sys
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
    )


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Record, Path]:
    """A record with three experiences and the folder of its memory, closed."""
    record = Record.open(tmp_path)
    with MemoryStore(record, tmp_path / "memory", MemoryConfig()) as memory:
        for text in ("open the door", "feed the cat", "count the money"):
            memory.add(a_skill(text))
    return record, tmp_path / "memory"


def _goals(record: Record, folder: Path, query: str, config: MemoryConfig | None = None) -> list[str]:
    with MemoryStore(record, folder, config or MemoryConfig()) as memory:
        assert memory.stats()["indexed"] == memory.stats()["experiences"] == 3
        return [hit.experience.goal for hit in memory.search(Query(query, k=1))]


def test_vectors_are_found_filtered_and_replaced(tmp_path: Path) -> None:
    index = VectorIndex(tmp_path, embedder="e", dimension=3)
    eye = np.eye(3, dtype=np.float32)
    index.upsert(["a", "b", "c"], eye, [{"version": 1, "kind": kind} for kind in ("x", "y", "x")])
    assert index.search(eye[1], 1) == {"b": pytest.approx(1)}
    assert list(index.search(eye[1], 3, {"kind": "x"})) in (["a", "c"], ["c", "a"])
    index.upsert(["a"], eye[1:2], [{"version": 2, "kind": "x"}])
    assert index.versions() == {"a": 2, "b": 1, "c": 1}
    assert index.similarities(eye[1], ["a", "c", "nobody"]) == {"a": 1.0, "c": 0.0}
    index.delete(["b"])
    index.close()
    again = VectorIndex(tmp_path, embedder="e", dimension=3)
    assert again.versions() == {"a": 2, "c": 1}
    again.close()


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
    index = VectorIndex(folder, embedder="wordllama/l2_supercat_256", dimension=256)
    index.upsert(["exp_ghost"], np.ones((1, 256), dtype=np.float32), [{"version": 1}])
    index.close()
    assert _goals(record, folder, "give food to the cat") != ["feed the cat"]


def test_another_embedder_rebuilds_and_is_used(
    filled: tuple[Record, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record, folder = filled
    (tmp_path / "letters_embedder.py").write_text(OTHER_EMBEDDER)
    monkeypatch.syspath_prepend(tmp_path)
    letters = MemoryConfig(embedder="letters_embedder:Letters", vector_weight=1)
    with caplog.at_level(logging.INFO, "tutelage"):
        assert _goals(record, folder, "moneyy the count", letters) == ["count the money"]
    assert "holds vectors of wordllama/l2_supercat_256 (256 numbers)" in caplog.text
    assert _goals(record, folder, "give food to the cat") == ["feed the cat"]


HOLDER = """
import sys, time
from pathlib import Path
from tutelage.memory.index import VectorIndex

index = VectorIndex(Path(sys.argv[1]), embedder="e", dimension=2)
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_in_use_is_refused_by_pid_and_free_again_after_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(MemoryBusy, match=f"in use by process {child.pid}"):
            VectorIndex(tmp_path, embedder="e", dimension=2)
        os.kill(child.pid, signal.SIGKILL)
    VectorIndex(tmp_path, embedder="e", dimension=2).close()

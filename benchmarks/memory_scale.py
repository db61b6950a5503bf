"""Memory at 1,000, 10,000 and 100,000 experiences, beside bare Chroma and mem0 in the same run.

    python benchmarks/memory_scale.py [--sizes 1000 10000 100000] [--mem0 VENV/bin/python]

Experiences are made up of a skewed vocabulary, in one environment with 200 families; queries are a goal and a page of
1,000 characters. Every size has a process of its own. Searches return 5 and include embedding the query and reading
what was found; those of bare Chroma return ids from a vector, ids from a text, or the experiences themselves from a
text, which is what a search here does. Every line of the table is measured with queries that nobody has asked before,
after a few others to warm up. mem0 keeps texts without an LLM, with the same embeddings in its own Chroma; it needs
its own virtual environment.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tutelage.config import MemoryConfig
from tutelage.experience import Experience, Guardrail, Skill, Source, Status, Sticker
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.memory.text import distilled
from tutelage.record import Record
from tutelage.types import Split, Task

WORDS, FAMILIES, SINGLE, QUERIES, WARM_UP = 20_000, 200, 200, 100, 20
STATUSES = (Status.ACTIVE,) * 5 + (Status.CANDIDATE, Status.RETIRED)


class Language:
    """Words as skewed as those of a language."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        letters = np.array(list("abcdefghiklmnoprstuvw"))
        self.words = ["".join(self.random.choice(letters, size=self.random.integers(3, 9))) for _ in range(WORDS)]
        odds = 1 / np.arange(1, WORDS + 1)
        self.cumulated = np.cumsum(odds / odds.sum())

    def text(self, count: int) -> str:
        return " ".join(self.words[at] for at in np.searchsorted(self.cumulated, self.random.random(count)))


def made_up(language: Language, number: int) -> Experience:
    text = language.text
    content = (
        Skill(preconditions=(text(4),), procedure=(text(5), text(5)), verification=(text(4),)),
        Sticker(conditions=(text(5), text(5)), question=text(8)),
        Guardrail(trigger=(text(3),), root_cause=text(4), forbidden=f"click({number})", remedy=text(5)),
    )[number % 3]
    return Experience(
        environment="toy",
        family=f"family-{number % FAMILIES}",
        goal=text(8),
        content=content,
        sources=(Source(trajectory=f"trj_{number}", task=f"toy/family-{number % FAMILIES}@{number}"),),
        status=STATUSES[number % len(STATUSES)],
        author="made up",
        verbatim=text(25),
    )


def timed(work: Callable[[Any], Any], inputs: Sequence[Any], warm_up: Sequence[Any] = ()) -> list[float]:
    """Milliseconds of each call, and at the end the mean of what all threads of the process had of a core."""
    for item in warm_up:
        work(item)
    times = []
    worked = time.process_time()
    for item in inputs:
        began = time.perf_counter()
        work(item)
        times.append(1e3 * (time.perf_counter() - began))
    return [*times, 1e3 * (time.process_time() - worked) / len(inputs)]


def asked(language: Language, work: Callable[[str], Any]) -> list[float]:
    """`timed` with new queries."""
    queries = [f"{language.text(10)}\n{language.text(200)[:1000]}" for _ in range(WARM_UP + QUERIES)]
    return timed(work, queries[WARM_UP:], queries[:WARM_UP])


def resident() -> float:
    """MB of this process."""
    return psutil.Process().memory_info().rss / 1e6


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(size: int, folder: Path) -> dict[str, Any]:
    """Everything about Tutelage and bare Chroma at one size."""
    language = Language(0)
    experiences = [made_up(language, number) for number in range(size)]
    record, base, result = Record.open(folder), resident(), {}
    store = MemoryStore(record, folder / "index", MemoryConfig())
    began = time.perf_counter()
    for start in range(0, size, 1000):
        store.add_many(experiences[start : start + 1000])
        store.sync()
    store.close()
    result["add in batches /s"] = size / (time.perf_counter() - began)
    began = time.perf_counter()
    store = MemoryStore(record, folder / "index", MemoryConfig())
    store.search(Query(language.text(10)))
    result["open and first search s"] = time.perf_counter() - began
    result["memory MB"], result["record MB"], result["index MB"] = (
        resident() - base,
        size_of(folder) - size_of(folder / "index"),
        size_of(folder / "index"),
    )
    plain = Query("", mode="vector", kinds=("skill",), environment="toy")
    family = replace(plain, family="family-7")
    for name, wanted in (
        ("vector, kind and status", plain),
        ("vector, also family", family),
        ("hybrid, kind and status", replace(plain, mode="fused")),
    ):
        result[name] = asked(language, lambda text, wanted=wanted: store.search(replace(wanted, text=text)))
    task = Task(environment="toy", family="family-7", seed=7, split=Split.TRAIN)
    result["recall"] = asked(language, lambda text: store.recall(task, text, ""))
    reader = MemoryStore(record, folder / "index", MemoryConfig())  # without Chroma, as every other process
    reader.search(Query(language.text(10)))
    for name, wanted in (("reader: vector", plain), ("reader: hybrid", replace(plain, mode="fused"))):
        result[name] = asked(language, lambda text, wanted=wanted: reader.search(replace(wanted, text=text)))
    reader.close()
    singles = [made_up(language, size + number) for number in range(2 * SINGLE)]
    result["one add"] = timed(store.add, singles[:SINGLE])
    store.sync()
    result["one add, indexed at once"] = timed(lambda item: (store.add(item), store.sync()), singles[SINGLE:])
    embed = store._finder.embedder.embed
    result |= bare(experiences, language, embed, folder / "bare")
    store.close()
    return result


def bare(experiences: list[Experience], language: Language, embed: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """Chroma as it comes, with the same vectors and fields."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("bare", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    began = time.perf_counter()
    for start in range(0, len(experiences), 1000):
        part = experiences[start : start + 1000]
        data = [{"kind": item.kind, "family": item.family, "status": item.status.value} for item in part]
        vectors = embed([distilled(item) for item in part])
        bodies = [item.model_dump_json() for item in part]
        collection.add(ids=[item.id for item in part], embeddings=vectors, metadatas=data, documents=bodies)
    result: dict[str, Any] = {"bare Chroma add in batches /s": len(experiences) / (time.perf_counter() - began)}
    where = {"$and": [{"kind": "skill"}, {"status": {"$in": ["active", "candidate"]}}]}

    def ask(vector: Any, filters: Any = None, include: Sequence[str] = ("distances",)) -> list[Experience]:
        found = collection.query(query_embeddings=[vector], n_results=5, where=filters, include=[*include])
        return [Experience.model_validate_json(body) for body in (found["documents"] or [[]])[0]]

    def read(text: str) -> list[Experience]:
        return ask(embed([text])[0], include=("distances", "documents"))

    result["embedding a query"] = asked(language, lambda text: embed([text]))
    result["bare Chroma, unfiltered, with embedding"] = asked(language, lambda text: ask(embed([text])[0]))
    result["bare Chroma, unfiltered, embedding and bodies"] = asked(language, read)
    for name, filters in (("unfiltered", None), ("kind and status", where)):
        vectors = [embed([language.text(200)[:1000]])[0] for _ in range(WARM_UP + QUERIES)]
        result[f"bare Chroma, {name}"] = timed(partial(ask, filters=filters), vectors[WARM_UP:], vectors[:WARM_UP])
    return result


def measure_mem0(python: str, size: int, folder: Path) -> dict[str, Any]:
    language = Language(0)
    texts = [distilled(made_up(language, number)) for number in range(size + SINGLE)]
    queries = [f"{language.text(10)}\n{language.text(200)[:1000]}" for _ in range(QUERIES)]
    plan = {"folder": str(folder), "texts": texts[:size], "added": texts[size:], "queries": queries}
    worker = Path(__file__).with_name("mem0_worker.py")
    done = subprocess.run([python, str(worker)], input=json.dumps(plan), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    times = json.loads(done.stdout.splitlines()[-1])
    names = {"add": "mem0: one add", "search": "mem0: search", "filtered": "mem0: search, kind"}
    return {names[name]: values for name, values in times.items()}


def shown(value: float | list[float] | None) -> str:
    """A figure, or p50, p95 and processor time of many."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " / ".join(f"{np.percentile(value[:-1], q):.1f}" for q in (50, 95)) + f" ({value[-1]:.1f})"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--mem0", default="", help="Python of a virtual environment with mem0ai, chromadb, wordllama")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(arguments.one, Path(folder))))
        return
    caption = f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} before the run"
    results = []
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        if arguments.mem0:
            with tempfile.TemporaryDirectory() as folder:
                results[-1] |= measure_mem0(arguments.mem0, size, Path(folder))
    table = Table(
        "", *(f"{size:,}" for size in arguments.sizes), title="ms: p50 / p95 (processor time)", caption=caption
    )
    for name in results[-1]:
        table.add_row(name, *(shown(result.get(name)) for result in results))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

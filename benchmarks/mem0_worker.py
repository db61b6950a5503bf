"""Runs inside mem0's own virtual environment; `memory_scale.py` starts it. No part of Tutelage is here.

Reads a JSON plan ``{"folder", "texts", "added", "queries"}`` from standard input: fills a store with `texts` (by its
vector store's own batch insert: one at a time would take hours), adds the texts `added` one by one without an LLM,
searches, and prints the milliseconds of each as JSON, with the mean processor time at the end of each list. The
embeddings are WordLlama's, as in Tutelage.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

os.environ.update(MEM0_TELEMETRY="False", ANONYMIZED_TELEMETRY="False", OPENAI_API_KEY="none")


class WordLlama:
    """In the place of mem0's embedder."""

    def __init__(self, *_: Any) -> None:
        from pathlib import Path

        import wordllama

        home = Path(wordllama.__file__).parent
        self.model = wordllama.WordLlama.load(dim=256, cache_dir=home, disable_download=True)

    def embed(self, text: str, *_: Any) -> list[float]:
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: list[str], *_: Any) -> list[list[float]]:
        vectors: list[list[float]] = self.model.embed(texts, norm=True).tolist()
        return vectors


def timed(work: Callable[[str], Any], texts: list[str]) -> list[float]:
    times, worked = [], time.process_time()
    for text in texts:
        began = time.perf_counter()
        work(text)
        times.append(1e3 * (time.perf_counter() - began))
    return [*times, 1e3 * (time.process_time() - worked) / len(texts)]


def main() -> None:
    from mem0 import Memory
    from mem0.utils.factory import EmbedderFactory

    EmbedderFactory.create = classmethod(lambda *_: WordLlama())
    plan = json.load(sys.stdin)
    store = {"provider": "chroma", "config": {"collection_name": "scale", "path": f"{plan['folder']}/chroma"}}
    memory = Memory.from_config({"vector_store": store, "history_db_path": f"{plan['folder']}/history.db"})
    for start in range(0, len(plan["texts"]), 1000):
        texts = plan["texts"][start : start + 1000]
        payloads = [
            {"data": text, "user_id": "u0", "kind": ("skill", "sticker", "guardrail")[n % 3]}
            for n, text in enumerate(texts)
        ]
        vectors = memory.embedding_model.embed_batch(texts)
        memory.vector_store.insert(vectors, payloads, [str(uuid4()) for _ in texts])

    def search(text: str, **filters: str) -> None:
        found = memory.search(text, filters={"user_id": "u0", **filters}, top_k=5, threshold=0.0)["results"]
        assert len(found) == 5, f"{len(found)} found"

    times = {
        "add": timed(lambda text: memory.add(text, user_id="u0", infer=False), plan["added"]),
        "search": timed(search, plan["queries"]),
        "filtered": timed(lambda text: search(text, kind="skill"), plan["queries"]),
    }
    print(json.dumps(times))


if __name__ == "__main__":
    main()

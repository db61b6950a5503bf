"""Runs inside mem0's own virtual environment; `memory_scale.py` starts it. No part of Tutelage is here.

Reads a JSON plan ``{"folder", "texts", "added", "queries", "users"}`` from standard input: fills a store with `texts`
(by its vector store's own batch insert: one at a time would take hours), adds the texts `added` one by one without an
LLM, searches, and prints the seconds of each as JSON. The embeddings are WordLlama's, as in Tutelage.
"""

import json
import os
import sys
import time
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
    times: dict[str, list[float]] = {"add": [], "search": [], "filtered": []}
    for text in plan["added"]:
        began = time.perf_counter()
        memory.add(text, user_id="u0", infer=False)
        times["add"].append(time.perf_counter() - began)
    for text in plan["queries"]:
        for name, filters in (("search", {"user_id": "u0"}), ("filtered", {"user_id": "u0", "kind": "skill"})):
            began = time.perf_counter()
            found = memory.search(text, filters=filters, top_k=5, threshold=0.0)["results"]
            times[name].append(time.perf_counter() - began)
            assert len(found) == 5, f"{len(found)} found"
    print(json.dumps(times))


if __name__ == "__main__":
    main()

"""BM25 over texts that come and go one at a time.

Scores are those of `tutelage.keyword` (Lucene's variant, k1 1.5, b 0.75), which has to be built as a whole. SQLite's
FTS5 was measured and is no help: the queries here are a goal and a page, and it takes over a second for 150 words on
100,000 texts, since it scores every text that has any of the words.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.keyword import tokens

Words = NDArray[np.uint64]

K1, B = 1.5, 0.75
POSTINGS = 50_000
"""Entries looked at in one search, the rarest words first: the words that a long query on a large memory leaves out are
those that most texts have, and weigh least."""
_START = 64
_DEAD = 1000


def hashed(texts: Sequence[str]) -> list[Words]:
    """The words of each text as numbers: lower case, without stop words. Texts cannot be read off them."""
    return [numbers(words) for words in tokens(list(texts))]


def numbers(words: Sequence[str]) -> Words:
    """`hashed` for what is in words already."""
    return np.array([_number(word) for word in words], dtype=np.uint64)


@lru_cache(maxsize=200_000)
def _number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


class WordIndex:
    """Texts by slot. A replaced text stays as a dead document until the dead outnumber the living."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._postings: dict[int, tuple[array[int], array[int]]] = {}  # word: documents, how often in each
        self._document: dict[int, int] = {}  # by slot
        self._next = self._total = 0
        self._slot = np.zeros(_START, dtype=np.int64)  # by document
        self._length = np.zeros(_START, dtype=np.float32)
        self._alive = np.zeros(_START, dtype=np.bool_)

    def put(self, texts: Mapping[int, Words]) -> None:
        """Add or replace the texts of some slots."""
        for slot in texts:
            self.remove(slot)
        texts = {slot: words for slot, words in texts.items() if len(words)}
        if not texts:
            return
        if self._next - len(self._document) > max(_DEAD, len(self._document)):
            self._compact()
        numbers = [self._new_document(slot, len(words)) for slot, words in texts.items()]
        words = np.concatenate(list(texts.values()))
        documents = np.repeat(np.array(numbers, dtype=np.uint32), [len(words) for words in texts.values()])
        order = np.argsort(words, kind="stable")  # documents stay in ascending order within a word
        words, documents = words[order], documents[order]
        first = np.flatnonzero(_differs(words) | _differs(documents))  # of each word in each document
        counts = np.diff(first, append=len(words)).astype(np.uint32)
        words, documents = words[first], documents[first]
        starts = np.flatnonzero(_differs(words))
        ends = [*starts[1:].tolist(), len(words)]
        for word, start, end in zip(words[starts].tolist(), starts.tolist(), ends, strict=True):
            entry = self._postings.get(word)
            if entry is None:
                entry = self._postings[word] = (array("I"), array("I"))
            entry[0].frombytes(documents[start:end].tobytes())
            entry[1].frombytes(counts[start:end].tobytes())

    def remove(self, slot: int) -> None:
        document = self._document.pop(slot, None)
        if document is not None:
            self._alive[document] = False
            self._total -= int(self._length[document])

    def scores(self, words: Words, size: int) -> NDArray[np.float64]:
        """BM25 score of each slot below `size`; 0 without a common word."""
        asked = Counter(word for word in words.tolist() if word in self._postings)
        chosen, budget = [], POSTINGS
        for word in sorted(asked, key=lambda word: len(self._postings[word][0])):
            if budget > 0:
                chosen.append(word)
                budget -= len(self._postings[word][0])
        if not chosen or not self._document:
            return np.zeros(size)
        documents, counts = (
            np.concatenate([np.frombuffer(self._postings[word][column], dtype=np.uint32) for word in chosen])
            for column in (0, 1)
        )
        number = len(self._document)
        of_word = np.repeat(np.arange(len(chosen)), [len(self._postings[word][0]) for word in chosen])
        if number < self._next:  # some are dead
            alive = self._alive[documents]
            documents, counts, of_word = documents[alive], counts[alive], of_word[alive]
        having = np.bincount(of_word, minlength=len(chosen))
        weights = np.array([asked[word] for word in chosen]) * np.log(1 + (number - having + 0.5) / (having + 0.5))
        norm = K1 * (1 - B + B * self._length[documents] / (self._total / number))
        scores = weights[of_word] * counts / (counts + norm)
        return np.bincount(self._slot[documents], scores, minlength=size).astype(np.float64)

    def _new_document(self, slot: int, length: int) -> int:
        document = self._next
        if document == len(self._alive):
            self._slot, self._length, self._alive = (
                np.concatenate([old, np.zeros_like(old)]) for old in (self._slot, self._length, self._alive)
            )
        self._slot[document], self._length[document], self._alive[document] = slot, length, True
        self._document[slot] = document
        self._next += 1
        self._total += length
        return document

    def _compact(self) -> None:
        """Number the living documents anew and drop the others."""
        kept = np.flatnonzero(self._alive[: self._next])
        renumbered = np.zeros(self._next, dtype=np.uint32)
        renumbered[kept] = np.arange(len(kept))
        postings = {}
        for word, columns in self._postings.items():
            documents, counts = (np.frombuffer(column, dtype=np.uint32) for column in columns)
            alive = self._alive[documents]
            if alive.any():
                living = renumbered[documents[alive]].tobytes()
                postings[word] = (array("I", living), array("I", counts[alive].tobytes()))
        slots, lengths = self._slot[kept].tolist(), self._length[kept].tolist()
        self._clear()
        self._postings = postings
        for slot, length in zip(slots, lengths, strict=True):
            self._new_document(slot, int(length))


def _differs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    return np.concatenate([[True], values[1:] != values[:-1]])

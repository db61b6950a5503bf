"""Keyword search over a fixed set of short passages: BM25 in memory, nothing leaves the machine."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.errors import MissingPart

_WORD = r"(?u)\w+"


@dataclass(frozen=True)
class Passage:
    """A short text with a title."""

    title: str
    text: str


class SearchIndex:
    """BM25 (k1 1.5, b 0.75) over title and text of each passage; never changes, may be shared by threads."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """
        Raises:
            MissingPart: the search library is not installed.
        """
        self._library = _library()
        self._passages = tuple(passages)
        words = self._tokens([f"{passage.title} {passage.text}" for passage in passages])
        self._words = {word for text in words for word in text}
        self._model: Any = self._library.BM25(k1=1.5, b=0.75)
        self._model.index(words, show_progress=False)

    def search(self, query: str, count: int = 3) -> list[Passage]:
        """The `count` best passages that share a word with `query`, best first; equal ones in their first order."""
        known = [word for word in self._tokens([query])[0] if word in self._words]
        if not known:
            return []
        scores = self._model.get_scores(known).tolist()
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[:count]
        return [self._passages[place] for place in best if scores[place] > 0]

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        """Lower-case words without English stop words, for each text."""
        found: list[list[str]] = self._library.tokenize(
            texts, token_pattern=_WORD, stopwords="en", return_ids=False, show_progress=False
        )
        return found


def _library() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise MissingPart("keyword search is missing: pip install 'tutelage[tools]'") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for DEBUG
    return bm25s

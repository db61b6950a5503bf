"""Keyword search over a fixed set of short passages; nothing leaves the machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.keyword import KeywordIndex, tokens


@dataclass(frozen=True)
class Passage:
    """A short text with a title."""

    title: str
    text: str


class SearchIndex:
    """BM25 over title and text of each passage; never changes, may be shared by threads."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """
        Raises:
            MissingPart: the search library is not installed.
        """
        words = tokens([f"{passage.title} {passage.text}" for passage in passages])
        self._passages = {str(place): passage for place, passage in enumerate(passages)}
        self._index = KeywordIndex(dict(zip(self._passages, words, strict=True)))

    def search(self, query: str, count: int = 3) -> list[Passage]:
        """The `count` best passages that share a word with `query`, best first; equal ones in their first order."""
        return [self._passages[key] for key in list(self._index.scores(tokens([query])[0]))[:count]]

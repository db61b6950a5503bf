"""Keyword search: BM25 over texts, in memory."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tutelage.errors import MissingPart

_WORD = r"(?u)\w+"


class KeywordIndex:
    """BM25 (k1 1.5, b 0.75) over tokenised texts; immutable, cheap enough to be built whenever texts change."""

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        """`texts` maps ids to the `tokens` of their texts."""
        texts = {key: words for key, words in texts.items() if words}
        self._ids = list(texts)
        self._words = {word for words in texts.values() for word in words}
        self._model: Any = None
        if texts:
            self._model = _library().BM25(k1=1.5, b=0.75)
            self._model.index([list(words) for words in texts.values()], show_progress=False)

    def scores(self, words: Sequence[str]) -> dict[str, float]:
        """BM25 scores above 0, by id, best first."""
        known = [word for word in words if word in self._words]
        if not known:
            return {}
        scores = zip(self._ids, self._model.get_scores(known).tolist(), strict=True)
        return dict(sorted(((key, score) for key, score in scores if score > 0), key=lambda item: -item[1]))


def tokens(texts: list[str]) -> list[list[str]]:
    """Lower-case words without English stop words, for each text."""
    return _library().tokenize(texts, token_pattern=_WORD, stopwords="en", return_ids=False, show_progress=False)


@cache
def _library() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise MissingPart("keyword search is missing: pip install bm25s") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for DEBUG
    return bm25s

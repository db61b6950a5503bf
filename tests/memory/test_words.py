"""Keywords that come and go one at a time score as an index that is built as a whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.keyword import KeywordIndex, tokens
from tutelage.memory import words as module
from tutelage.memory.words import WordIndex, hashed

TEXTS = st.lists(st.sampled_from(["ant", "bee", "cat", "dog", "eel", "fox"]), max_size=12).map(" ".join)
CHANGES = st.lists(st.tuples(st.integers(0, 7), TEXTS | st.none()), max_size=60)


@settings(deadline=None)
@given(CHANGES, TEXTS)
def test_scores_after_any_changes_are_those_of_an_index_built_anew(
    changes: list[tuple[int, str | None]], query: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DEAD", 3)  # so that the dead are cleared away under way
        index, texts = WordIndex(), dict[str, str]()
        for slot, text in changes:
            if text is None:
                index.remove(slot)
                texts.pop(str(slot), None)
            else:
                index.put({slot: hashed([text])[0]})
                texts[str(slot)] = text
        whole = KeywordIndex(dict(zip(texts, tokens(list(texts.values())), strict=True)) if texts else {})
        expected = whole.scores(tokens([query])[0])
        scores = index.scores(hashed([query])[0], 8)
        assert {str(slot): score for slot, score in enumerate(scores) if score > 0} == pytest.approx(expected, rel=1e-4)


def test_a_long_query_on_a_large_memory_looks_at_the_rarest_words(monkeypatch: pytest.MonkeyPatch) -> None:
    index = WordIndex()
    texts = hashed([f"common {'rare' if slot == 3 else 'other'}" for slot in range(50)])
    index.put(dict(enumerate(texts)))
    query = hashed(["common rare"])[0]
    assert np.count_nonzero(index.scores(query, 50)) == 50
    monkeypatch.setattr(module, "POSTINGS", 1)
    assert np.flatnonzero(index.scores(query, 50)).tolist() == [3]


def test_no_text_can_be_read_off_what_is_kept() -> None:
    (words,) = hashed(["The swordfish password, the SWORDFISH"])
    assert (len(words), len(set(words.tolist()))) == (3, 2)
    assert b"swordfish" not in words.tobytes()
    assert hashed(["swordfish"])[0][0] == words[0], "the same in every process"

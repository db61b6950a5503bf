"""What every embedder must do; run on all that the project ships."""

import logging

import numpy as np
import pytest

from tutelage.errors import UnknownName
from tutelage.memory.embedder import BUILTIN, Embedder, embedder


@pytest.fixture(scope="module", params=sorted(BUILTIN))
def subject(request: pytest.FixtureRequest) -> Embedder:
    return embedder(request.param)


def test_rows_are_float32_of_length_one_or_zero(subject: Embedder) -> None:
    texts = ["click the button", "", "Ünïcödé ✓ " * 500, "log in"]
    vectors = subject.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), subject.dimension)
    assert np.isfinite(vectors).all()
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths[[0, 2, 3]], 1, atol=1e-5)
    assert subject.embed([]).shape == (0, subject.dimension)


def test_a_text_has_one_vector_whatever_stands_beside_it(subject: Embedder) -> None:
    together = subject.embed(["log in", "a much longer text about flights and hotels", "log in"])
    assert np.allclose(together[0], subject.embed(["log in"])[0], atol=1e-5)
    assert np.allclose(together[0], together[2], atol=1e-5)


def test_a_paraphrase_is_nearer_than_something_else(subject: Embedder) -> None:
    query, near, far = subject.embed(
        ["log in with the given user and password", "enter username and password, then sign in", "pick a date in May"]
    )
    assert query @ near > query @ far + 0.1


def test_loading_leaves_the_root_logger_alone(subject: Embedder) -> None:
    assert logging.getLogger().level == logging.WARNING


def test_an_unknown_name_says_what_exists() -> None:
    with pytest.raises(UnknownName, match="unknown embedder 'nope'; known: wordllama"):
        embedder("nope")

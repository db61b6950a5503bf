"""What is near in meaning is the same only if scope, polarity, limits and values agree."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.experience import Experience, Source
from tutelage.memory.embedder import embedder
from tutelage.memory.polarity import Agreement, agreement, statements
from tutelage.memory.text import distilled
from tutelage.memory.wording import stem

PAIRS, BLIND = (
    [json.loads(line) for line in Path(__file__).with_name(name).read_text().splitlines()]
    for name in ("pairs.jsonl", "pairs_blind.jsonl")
)


def an_experience(content: str | dict[str, Any], **changes: Any) -> Experience:
    if isinstance(content, str):
        content = {"kind": "sticker", "conditions": [content], "question": "What comes next?"}
    values: dict[str, Any] = {
        "environment": "shop",
        "family": "order",
        "goal": "Order {text}.",
        "content": content,
        "sources": (Source(trajectory="t", task="shop/order@1"),),
        "author": "a hand",
    }
    return Experience.model_validate({**values, **changes})


def test_labelled_pairs() -> None:
    """None is merged wrongly, no contradiction is made up, and most of what is the same or opposite is recognised."""
    assert len(PAIRS) >= 60
    found: Counter[tuple[str, str]] = Counter()
    for pair in PAIRS:
        there, back = (agreement(an_experience(pair[a]), an_experience(pair[b])) for a, b in ("ab", "ba"))
        assert there == back
        found[pair["label"], there.agreement.value] += 1
        assert there.mergeable <= (there.agreement in (Agreement.SAME, Agreement.UNCLEAR))
    assert [label for label, said in found if said == "same"] == ["same"]
    assert {label for label, said in found if said == "opposite"} <= {"opposite", "not the same"}
    assert found["opposite", "opposite"] >= 36, "of 37"
    assert found["same", "same"] >= 37, "of 44; the others are true paraphrases, which a reader is asked about"


def test_pairs_by_somebody_who_does_not_know_the_rules() -> None:
    """Not one is merged wrongly nor called a contradiction without being one; most of the rest is left to a reader."""
    found = Counter(
        (pair["label"], agreement(an_experience(pair["a"]), an_experience(pair["b"])).agreement.value) for pair in BLIND
    )
    assert found.total() == 112
    assert {label for label, said in found if said == "same"} == {"same"}
    assert {label for label, said in found if said == "opposite"} == {"opposite"}
    assert found["same", "same"] >= 14, "of 40"
    assert found["opposite", "opposite"] >= 11, "of 30"


def test_opposites_are_near_neighbours_and_stay_two() -> None:
    """The trap that similarity alone falls into."""
    always, never = (an_experience(f"{word} confirm the order id") for word in ("always", "never"))
    vectors = embedder("wordllama").embed([distilled(always), distilled(never)])
    assert float(vectors[0] @ vectors[1]) > 0.85
    assert agreement(always, never).agreement is Agreement.OPPOSITE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Delete selected items.", "Select deleted items."),
        ("Open the first result.", "First open the result."),
        ('Click "Save" but not "Send".', 'Click "Send" but not "Save".'),
        ("Do not always confirm the id.", "Always confirm the id."),
        ("Retry? Never.", "Retry? Always."),
        ("Turn the light on.", "Turn the light off."),
        ("Search by name.", "Search for name."),
        ("Only confirm the id.", "Confirm only the id."),
        ("If the login fails, retry.", "If the login does not fail, retry."),
        ("Enter -5.", "Enter 5."),
        ("Set a < b.", "Set a > b."),
        ("Press Ctrl+C.", "Press Ctrl+V."),
        ("Do NOT submit.", "Do submit."),
        ("Don’t submit.", "Submit."),
        ("永远确认订单", "永远不要确认订单"),
        ("bestätige immer die id", "bestätige nie die id"),
        ("Never.", "Always."),
        ("The total is positive.", "The total is not positive."),
    ],
)
def test_small_words_and_signs_count(first: str, second: str) -> None:
    assert statements(first, second).agreement is not Agreement.SAME


@pytest.mark.parametrize(
    "change", [{"tenant": "b"}, {"environment": "bank"}, {"family": "pay"}, {"goal": "Pay {text}."}]
)
def test_another_place_is_another_experience(change: dict[str, str]) -> None:
    here = an_experience("always confirm the order id")
    found = agreement(here, here.model_copy(update=change))
    assert found.agreement is not Agreement.SAME
    assert found.agreement is not Agreement.OPPOSITE


VOCABULARY = "open close confirm order page total the a in invoice copy from to customer reply {goal}"
WORDS = st.sampled_from(tuple(VOCABULARY.split()))
SENTENCES = st.lists(WORDS, min_size=2, max_size=9).map(" ".join)


@given(SENTENCES, st.sampled_from(["never", "do not", "don't", "avoid", "only", "unless asked,", "3 times", "rarely"]))
def test_a_small_word_more_is_never_the_same(sentence: str, word: str) -> None:
    assert statements(sentence, f"{word} {sentence}").agreement is not Agreement.SAME


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_compared_both_ways(first: str, second: str) -> None:
    assert statements(first, first).agreement is Agreement.SAME
    assert statements(first, second) == statements(second, first)


@given(SENTENCES, st.integers(0, 50), st.integers(0, 50))
def test_other_numbers_are_never_the_same(sentence: str, one: int, other: int) -> None:
    found = statements(f"{sentence} {one} rows", f"{sentence} {other} rows")
    assert (found.agreement is Agreement.SAME) is (one == other)


@pytest.mark.parametrize(
    ("word", "base"),
    [("filling", "fill"), ("filing", "file"), ("files", "file"), ("submitting", "submit"), ("copied", "copy")],
)
def test_inflections(word: str, base: str) -> None:
    assert stem(word) == stem(base)
    assert stem("fill") != stem("file")

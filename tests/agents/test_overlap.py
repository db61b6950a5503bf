"""Texts that repeat a judge's hint are recognised; texts that say what everybody saw are not."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tutelage.agents.overlap import overlaps
from tutelage.designs import Hint

PUBLIC = (
    'Goal: Put the invoice of Ana into a folder.\nObservation:\ninbox/invoice-17.txt\nAction: move("invoice-17.txt")'
)
WORDS = st.lists(st.sampled_from(["a", "b", "Straße", "file", "7", "x_1", "End"]), max_size=25)
GAP = st.sampled_from([" ", ", ", "; ", "\n", " – ", '" "'])


@given(WORDS, WORDS, WORDS, WORDS, GAP, st.data())
def test_any_five_words_of_a_hint_that_nobody_else_said_are_caught(
    hint: list[str], public: list[str], before: list[str], after: list[str], gap: str, data: st.DataObject
) -> None:
    assume(len(hint) >= 5)
    start = data.draw(st.integers(0, len(hint) - 5))
    stretch = hint[start : data.draw(st.integers(start + 5, len(hint)))]
    assume(stretch not in [public[at : at + len(stretch)] for at in range(len(public))])
    copied = " ".join(before) + gap + gap.join(stretch).upper() + gap + " ".join(after)
    assert overlaps(copied, Hint(". ".join(hint)), " ".join(public))


@given(st.text(), st.text(), st.integers(0, 50), st.integers(0, 50))
def test_what_stands_in_public_is_never_caught(public: str, hint: str, start: int, length: int) -> None:
    words = public.split()
    assert not overlaps(" ".join(words[start : start + length]), Hint(hint + public + hint), public)
    assert not overlaps("", Hint(hint), public)


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("Move it to archive/2031 at the end.", True),
        ("Move it to ARCHIVE 2031.", True),
        ("The receipt number is 4711.", True),
        ('Say "zebra crossing" first.', True),
        ("Only the folder for the year is right here.", True),
        ("Move invoice-17.txt of Ana into a folder.", False),
        ("The goal names 3 files; the folder is right.", False),
    ],
)
def test_rare_tokens_and_wording_count_and_common_words_do_not(text: str, caught: bool) -> None:
    hint = Hint(
        "3 files: only the folder for the year is right, archive/2031 for invoice-17.txt; receipt 4711, "
        "and the note says 'zebra crossing'."
    )
    assert overlaps(text, hint, PUBLIC) is caught

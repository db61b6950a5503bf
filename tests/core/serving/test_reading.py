"""Tokens become the text that they spell, up to the first stop string, whatever their borders are."""

from functools import cache

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tutelage import tools as tooling
from tutelage.conversation import split_reply
from tutelage.serving.reading import Reader
from tutelage.serving.types import Piece, Sampling
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.types import Tool

TOOL = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "string"}}})

TEXTS = st.text("ab \nü日🙂", max_size=40)
STOPS = st.lists(st.text("ab ü日", min_size=1, max_size=3), max_size=3)


@cache
def encoder() -> ChatEncoder:
    return ChatEncoder(weights.load_tokenizer("tiny"))


def ids_of(text: str) -> list[int]:
    return list(encoder().tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def pieces_of(ids: list[int], reader: Reader) -> list[Piece]:
    pieces = []
    for token in ids:
        pieces.append(reader.read(token))
        if pieces[-1].finish:
            break
    return pieces


def kept(ids: list[int], stops: list[str]) -> str | None:
    """What comes before the stop string that is complete first, as more tokens are read; None if there is none.

    One that begins earlier but is not complete yet does not count: nobody knows how it would go on.
    """
    for end in range(1, len(ids) + 1):
        text = str(encoder().tokenizer.decode(ids[:end]))
        if places := [text.find(stop) for stop in stops if stop in text and not text.endswith("\ufffd")]:
            return text[: min(places)]
    return None


@settings(deadline=None)
@given(TEXTS, STOPS, st.booleans())
@example("a日a", ["日", "a日a"], False)
def test_text_is_whole_up_to_the_first_stop_string(text: str, stops: list[str], ends: bool) -> None:
    ids = [*ids_of(text), encoder().end] if ends or not text else ids_of(text)
    sampling = Sampling(max_new_tokens=len(ids), stop=tuple(stops))
    pieces = pieces_of(ids, Reader(encoder(), 7, sampling))
    before = kept(ids_of(text), stops)
    assert "".join(piece.text for piece in pieces) == (text if before is None else before)
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish == ("stop" if before is not None or ends or not text else "length")
    tokens = pieces[-1].tokens
    assert tokens is not None
    assert (tokens.prompt, tokens.completion) == (7, len(pieces))


def test_text_comes_as_soon_as_it_is_sure() -> None:
    sampling = Sampling(max_new_tokens=50, stop=("END",))
    pieces = pieces_of([*ids_of("one two EN three"), encoder().end], Reader(encoder(), 1, sampling))
    come = ["".join(piece.text for piece in pieces[: place + 1]) for place in range(len(pieces))]
    assert "one" in come[:3]
    assert "one two " in come
    assert not any(text.endswith(("E", "EN")) for text in come)


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    ids = ids_of("日")
    assert len(ids) > 1
    pieces = pieces_of(ids[:-1], Reader(encoder(), 1, Sampling(max_new_tokens=len(ids) - 1)))
    assert "".join(piece.text for piece in pieces) == "\N{REPLACEMENT CHARACTER}"


def test_with_tools_a_call_comes_whole_and_in_the_one_grammar() -> None:
    said = "I look there.\n" + tooling.write_call("look", {"at": "the door"})
    ids = encoder().reply(said, [TOOL])
    pieces = pieces_of(ids, Reader(encoder(), 1, Sampling(max_new_tokens=100), [TOOL]))
    assert [piece.text for piece in pieces[:-1]] == [""] * (len(pieces) - 1)
    assert split_reply(pieces[-1].text) == split_reply(said)

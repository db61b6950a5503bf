"""A reply as its tokens come: the text that can be sent already, and how it ended."""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream

from tutelage.serving.types import Finish, Piece, Sampling, TokenCount
from tutelage.training.chat import ChatEncoder
from tutelage.types import Tool


class Reader:
    """Reads one reply.

    Text comes as soon as no stop string can begin in it and no character in it is half. Where tools are offered it
    comes whole at the end, a call of the template's own form in our grammar, for only then is it known to be one.

    Args:
        prompt: its number of tokens, for the count.
        sampling: `max_new_tokens` as it can be kept to.
    """

    def __init__(self, encoder: ChatEncoder, prompt: int, sampling: Sampling, tools: Sequence[Tool] = ()) -> None:
        self._encoder, self._prompt, self._sampling, self._tools = encoder, prompt, sampling, tools
        self._stream = DecodeStream([], skip_special_tokens=not tools)
        self._ends = ends_of(encoder)
        self._ids: list[int] = []
        self._text = ""
        """What the stream has given so far."""
        self._sent = 0

    def read(self, token: int) -> Piece:
        """What a token adds; with `finish`, it is the last one."""
        self._ids.append(token)
        if token in self._ends:
            return self._end("stop", self._whole(self._ids[:-1]))
        self._text += self._stream.step(self._encoder.tokenizer._tokenizer, token) or ""
        if self._stopped(self._text) is not None:
            return self._end("stop", self._text)
        if len(self._ids) >= self._sampling.max_new_tokens:
            return self._end("length", self._whole(self._ids))
        sure = len(self._text) - _beginning(self._text[self._sent :], self._sampling.stop)
        return Piece() if self._tools else self._piece(self._text[:sure])

    def _end(self, finish: Finish, text: str) -> Piece:
        if self._tools:
            ended = self._ids[-1] in self._ends
            text = self._encoder.text_of(self._ids[:-1] if ended else self._ids, self._tools)
        place = self._stopped(text)
        count = TokenCount(prompt=self._prompt, completion=len(self._ids))
        return self._piece(text if place is None else text[:place], "stop" if place is not None else finish, count)

    def _piece(self, upto: str, finish: Finish | None = None, tokens: TokenCount | None = None) -> Piece:
        """What has not been sent of a text."""
        text, self._sent = upto[self._sent :], max(self._sent, len(upto))
        return Piece(text=text, finish=finish, tokens=tokens)

    def _whole(self, ids: list[int]) -> str:
        """All of the text, an unfinished character at its end included."""
        whole = self._encoder.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(whole) if str(whole).startswith(self._text) else self._text

    def _stopped(self, text: str) -> int | None:
        """Where the first stop string begins that has not been let through."""
        places = [place for stop in self._sampling.stop if (place := text.find(stop, self._sent)) >= 0]
        return min(places, default=None)


def ends_of(encoder: ChatEncoder) -> frozenset[int]:
    """Tokens that end a reply: the template's end of turn, and the end of a text."""
    return frozenset({encoder.end, encoder.tokenizer.eos_token_id} - {None})


def _beginning(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of `text` that may be the beginning of a stop string."""
    longest = min(len(text), max(map(len, stops), default=0))
    return next((size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in stops)), 0)

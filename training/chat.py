"""Episodes as token sequences that only ever grow.

A chat template is rendered once, on placeholders, to learn the fixed text around the messages; after
that, ids are appended and history is never rendered again. Re-rendering is not token-exact (a reply that
starts with two spaces merges with the generation prompt), appending is. Message text is encoded with
special tokens split, so that a page showing ``<|im_end|>`` shows text and not a control token.
"""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from tutelage.conversation import conversation
from tutelage.errors import ConfigError
from tutelage.types import Message, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM, _USER, _REPLY, _LATER = (f"\u241f{name}\u241f" for name in ("system", "user", "reply", "later"))


class Encoded(NamedTuple):
    """A whole episode; both lists have one entry per token."""

    ids: list[int]
    mask: list[int]
    """1 on tokens of the assistant (end of turn included), 0 elsewhere."""


class ChatEncoder:
    """Turns conversations of system, user, assistant, user, … into token ids.

    Args:
        tokenizer: with a chat template that keeps message text as it is.

    Raises:
        ConfigError: there is no such template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not tokenizer.chat_template:
            raise ConfigError("the student's tokenizer has no chat template; choose an instruction-tuned model")
        self.tokenizer = tokenizer
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        specials = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        self._specials = re.compile("(" + "|".join(map(re.escape, specials)) + ")")
        self._before, self._between, self._header, after, self._again = self._learn()
        end, *rest = self._specials.split(after)[1:] or [tokenizer.eos_token, after]
        self.end = self._id(end)
        """The token that ends the assistant's turn."""
        self._after = "".join(rest)

    def first(self, messages: Sequence[Message]) -> list[int]:
        """System and first user message, up to where the assistant starts."""
        system, user = messages
        return self._encode((self._before, system.content, self._between, user.content, self._header))

    def turn(self, message: Message, *, closed: bool) -> list[int]:
        """What a later user message appends after the assistant's tokens.

        Args:
            closed: whether the assistant's tokens end with the end-of-turn token; if not, it is added here.
        """
        ids = self._encode((self._after, message.content, self._again))
        return ids if closed else [self.end, *ids]

    def reply(self, text: str) -> list[int]:
        """The assistant's text as tokens, the end of turn included."""
        return [*self._text(text), self.end]

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """A conversation that ends with a user message, from its text."""
        ids = self.first(messages[:2])
        for index in range(2, len(messages), 2):
            ids += self.reply(messages[index].content)
            ids += self.turn(messages[index + 1], closed=True)
        return ids

    def episode(
        self, trajectory: Trajectory, experiences: bool = True, *, turns: Collection[int] | None = None
    ) -> Encoded:
        """A finished episode, up to the end of its last reply.

        Args:
            experiences: whether the first message keeps what was shown.
            turns: those whose assistant tokens are marked; None means all.
        """
        messages = conversation(trajectory, experiences=experiences)
        encoded, closed = Encoded([], []), True
        for index, step in enumerate(trajectory.steps):
            user = messages[2 * index + 1]
            prompt = self.turn(user, closed=closed) if index else self.first(messages[:2])
            sampled = list(step.tokens.sampled) if step.tokens else self.reply(step.reply)
            closed = bool(sampled) and sampled[-1] == self.end
            mark = int(turns is None or index in turns)
            encoded.ids.extend(prompt + sampled)
            encoded.mask.extend([0] * len(prompt) + [mark] * len(sampled))
        return encoded

    def text_of(self, sampled: Sequence[int]) -> str:
        """The reply that sampled tokens spell, without the end of turn."""
        ids = list(sampled[:-1] if sampled and sampled[-1] == self.end else sampled)
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _learn(self) -> tuple[str, str, str, str, str]:
        """The template's fixed text: before the system text, between it and the first user text, the
        generation prompt, from a reply to the next user text, and from there to the next reply."""
        messages = [
            {"role": role, "content": content}
            for role, content in (("system", _SYSTEM), ("user", _USER), ("assistant", _REPLY), ("user", _LATER))
        ]
        start, whole = (
            str(self.tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=True))
            for some in (messages[:2], messages)
        )
        opening = re.fullmatch(f"(.*){_SYSTEM}(.*){_USER}(.*)", start, re.DOTALL)
        later = re.fullmatch(f".*{_REPLY}(.*){_LATER}(.*)", whole, re.DOTALL)
        if opening is None or later is None:
            raise ConfigError("the student's chat template drops or reorders system, user or assistant messages")
        before, between, header = opening.groups()
        after, again = later.groups()
        return before, between, header, after, again

    def _encode(self, parts: Sequence[str]) -> list[int]:
        """Fixed text (even places) and message text (odd places). Text between two special tokens is
        encoded in one piece, as the tokenizer would on the rendered whole."""
        ids: list[int] = []
        run = ""
        for index, part in enumerate(parts):
            pieces = [part] if index % 2 else self._specials.split(part)
            for place, piece in enumerate(pieces):
                if place % 2:
                    ids += [*self._text(run), self._id(piece)]
                    run = ""
                else:
                    run += piece
        return ids + self._text(run)

    def _id(self, token: str) -> int:
        return cast(int, self.tokenizer.convert_tokens_to_ids(token))

    def _text(self, text: str) -> list[int]:
        if not text:
            return []
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

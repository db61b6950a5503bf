"""Episodes as token sequences that only ever grow.

A chat template is rendered once, on placeholders, to learn the fixed text around the messages; after
that, ids are appended and history is never rendered again. Re-rendering is not token-exact (a reply that
starts with two spaces merges with the generation prompt), appending is. Message text is encoded with
special tokens split, so that a page showing ``<|im_end|>`` shows text and not a control token.

Where there are tools and the template knows how to write calls (`training.tool_format`), it is rendered
once per set of tools, and calls and their results are written its way. A tool's description is text as well.
"""

import json
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tutelage import tools as tooling
from tutelage.conversation import conversation, split_reply
from tutelage.errors import ConfigError
from tutelage.training.tool_format import MARK, CallForm, Frame, learn_frame, learn_tools, makes_call
from tutelage.types import Message, Tool, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHIELD = "\u241e"
"""Stands around the number of a text that a template must not see (`ChatEncoder._shielded`)."""
TOOL_SETS = 256
"""Sets of tools whose rendering is kept."""


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
        self._hidden = [*specials, MARK, _SHIELD]
        frame = learn_frame(self._render)
        if frame is None:
            raise ConfigError("the student's chat template drops or reorders system, user or assistant messages")
        self._end, *rest = self._specials.split(frame.after)[1:] or [tokenizer.eos_token, frame.after]
        self.end = self._id(self._end)
        """The token that ends the assistant's turn."""
        self._plain = _Written(frame._replace(after="".join(rest)), None)
        self._with_tools = lru_cache(TOOL_SETS)(self._learn_tools)

    def first(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """System and first user message, up to where the assistant starts.

        Args:
            tools: those that the system message lists; here and below, empty without tools.
        """
        system, user = messages
        frame, form = self._written(tools)
        text = tooling.without_listing(system.content, tools) if form else system.content
        return self._encode(
            (*self._fixed(frame.before), text, *self._fixed(frame.between), user.content, *self._fixed(frame.header))
        )

    def turn(self, message: Message, *, closed: bool, tools: Sequence[Tool] = (), reply: str = "") -> list[int]:
        """What a later user message appends after the assistant's tokens.

        Args:
            closed: whether the assistant's tokens end with the end-of-turn token; if not, it is added here.
            reply: what the message answers; the result of a tool call stands where the template has it.
        """
        frame, form = self._written(tools)
        around: Frame | CallForm = form if form and makes_call(reply) else frame
        ids = self._encode((around.after, message.content, around.again))
        return ids if closed else [self.end, *ids]

    def reply(self, text: str, tools: Sequence[Tool] = ()) -> list[int]:
        """The assistant's text as tokens, the end of turn included."""
        form = self._written(tools).form
        parts = form.write(text) if form else None
        return [*(self._encode(parts) if parts else self._text(text)), self.end]

    def conversation(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """A conversation that ends with a user message, from its text."""
        ids = self.first(messages[:2], tools)
        for index in range(2, len(messages), 2):
            reply = messages[index].content
            ids += self.reply(reply, tools)
            ids += self.turn(messages[index + 1], closed=True, tools=tools, reply=reply)
        return ids

    def episode(
        self, trajectory: Trajectory, experiences: bool = True, *, turns: Collection[int] | None = None
    ) -> Encoded:
        """A finished episode, up to the end of its last reply.

        Args:
            experiences: whether the first message keeps what was shown.
            turns: those whose assistant tokens are marked; None means all.
        """
        messages, tools = conversation(trajectory, experiences=experiences), trajectory.tools
        encoded, closed, before = Encoded([], []), True, ""
        for index, step in enumerate(trajectory.steps):
            user = messages[2 * index + 1]
            later = self.turn(user, closed=closed, tools=tools, reply=before) if index else None
            prompt = self.first(messages[:2], tools) if later is None else later
            sampled = list(step.tokens.sampled) if step.tokens else self.reply(step.reply, tools)
            before = step.reply
            closed = bool(sampled) and sampled[-1] == self.end
            mark = int(turns is None or index in turns)
            encoded.ids.extend(prompt + sampled)
            encoded.mask.extend([0] * len(prompt) + [mark] * len(sampled))
        return encoded

    def text_of(self, sampled: Sequence[int], tools: Sequence[Tool] = ()) -> str:
        """The reply that sampled tokens spell, without the end of turn; a tool call in our grammar."""
        ids = list(sampled[:-1] if sampled and sampled[-1] == self.end else sampled)
        text, form = self._decoded(ids), self._written(tools).form
        return form.read(text) if form else text

    def action_start(self, sampled: Sequence[int], tools: Sequence[Tool] = ()) -> int:
        """Place in a reply's tokens from which on they are its action; what is before it is the thought.

        A token that holds the end of the thought and the beginning of the action is the action's, as is the end
        of the turn. A reply without a thought is all action.
        """
        ids = list(sampled[:-1] if sampled and sampled[-1] == self.end else sampled)
        text, form = self._decoded(ids), self._written(tools).form
        place = form.place(text) if form else None
        if place is None:
            place = len(text.rstrip()) - len(split_reply(text)[1])
        for start in range(len(ids) if text[:place].strip() else 0, 0, -1):
            before = self._decoded(ids[:start])
            # Within a character that takes several tokens, what is decoded is no part of the text.
            if len(before) <= place and text.startswith(before):
                return start
        return 0

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _written(self, tools: Sequence[Tool]) -> "_Written":
        """How a conversation with these tools is written."""
        return self._with_tools(json.dumps(tooling.to_openai(tools))) if tools else self._plain

    def _learn_tools(self, tools: str) -> "_Written":
        learnt = learn_tools(self._render, self._shielded(json.loads(tools)), self._end)
        return _Written(*learnt) if learnt else self._plain

    def _render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
        given: Any = list(tools) if tools else None
        return str(
            self.tokenizer.apply_chat_template(list(messages), tools=given, tokenize=False, add_generation_prompt=True)
        )

    def _shielded(self, value: Any) -> Any:
        """JSON with numbers in the place of texts that would pass for control tokens or placeholders."""
        if isinstance(value, dict):
            return {self._shielded(key): self._shielded(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._shielded(item) for item in value]
        if not isinstance(value, str):
            return value
        pattern = "|".join(map(re.escape, self._hidden))
        return re.sub(pattern, lambda match: f"{_SHIELD}{self._hidden.index(match[0])}{_SHIELD}", value)

    def _fixed(self, text: str) -> list[str]:
        """A template's text as fixed text (even places) and what was shielded from it (odd places)."""
        parts = re.split(f"{_SHIELD}(\\d+){_SHIELD}", text)
        parts[1::2] = [self._hidden[int(number)] for number in parts[1::2]]
        return parts

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


class _Written(NamedTuple):
    frame: Frame
    form: CallForm | None
    """None where calls are text in our grammar."""

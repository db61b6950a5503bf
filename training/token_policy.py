"""What all student policies have in common, whether the model is here or in another program: the tokens are kept here.

Every episode is a list of token ids that only ever grows; what samples is given those ids and gives ids back,
so nothing is rendered or tokenised twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Required, TypedDict

from transformers import PreTrainedTokenizerBase

from tutelage.config import StudentConfig
from tutelage.training.chat import ChatEncoder
from tutelage.types import Context, Message, Reply, Tokens

SEEDS = 2**31
"""Other programs take seeds from 0 up to below this."""


@dataclass(frozen=True)
class Asked:
    """One reply to sample."""

    key: str
    """Of the episode."""
    ids: tuple[int, ...]
    """The whole episode so far."""
    seed: int


@dataclass(frozen=True)
class Sampled:
    """What was sampled, or why nothing was."""

    ids: tuple[int, ...] = ()
    """The end-of-turn token included if it was sampled."""
    logprobs: tuple[float, ...] = ()
    """At the sampling temperature (at 1 if greedy); as long as `ids`."""
    error: str = ""


@dataclass
class _Episode:
    """What is remembered of one episode between its turns."""

    messages: tuple[Message, ...] = ()
    """The messages that `ids` renders, the last reply excluded."""
    reply: str = ""
    ids: list[int] = field(default_factory=list)
    """All tokens so far, the last reply's included."""


USUAL = StudentConfig()
"""Where the defaults stand."""


class Settings(TypedDict, total=False):
    """How a student replies, whatever samples; where nothing is said, as `StudentConfig` does."""

    label: Required[str]
    """E.g. ``student@3``."""
    temperature: float
    """0 is greedy."""
    max_new_tokens: int
    """Per turn; a reply that reaches it has no end-of-turn token."""
    max_length: int
    """Tokens of a whole episode; a context without room for a reply is answered by an error."""


class TokenPolicy(ABC):
    """A student whose tokens are sampled by `sample`.

    Args:
        tokenizer: the student's, with a chat template.

    The others are `Settings`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        label: str,
        temperature: float = USUAL.temperature,
        max_new_tokens: int = USUAL.max_new_tokens,
        max_length: int = USUAL.max_length,
    ) -> None:
        self.encoder = ChatEncoder(tokenizer)
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.max_length = max_length
        self._label = label
        self._episodes: dict[str, _Episode] = {}

    @property
    def label(self) -> str:
        return self._label

    @abstractmethod
    def sample(self, asked: Sequence[Asked]) -> list[Sampled]:
        """One reply for each, in order, of at most `max_new_tokens` tokens and none behind an end of turn."""

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, with its tokens; its text has a tool call in our grammar, its tokens as sampled.

        Log-probabilities are at the sampling temperature (at 1 if greedy).
        """
        prompts = [self._prompt(context) for context in contexts]
        episodes = [self._episodes[context.key] for context in contexts]
        room = [len(episode.ids) + self.max_new_tokens <= self.max_length for episode in episodes]
        asked = [
            Asked(context.key, tuple(episode.ids), context.seed)
            for episode, context, fits in zip(episodes, contexts, room, strict=True)
            if fits
        ]
        answers = iter(self.sample(asked) if asked else [])
        replies = []
        for context, episode, prompt, fits in zip(contexts, episodes, prompts, room, strict=True):
            sampled = next(answers) if fits else Sampled(error=self._too_long(len(episode.ids)))
            if sampled.error:
                replies.append(Reply(text="", error=sampled.error))
                continue
            episode.ids += sampled.ids
            episode.reply = self.encoder.text_of(sampled.ids, context.tools)
            tokens = Tokens(prompt=tuple(prompt), sampled=sampled.ids, logprobs=sampled.logprobs)
            replies.append(Reply(text=episode.reply, tokens=tokens))
        return replies

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what is remembered of these episodes."""
        for key in keys:
            self._episodes.pop(key, None)

    def _prompt(self, context: Context) -> list[int]:
        """Bring the episode's tokens up to this turn; returns those that were appended."""
        episode = self._episodes.get(context.key)
        known = (*episode.messages, Message(role="assistant", content=episode.reply)) if episode else ()
        if episode and context.messages[:-1] == known:
            closed = episode.ids[-1] == self.encoder.end
            prompt = self.encoder.turn(context.messages[-1], closed=closed, tools=context.tools, reply=episode.reply)
        else:
            prompt = self.encoder.conversation(context.messages, context.tools)
            self.forget([context.key])
            episode = self._episodes[context.key] = _Episode()
        episode.ids += prompt
        episode.messages = context.messages
        return prompt

    def _too_long(self, length: int) -> str:
        return (
            f"the episode is too long: {length} tokens leave no room for a reply of "
            f"{self.max_new_tokens} within {self.max_length}"
        )

"""What the parts of serving hand to each other: requests, replies in pieces, engines."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from tutelage.experience import Experience
from tutelage.types import Shown, Tool

STUDENT = "student"
"""The model name that stands for whichever version is promoted; ``student@N`` is one certain version."""

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class ToolCall:
    """A call that a model wants made."""

    id: str
    name: str
    arguments: str
    """A JSON object as text, as the model wrote it."""


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation, in OpenAI's roles."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Of the assistant."""
    call_id: str = ""
    """Of a tool's answer: which call it answers."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Prompt:
    """What an engine answers."""

    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required``, or the name of the tool that must be called."""


@dataclass(frozen=True)
class TokenCount:
    """Tokens of one exchange."""

    prompt: int
    completion: int


@dataclass(frozen=True)
class Piece:
    """Part of a reply; the last one says how it ended."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Whole ones, in a piece of their own; with tools, what a local student writes is read when it has ended."""
    finish: Finish | None = None
    tokens: TokenCount | None = None


class Engine(Protocol):
    """Answers requests with one version of the student. Cancelling the iterator ends the generation."""

    @property
    def label(self) -> str:
        """Which version, e.g. ``student@3``."""
        ...

    def generate(self, prompt: Prompt) -> AsyncIterator[Piece]:
        """The reply in pieces.

        Raises:
            RequestRefused: it cannot be answered as asked, e.g. because it is too long.
            TutelageError: the engine has failed.
        """
        ...

    async def check(self) -> None:
        """Raises TutelageError: it does not answer."""
        ...

    async def close(self) -> None:
        """Free what it holds; nothing is under way any more."""
        ...


@dataclass(frozen=True)
class Options:
    """What Tutelage does around a request, by its ``tutelage`` object; None: as configured."""

    memory: bool | None = None
    guardrails: bool | None = None
    record: bool | None = None
    """Only False changes anything: who does not record by configuration cannot be made to."""
    session: str = ""
    """The caller's own name of the conversation; empty: it is recognised by how it begins."""
    environment: str = ""
    """Whose experiences; default: `serve.environment`."""


@dataclass(frozen=True)
class Chat:
    """A request that was understood."""

    id: str
    caller: str
    """Name of the key it came with."""
    tenant: str
    prompt: Prompt
    options: Options = Options()
    model: str = STUDENT
    """As the request names it."""


@dataclass(frozen=True)
class Answer:
    """A whole reply, as it was sent."""

    student: str
    """Label of the version that gave it."""
    text: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    tokens: TokenCount
    shown: tuple[Shown, ...] = ()
    """Experiences that were in the prompt."""
    blocked: tuple[str, ...] = ()
    """Ids of guardrails that held a call back on the way."""


@dataclass(frozen=True)
class Prepared:
    """A request with everything around it decided, before an engine sees it."""

    chat: Chat
    """As it came."""
    prompt: Prompt
    """What the engine gets: the request's own, with experiences in its first user message."""
    shown: tuple[Shown, ...] = ()
    guardrails: tuple[Experience, ...] = ()
    """Those in force; empty where they are switched off."""
    record: bool = False
    """Whether the exchange may be kept."""
    recalled: bool = False
    """Whether experiences were to be shown, be there any or not."""
    memory: bool = False
    """Whether experiences could be shown or guardrails enforced."""


@dataclass(frozen=True)
class Blocked:
    """A guardrail forbids a call of a reply."""

    guardrail: str
    """Its id."""
    note: str
    """What the model is told before it tries again: the remedy."""
    refusal: str
    """What the caller is told if it does not manage."""


class Assist(Protocol):
    """What is done around an engine: experiences, guardrails, and keeping what was said.

    Called from several threads at once.
    """

    def records(self, chat: Chat) -> bool:
        """Whether the exchange may be kept."""
        ...

    def prepare(self, chat: Chat) -> Prepared:
        """Decide about memory, guardrails and recording, and put experiences in.

        Raises:
            RequestRefused: what its options ask for cannot be.
            TutelageError: memory or the record cannot be used now.
        """
        ...

    def blocked(self, prepared: Prepared, calls: tuple[ToolCall, ...]) -> Blocked | None:
        """The first call that a guardrail in force forbids; None: all may be made."""
        ...

    def keep(self, prepared: Prepared, answer: Answer) -> None:
        """Keep the exchange, where that is allowed; called when the reply has been sent whole."""
        ...

    def close(self) -> None:
        """Write what is open and let go of memory; nothing is under way any more."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A version of the student that can answer now."""

    label: str
    created: int
    """Of the version, in seconds since 1970."""


class Students(Protocol):
    """The versions of the student that are loaded, the promoted one among them."""

    async def start(self) -> None:
        """Load the promoted version and begin to follow promotions.

        Raises:
            TutelageError: there is none, or it cannot be loaded.
        """
        ...

    def loaded(self) -> tuple[Loaded, ...]:
        """Those that requests can name; the one that `STUDENT` stands for comes first."""
        ...

    def engine(self, model: str) -> AbstractAsyncContextManager[Engine]:
        """The engine of `STUDENT` or of a label; it stays loaded until the context is left.

        Raises (on entering):
            UnknownName: no such version is loaded.
            TutelageError: none can answer now.
        """
        ...

    async def close(self) -> None:
        """Stop following, let requests under way end within `serve.drain`, and free everything."""
        ...

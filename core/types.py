"""The nouns of Tutelage: frozen data that environments, agents, memory and training share. Those of memory itself
are in `tutelage.experience`.

Everything here is immutable, validates on construction and round-trips through JSON, so that a
trajectory can be read without the code that produced it. Behaviour lives elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal, Protocol
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

TRAJECTORY_VERSION: Final = 1
OWN: Final = "own"
"""Origin of what was played here."""
LIVE: Final = "live"
"""Kind of the origins of what was said to a served student, ``live:KEY`` with the name of the caller's key."""
SERVED: Final = "served"
"""Arm and family of served conversations."""
TENANT: Final = "default"
"""The tenant of a workspace that has only one."""


class Frozen(BaseModel):
    """Base of every immutable record; unknown fields are refused rather than dropped."""

    # Numbers that JSON lacks (a log-probability of -inf) go through as strings, so nothing is lost.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def new_id(prefix: str) -> str:
    """A fresh identifier such as ``trj_3f2a…``; the prefix says what it names."""
    return f"{prefix}_{uuid4().hex[:16]}"


def now() -> datetime:
    return datetime.now(UTC)


# -- tasks --------------------------------------------------------------------------------------


class Split(StrEnum):
    """Which part of the data a task belongs to; only ``train`` may feed memory or weights."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Task(Frozen):
    """One goal in one environment at one seed. The goal itself is known after ``reset``."""

    environment: str
    family: str
    seed: int
    split: Split

    @property
    def kind(self) -> str:
        """Environment and family."""
        return f"{self.environment}/{self.family}"

    @property
    def id(self) -> str:
        return f"{self.kind}@{self.seed}"


class Tool(Frozen):
    """A tool an agent may call in an episode."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON schema of the arguments, an object; empty means no arguments."""


# -- what happened ------------------------------------------------------------------------------


class Cause(StrEnum):
    """Why a step turned out as it did."""

    PROGRESS = "progress"
    """The action ran and changed what the agent observes."""
    SOLVED = "solved"
    """The action ended the episode and the environment accepted it."""
    WRONG_END = "wrong_end"
    """The action ended the episode and the environment did not accept it."""
    NO_EFFECT = "no_effect"
    """The action ran and nothing the agent can observe changed."""
    REPEATED = "repeated"
    """The agent is going round in circles: this state and action occurred before."""
    INVALID_ACTION = "invalid_action"
    """The reply is not an action of this environment's grammar."""
    UNKNOWN_TARGET = "unknown_target"
    """The action names something that is not in the observation."""
    ACTION_FAILED = "action_failed"
    """The action is well-formed but the environment could not carry it out."""
    BLOCKED = "blocked"
    """A guardrail forbade the action; it was not executed."""
    ENVIRONMENT_ERROR = "environment_error"
    """The environment itself broke; the agent is not to blame."""


FINE = frozenset({Cause.PROGRESS, Cause.SOLVED})
"""Causes that need no feedback to the agent."""


class Diagnosis(Frozen):
    """An enumerated cause with its evidence and the difference between the two states."""

    cause: Cause
    evidence: str = ""
    """One sentence, fit to be shown to the agent as feedback on its own action."""
    added: tuple[str, ...] = ()
    """Observation lines that are new after the action."""
    removed: tuple[str, ...] = ()
    """Observation lines that are gone after the action."""

    @property
    def fine(self) -> bool:
        return self.cause in FINE


class Tokens(Frozen):
    """One turn, token for token as the policy saw and sampled it."""

    prompt: tuple[int, ...]
    """Tokens appended since the last sampled one: the observation and the generation prompt."""
    sampled: tuple[int, ...]
    """Tokens the policy sampled, the end-of-turn token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Natural-log probabilities of ``sampled`` at the sampling temperature; same length."""


class Step(Frozen):
    """One turn of an episode."""

    observation: str
    """What the agent saw before acting."""
    notes: tuple[str, ...] = ()
    """Feedback and replanning text placed before the observation in this turn's message."""
    reply: str
    """The policy's reply, verbatim."""
    thought: str = ""
    action: str
    """The action taken from the reply; not necessarily well-formed."""
    meaning: str = ""
    """The action with references resolved to what they named; empty if it is not well-formed."""
    diagnosis: Diagnosis
    after: str
    """What was there to see after acting."""
    reward: float = 0.0
    credit: float = 0.0
    """Share of the task done so far where the environment can tell; never the score."""
    blocked_by: str | None = None
    """Id of the guardrail that stopped the action, if one did."""
    tokens: Tokens | None = None


class Ending(StrEnum):
    """How an episode ended."""

    SOLVED = "solved"
    FAILED = "failed"
    STEP_LIMIT = "step_limit"
    STALLED = "stalled"
    """Too many steps in a row without progress."""
    POLICY_ERROR = "policy_error"
    ENVIRONMENT_ERROR = "environment_error"
    UNCLEAR = "unclear"
    """A served conversation in which nothing says whether it went well."""


BROKEN = (Ending.ENVIRONMENT_ERROR, Ending.POLICY_ERROR, Ending.UNCLEAR)
"""Endings of episodes that say nothing about whoever acted: they are neither judged nor learned from."""


class Shown(Frozen):
    """An experience as it stood in the first message of an episode."""

    id: str
    version: int
    text: str


class Trajectory(Frozen):
    """A task's steps and outcome: what memory, training and evaluation all read."""

    version: Literal[1] = TRAJECTORY_VERSION
    id: str = Field(default_factory=lambda: new_id("trj"))
    task: Task
    goal: str
    system: str
    """The system message: what the environment is and which actions it takes."""
    tools: tuple[Tool, ...] = ()
    """The tools that the system message lists as its last lines (`tutelage.tools.listing`)."""
    policy: str
    """Label of the policy that acted, e.g. ``expert/miniwob (scripted)`` or ``student@3``."""
    memory: bool
    """Whether experiences could be shown and guardrails enforced."""
    shown: tuple[Shown, ...] = ()
    steps: tuple[Step, ...] = ()
    reward: float = 0.0
    ending: Ending
    error: str = ""
    origin: str = OWN
    """``own`` (played here), ``import:NAME``, ``user:NAME`` or ``live:NAME``; what it is trusted for is configured."""
    tenant: str = TENANT
    plain: bool = False
    """Whether observations are the user's messages as they were, without the headings of `tutelage.conversation`."""
    created: datetime = Field(default_factory=now)
    seconds: float = 0.0

    @property
    def success(self) -> bool:
        """The environment's own programmatic check, which no judge overrules; of a served conversation, what the
        judge made of the next messages."""
        return self.ending is Ending.SOLVED

    @property
    def live(self) -> bool:
        """Whether it is a served conversation: no check of an environment stands behind its ending."""
        return self.origin.partition(":")[0] == LIVE

    @property
    def first_observation(self) -> str:
        return self.steps[0].observation if self.steps else ""


class Verdict(Frozen):
    """A judge's decision on a trajectory, made from the transcript alone."""

    trajectory: str
    judge: str
    successful: bool
    reason: str
    cited: tuple[int, ...] = ()
    """Indices of the steps that the decision rests on."""
    votes: tuple[bool, ...] = ()
    """What each vote said where several were asked for; a tie is not a success."""
    side_effects: bool = False
    """Whether something was done that the goal does not ask for."""
    looped: bool = False
    """Whether the agent went round in circles."""
    optimality: int = Field(0, ge=0, le=4)
    """How direct the way was, 1 (much wasted) to 4 (nothing wasted); 0: not said."""
    hinted: bool = False
    """Whether the judge saw a designer's hint; its reason then goes to no other role."""


# -- policies -----------------------------------------------------------------------------------


class Message(Frozen):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Context:
    """What a policy sees of one episode when it is asked to act: the conversation so far."""

    key: str
    """Names the episode; a later context with the same key extends an earlier one."""
    messages: tuple[Message, ...]
    seed: int
    """Seed for this episode's sampling, so that a result does not depend on its batch."""
    environment: str = ""
    """Short name of the environment it plays in, for policies that are several in one."""
    tools: tuple[Tool, ...] = ()
    """What the system message lists as text, for policies whose models take tools as data."""


@dataclass(frozen=True)
class Reply:
    """A policy's answer to one context."""

    text: str
    tokens: Tokens | None = None
    error: str = ""
    """Why there is no answer (the provider failed for good); ends the episode as data."""


class Policy(Protocol):
    """Anything that answers a batch of contexts with a batch of replies."""

    @property
    def label(self) -> str:
        """What to call it wherever results are shown; scripted policies say so."""
        ...

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in order."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Drop whatever is cached for these episodes; they are over."""
        ...

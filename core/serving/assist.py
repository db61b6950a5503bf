"""What is done around the student: experiences before it answers, guardrails after, and keeping what was said."""

import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from tutelage import tools as tooling
from tutelage.agents.episode import blocked as diagnosis_of
from tutelage.agents.guard import forbids
from tutelage.config import INDEX
from tutelage.conversation import read_turn, with_experiences
from tutelage.experience import Experience, Guardrail
from tutelage.memory.server.service import Service
from tutelage.memory.trust import with_declared
from tutelage.redaction import Redactor
from tutelage.serving.sessions import Sessions
from tutelage.serving.types import Answer, Blocked, Chat, ChatMessage, Prepared, ToolCall
from tutelage.types import SERVED, Shown, Split, Task
from tutelage.workspace import Workspace

LONGEST_GOAL = 2000
"""Characters of a request that take part in a recall."""
MOST_RULES = 256
"""Environments, of all tenants, whose guardrails are kept at hand."""

_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
_ARGUMENT = re.compile(r"[(,*]\s*([\w.$-]+)=")


class Situation(NamedTuple):
    """What a conversation is about, as an episode would say it."""

    goal: str
    observation: str


class Assistance:
    """Memory, guardrails and the record around a server's requests; each caller sees its own tenant's memory."""

    def __init__(self, workspace: Workspace) -> None:
        self._config, self._record = workspace.config, workspace.record
        self._memory = Service(workspace.record, workspace.folder / INDEX, with_declared(workspace.config))
        self._rules: dict[tuple[str, str], tuple[object, tuple[Experience, ...]]] = {}
        self._lock = threading.Lock()
        learning = self._config.serve.learning
        redactor = Redactor(learning.redact)
        self._sessions = Sessions(self._record, redactor, idle=learning.idle) if learning.record else None

    def records(self, chat: Chat) -> bool:
        """Whether the exchange may be kept: that is configured, and the request does not say otherwise."""
        return self._sessions is not None and chat.options.record is not False

    def prepare(self, chat: Chat) -> Prepared:
        """Decide about memory, guardrails and recording, and put experiences in: for all turns of a conversation the
        same ones, or none, so that what was said stays as it was.

        Raises:
            TutelageError: memory cannot be opened.
        """
        serve, options = self._config.serve, chat.options
        environment = options.environment or serve.environment
        record = self.records(chat)
        known = self._sessions.find(chat) if self._sessions is not None and record else None
        recalled = serve.memory if options.memory is None else options.memory
        shown: tuple[Shown, ...] = ()
        if recalled:
            before = known.shown if known is not None else None
            shown = self._recalled(chat, environment) if before is None else before
        guarded = (serve.guardrails if options.guardrails is None else options.guardrails) and bool(chat.prompt.tools)
        return Prepared(
            chat=chat,
            prompt=replace(chat.prompt, messages=_with_experiences(chat.prompt.messages, shown)),
            shown=shown,
            guardrails=self._guardrails(chat.tenant, environment) if guarded else (),
            record=record,
            recalled=recalled,
            memory=recalled or guarded,
        )

    def blocked(self, prepared: Prepared, calls: tuple[ToolCall, ...]) -> Blocked | None:
        """The first call that a guardrail forbids, by what was said last; also where that is too long to tell."""
        if not prepared.guardrails:
            return None
        messages = prepared.chat.prompt.messages
        goal, observation = situation(messages)[0], _last_said(messages)
        for call in calls:
            rule = _forbidden(prepared.guardrails, call, observation, goal)
            if rule is not None:
                note = diagnosis_of(rule).evidence
                return Blocked(rule.id, note, f"A call of {call.name} was held back. {_why(rule)}".strip())
        return None

    def keep(self, prepared: Prepared, answer: Answer) -> None:
        """Keep the exchange, redacted, as a turn of its conversation."""
        if self._sessions is not None and prepared.record:
            self._sessions.keep(prepared, answer)

    def close(self) -> None:
        """Let go of memory; every turn is in the record already."""
        self._memory.close()

    # -- inside ---------------------------------------------------------------------------------

    def _recalled(self, chat: Chat, environment: str) -> tuple[Shown, ...]:
        goal, observation = situation(chat.prompt.messages)
        if not goal:
            return ()
        task = Task(environment=environment, family=SERVED, seed=seed_of(chat.id), split=Split.TRAIN)
        return self._memory.store(chat.tenant).recall(task, goal[:LONGEST_GOAL], observation).shown

    def _guardrails(self, tenant: str, environment: str) -> tuple[Experience, ...]:
        """Those in force; read anew when experiences have changed."""
        key, stand = (tenant, environment), self._record.newest()
        with self._lock:
            found = self._rules.get(key)
        if found is None or found[0] != stand:
            found = (stand, self._memory.store(tenant).guardrails(environment))
            with self._lock:
                self._rules.pop(key, None)
                while len(self._rules) >= MOST_RULES:  # callers name environments as they like
                    del self._rules[next(iter(self._rules))]
                self._rules[key] = found
        return found[1]


def situation(messages: tuple[ChatMessage, ...]) -> Situation:
    """The user's request that a conversation begins with: the last one before the first reply."""
    said = ""
    for message in messages:
        if message.role == "assistant":
            break
        said = message.content if message.role == "user" else said
    goal, observation = read_turn(said)
    return Situation(said, "") if goal is None else Situation(goal, observation)


def seed_of(name: str) -> int:
    """A task's seed from the id of what it stands for, 31 bits."""
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big") >> 1


def _with_experiences(messages: tuple[ChatMessage, ...], shown: tuple[Shown, ...]) -> tuple[ChatMessage, ...]:
    place = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    if not shown or place is None:
        return messages
    first = replace(messages[place], content=with_experiences(messages[place].content, shown))
    return (*messages[:place], first, *messages[place + 1 :])


def _last_said(messages: tuple[ChatMessage, ...]) -> str:
    """All that came since the last reply, as observations."""
    said: list[str] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        if message.role in ("user", "tool"):
            read = read_turn(message.content)[1] if message.role == "user" else ""
            said.insert(0, read or message.content)
    return "\n".join(said)


def _forbidden(rules: Iterable[Experience], call: ToolCall, observation: str, goal: str) -> Experience | None:
    """The first of the guardrails that forbids the call with its arguments in some order."""
    for rule in rules:
        for meaning in _meanings(call, rule):
            if forbids([rule], meaning, observation, goal, careful=True) is not None:
                return rule
    return None


def _meanings(call: ToolCall, rule: Experience) -> Iterator[str]:
    """The call with its arguments as they were written, and with those that the rule names as it orders them, before
    all others and behind them: in which order a model writes them changes nothing of what the call does."""
    yield tooling.meaning(tooling.call_from_openai(call.name, call.arguments))
    assert isinstance(rule.content, Guardrail), f"{rule.id} is not a guardrail"
    try:
        given = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return
    names = _ARGUMENT.findall(_TEXTS.sub('""', rule.content.forbidden))
    if not isinstance(given, dict) or len(given) < 2:
        return
    named = {name: given[name] for name in names if name in given}
    others = {name: value for name, value in given.items() if name not in named}
    for ordered in ({**named, **others}, {**others, **named}):
        yield tooling.meaning(tooling.call_from_openai(call.name, json.dumps(ordered)))


def _why(rule: Experience) -> str:
    assert isinstance(rule.content, Guardrail), f"{rule.id} is not a guardrail"
    return f"{rule.content.root_cause} {rule.content.remedy}".strip()

"""Conversations as they grow: which request belongs to which, and every turn in the record as soon as it was sent.

A request whose messages begin with all that a known conversation holds is its next turn; one that asks again for the
last reply replaces it. A conversation is only ever kept from its beginning on: one that begins with replies which are
not known here may hold what its caller did not want kept. What is kept, and what conversations are recognised by, is
redacted first. Until a conversation is over its turns are documents; then they become a trajectory
(`tutelage.serving.feedback`), and one that is taken up later is not kept any further.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import delete

from tutelage.record import Record
from tutelage.record_tables import DOCUMENTS
from tutelage.redaction import Redactor
from tutelage.serving.types import Answer, Chat, ChatMessage, Finish, Prepared, ToolCall
from tutelage.types import Frozen, Shown, Tool, new_id

TURN = "turn"
"""Kind of the documents that keep the turns of conversations under way; their key is ``SESSION/NUMBER``."""


class Turn(Frozen):
    """A reply and what came before it since the last one, redacted."""

    session: str
    index: int
    caller: str
    """Name of the key that it came with."""
    tenant: str
    name: str = ""
    """Digest of the name that the caller gave the conversation; empty if it was recognised."""
    came: tuple[ChatMessage, ...]
    """Messages since the last reply; of the first turn all of the request's."""
    reply: ChatMessage
    tools: tuple[Tool, ...] = ()
    student: str
    """Label of the version that replied."""
    finish: Finish
    memory: bool
    """Whether experiences could be shown or guardrails enforced."""
    shown: tuple[Shown, ...] = ()
    blocked: tuple[str, ...] = ()
    """Ids of the guardrails that held calls back."""
    asked: str
    """Digest of the request's messages."""
    created: datetime

    @property
    def key(self) -> str:
        return key_of(self.session, self.index)


@dataclass(frozen=True)
class Open:
    """What is known of a conversation under way without looking at the record."""

    session: str
    turns: int
    name: str
    shown: tuple[Shown, ...]
    """What stands in its first message."""
    asked: str
    tip: str
    """Digest of all messages up to and with the last reply."""
    last: float
    """Seconds since 1970 of its last turn."""


class Place(NamedTuple):
    """Where a request's turn belongs."""

    session: str
    turn: int
    shown: tuple[Shown, ...]


class Sessions:
    """The conversations under way of one server, for any number of threads."""

    def __init__(
        self, record: Record, redactor: Redactor, *, idle: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Take up those that the record holds.

        Args:
            idle: seconds after which a conversation may have been closed, and is forgotten here.
        """
        self._clock = clock
        self._record = record
        self._redactor = redactor
        self._idle = idle
        self._lock = threading.Lock()
        self._open: dict[str, Open] = {}
        """By session, the one that was quiet for longest first."""
        self._tips: dict[str, list[str]] = defaultdict(list)
        """Digest of all messages up to a reply → the sessions that stand there, the newest last."""
        for turns in open_turns(record).values():
            said = [message for turn in turns for message in (*turn.came, turn.reply)]
            self._put(_opened(turns[-1], turns[0].shown, _digest(turns[-1].caller, said)))

    def find(self, chat: Chat) -> Place | None:
        """Where the next turn of this conversation belongs; None for one that is not known."""
        with self._lock:
            return self._find(chat, self._redacted(chat.prompt.messages))

    def keep(self, prepared: Prepared, answer: Answer, *, memory: bool) -> str:
        """Keep the exchange as a turn; returns its session, or empty if it continues what is not known here."""
        chat, now = prepared.chat, self._clock()
        messages = self._redacted(chat.prompt.messages)
        reply = self._clean(ChatMessage("assistant", answer.text, answer.calls))
        with self._lock:
            place = self._find(chat, messages)
            if place is None and _replies(messages):
                return ""
            shown = tuple(replace_text(item, self._redactor.text(item.text)) for item in prepared.shown)
            session, index, first_shown = place or Place(new_id("ses"), 0, shown)
            came = messages[_replies(messages) :]
            turn = Turn(
                session=session,
                index=index,
                caller=chat.caller,
                tenant=chat.tenant,
                name=_named(chat),
                came=came,
                reply=reply,
                tools=tuple(map(self._tool, chat.prompt.tools)),
                student=answer.student,
                finish=answer.finish,
                memory=memory,
                shown=shown,
                blocked=answer.blocked,
                asked=_digest(chat.caller, messages),
                created=datetime.fromtimestamp(now, UTC),
            )
            with self._record.transaction():
                if index and self._record.get(TURN, key_of(session, index - 1)) is None:  # closed in the meantime
                    self._drop(session)
                    return ""
                self._record.put(TURN, turn.key, turn.model_dump(mode="json"))
            self._put(_opened(turn, first_shown, _digest(chat.caller, (*messages, reply))))
            self._forget_quiet(now)
            return session

    # -- inside ---------------------------------------------------------------------------------

    def _find(self, chat: Chat, messages: tuple[ChatMessage, ...]) -> Place | None:
        replies = _replies(messages)
        if not replies:
            return None
        asked, name = _digest(chat.caller, messages), _named(chat)
        mine = [found for found in self._open.values() if found.name == name]
        again = [found for found in mine if found.asked == asked and found.turns > 1]
        if again:
            return Place(again[-1].session, again[-1].turns - 1, again[-1].shown)
        if name and mine:
            known = mine
        else:
            tips = self._tips.get(_digest(chat.caller, messages[:replies]), ())
            known = [self._open[session] for session in tips if self._open[session].name in ("", name)]
        return Place(known[-1].session, known[-1].turns, known[-1].shown) if known else None

    def _put(self, found: Open) -> None:
        self._drop(found.session)
        self._open[found.session] = found
        self._tips[found.tip].append(found.session)

    def _drop(self, session: str) -> None:
        old = self._open.pop(session, None)
        if old is not None:
            self._tips[old.tip].remove(session)
            if not self._tips[old.tip]:
                del self._tips[old.tip]

    def _forget_quiet(self, now: float) -> None:
        for found in list(self._open.values()):
            if found.last > now - 2 * self._idle:
                break
            self._drop(found.session)

    def _redacted(self, messages: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
        return tuple(map(self._clean, messages))

    def _clean(self, message: ChatMessage) -> ChatMessage:
        calls = tuple(
            ToolCall(call.id, self._redactor.text(call.name), self._redactor.document(_text(call.arguments)))
            for call in message.calls
        )
        return replace(message, content=self._redactor.document(_text(message.content)), calls=calls)

    def _tool(self, tool: Tool) -> Tool:
        clean = self._redactor
        parameters = clean.value(tool.parameters)
        return Tool(name=clean.text(tool.name), description=clean.text(tool.description), parameters=parameters)


def key_of(session: str, index: int) -> str:
    return f"{session}/{index:04d}"


def open_turns(record: Record) -> dict[str, list[Turn]]:
    """The turns of every conversation under way, by session, in order."""
    found: dict[str, list[Turn]] = defaultdict(list)
    for body in record.items(TURN).values():
        turn = Turn.model_validate(body)
        found[turn.session].append(turn)
    return {session: sorted(turns, key=lambda turn: turn.index) for session, turns in found.items()}


def drop_turns(record: Record, session: str) -> None:
    """Take the turns of a conversation out of the record, in the transaction that decides what becomes of it."""
    mine = (DOCUMENTS.c.kind == TURN) & DOCUMENTS.c.key.startswith(f"{session}/", autoescape=True)
    with record.transaction() as connection:
        connection.execute(delete(DOCUMENTS).where(mine))


def replace_text(shown: Shown, text: str) -> Shown:
    return shown if shown.text == text else shown.model_copy(update={"text": text})


def _opened(turn: Turn, shown: tuple[Shown, ...], tip: str) -> Open:
    return Open(turn.session, turn.index + 1, turn.name, shown, turn.asked, tip, turn.created.timestamp())


def _replies(messages: Sequence[ChatMessage]) -> int:
    """Messages up to and with the last one of the assistant."""
    places = [place for place, message in enumerate(messages) if message.role == "assistant"]
    return places[-1] + 1 if places else 0


def _named(chat: Chat) -> str:
    """A digest, for the name may itself be what must not be kept."""
    name = json.dumps([chat.caller, chat.options.session])
    return sha256(name.encode()).hexdigest()[:32] if chat.options.session else ""


def _digest(caller: str, messages: Iterable[ChatMessage]) -> str:
    """What a conversation is recognised by: who says what, whatever a client makes of ids, spaces and the order of
    arguments."""
    said = [
        [message.role, message.content.strip(), [[call.name, _canonical(call.arguments)] for call in message.calls]]
        for message in messages
    ]
    return sha256(json.dumps([caller, said]).encode()).hexdigest()


def _text(text: str) -> str:
    """Without halves of characters, which nothing can be written with."""
    return text.encode("utf-8", "replace").decode()


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments.strip()

"""Conversations as they grow: which request belongs to which, and every turn in the record as soon as it was sent.

A request whose messages begin with all that a known conversation holds is its next turn; one that asks again for the
last reply replaces it. A conversation is only ever kept from its beginning on: one that begins with replies which are
not known here may hold what its caller did not want kept. Until a conversation is over its turns are documents; then
they become a trajectory (`tutelage.serving.feedback`), and one that is taken up later is not kept any further.

What is kept is redacted first. Conversations are recognised by digests of the words as they came, so that those which
differ in a secret alone are told apart. The digests are keyed with a secret of the workspace that stands in no record
and no backup, and do not give away what they are of.
"""

import hmac
import json
import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import delete

from tutelage.errors import TutelageError
from tutelage.record import Record
from tutelage.record_tables import DOCUMENTS
from tutelage.redaction import Redactor
from tutelage.serving.types import Answer, Chat, ChatMessage, Finish, Prepared, ToolCall
from tutelage.types import Frozen, Shown, Tool, new_id

TURN = "turn"
"""Kind of the documents that keep the turns of conversations under way; their key is ``SESSION/NUMBER``."""
KEY_FILE = "sessions.key"
"""Beside the record; without it, conversations under way are judged as ever, but not continued."""
KEY_BYTES = 32


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
    recalled: bool = False
    """Whether experiences were to be shown, be there any or not."""
    shown: tuple[Shown, ...] = ()
    blocked: tuple[str, ...] = ()
    """Ids of the guardrails that held calls back."""
    asked: str
    """Digest of the request's messages."""
    tip: str = ""
    """Digest of all messages up to and with the reply."""
    said: str = ""
    """Digest of the reply alone."""
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
    shown: tuple[Shown, ...] | None
    """What stands in its first message, in the words that the student read, or after a restart in those that were
    kept; None: nobody has asked for any yet."""
    asked: str
    tip: str
    said: str
    last: float
    """Seconds since 1970 of its last turn."""


class _Marks(NamedTuple):
    """What a request's conversation is recognised by."""

    name: str
    asked: str
    tip: str
    """Digest of all messages up to and with the last reply; empty without one."""
    said: str
    """Digest of the last reply; empty where nothing but system messages comes before it, as in a summary of what
    was said."""


class Place(NamedTuple):
    """Where a request's turn belongs."""

    session: str
    turn: int
    shown: tuple[Shown, ...] | None
    """As in `Open`."""


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
        self._key = _key_of(record)
        self._open: dict[str, Open] = {}
        """By session, the one that was quiet for longest first."""
        self._tips: dict[str, list[str]] = defaultdict(list)
        """Digest of all messages up to a reply → the sessions that stand there, the newest last."""
        for turns in open_turns(record).values():
            shown = next((turn.shown for turn in turns if turn.recalled or turn.shown), None)
            self._put(_opened(turns[-1], shown))

    def find(self, chat: Chat) -> Place | None:
        """Where the next turn of this conversation belongs; None for one that is not known."""
        marks = self._marks(chat)
        with self._lock:
            return self._find(marks)

    def keep(self, prepared: Prepared, answer: Answer) -> None:
        """Keep the exchange as a turn, unless it continues what is not known here."""
        chat, now = prepared.chat, self._clock()
        sent, marks = chat.prompt.messages, self._marks(chat)
        said = ChatMessage("assistant", answer.text, answer.calls)
        # Redacting takes time, so it is done before anybody has to wait for it.
        last = max(_replies(sent) - 1, 0)
        numbered = tuple(_numbered([*sent[last:], said]))
        *came, reply = map(self._clean, numbered[1:] if marks.tip else numbered)
        shown = tuple(replace_text(item, self._redactor.text(item.text)) for item in prepared.shown)
        tools = tuple(map(self._tool, chat.prompt.tools))
        tip, alone = self._digest(chat, (*sent, said)), self._digest(chat, (said,))
        with self._lock:
            place = self._find(marks)
            if place is None and marks.tip:
                return
            session, index, in_first = place or Place(new_id("ses"), 0, None)
            if in_first is None and prepared.recalled:
                in_first = prepared.shown
            turn = Turn(
                session=session,
                index=index,
                caller=chat.caller,
                tenant=chat.tenant,
                name=marks.name,
                came=tuple(came),
                reply=reply,
                tools=tools,
                student=answer.student,
                finish=answer.finish,
                memory=prepared.memory,
                recalled=prepared.recalled,
                shown=shown,
                blocked=answer.blocked,
                asked=marks.asked,
                tip=tip,
                said=alone,
                created=datetime.fromtimestamp(now, UTC),
            )
            with self._record.transaction():
                if index and self._record.get(TURN, key_of(session, index - 1)) is None:  # closed in the meantime
                    self._drop(session)
                    return
                self._record.put(TURN, turn.key, turn.model_dump(mode="json"))
            self._put(_opened(turn, in_first))
            self._forget_quiet(now)

    # -- inside ---------------------------------------------------------------------------------

    def _marks(self, chat: Chat) -> _Marks:
        messages, name = chat.prompt.messages, chat.options.session
        replies = _replies(messages)
        before = messages[: max(replies - 1, 0)]
        alone = all(message.role == "system" for message in before)
        return _Marks(
            name=self._keyed([chat.tenant, chat.caller, name])[:32] if name else "",
            asked=self._digest(chat, messages),
            tip=self._digest(chat, messages[:replies]) if replies else "",
            said="" if alone else self._digest(chat, messages[replies - 1 : replies]),
        )

    def _find(self, marks: _Marks) -> Place | None:
        if not marks.tip:
            return None
        mine = [found for found in self._open.values() if found.name == marks.name]
        again = [found for found in mine if found.asked == marks.asked and found.turns > 1]
        if again:
            return Place(again[-1].session, again[-1].turns - 1, again[-1].shown)
        known: list[Open] = []
        if marks.name:  # a reply that is not the kept one was not to be kept, and what follows is about that one
            known = [found for found in mine if marks.said in ("", found.said)]
        if not known:
            tips = self._tips.get(marks.tip, ())
            known = [self._open[session] for session in tips if self._open[session].name in ("", marks.name)]
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

    def _digest(self, chat: Chat, messages: Iterable[ChatMessage]) -> str:
        """What a conversation is recognised by: who says what, whatever a client makes of ids, spaces and the order of
        arguments."""
        said = [
            [
                message.role,
                _text(message.content).strip(),
                [[call.name, _canonical(_text(call.arguments))] for call in message.calls],
            ]
            for message in messages
        ]
        return self._keyed([chat.tenant, chat.caller, said])

    def _keyed(self, value: Any) -> str:
        return hmac.digest(self._key, json.dumps(value).encode(), "sha256").hex()

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


def _opened(turn: Turn, shown: tuple[Shown, ...] | None) -> Open:
    last = turn.created.timestamp()
    return Open(turn.session, turn.index + 1, turn.name, shown, turn.asked, turn.tip, turn.said, last)


def _key_of(record: Record) -> bytes:
    """The workspace's key, made if there is none; of a record that lies in no folder, one for as long as this runs.

    Raises:
        TutelageError: it cannot be read or made.
    """
    made = secrets.token_bytes(KEY_BYTES)
    if record.folder is None:
        return made
    path = record.folder / KEY_FILE
    part = path.with_name(f".{KEY_FILE}.{secrets.token_hex(8)}")
    try:
        if not path.exists():
            try:
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(made)
                try:
                    os.link(part, path)
                except FileExistsError:  # another process was quicker, and its key is the one
                    pass
                except OSError:  # not every file system has hard links
                    part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        key = path.read_bytes()
    except OSError as error:
        raise TutelageError(f"the key that conversations are recognised with, {path}: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise TutelageError(f"{path} is no key that conversations are recognised with; delete it to have one made")
    return key


def _replies(messages: Sequence[ChatMessage]) -> int:
    """Messages up to and with the last one of the assistant."""
    places = [place for place, message in enumerate(messages) if message.role == "assistant"]
    return places[-1] + 1 if places else 0


def _numbered(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """With ids of calls that are counted, for those that came may hold anything."""
    ids: dict[str, str] = {}
    for message in messages:
        if message.role == "assistant":
            ids = {call.id: f"call_{place}" for place, call in enumerate(message.calls, 1)}
        calls = tuple(replace(call, id=ids[call.id]) for call in message.calls)
        yield replace(message, calls=calls, call_id=ids.get(message.call_id, ""))


def _text(text: str) -> str:
    """Without halves of characters, which nothing can be written with."""
    return text.encode("utf-8", "replace").decode()


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments.strip()

"""Cassettes: every exchange with a provider in one file, to be played back for free.

A cassette is JSON lines. The first says what it is; each further one is an attempt at a call: the request, its hash,
and the response or the failure that came. Secrets are taken out before anything is hashed, written or given back, so
that a replay sees exactly what the recorded run saw. Models of an embedded provider are not recorded.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import IO, Any, Literal

from pydantic import ValidationError

from tutelage import __version__
from tutelage.completion import AttemptFailed, Call, Failure, Response
from tutelage.errors import BudgetSpent, ConfigError
from tutelage.secrets import cleaned
from tutelage.types import Frozen

FORMAT = 1
"""Of the file; a reader refuses any other."""
NO_MATTER = (
    "api_base",
    "api_key",
    "base_url",
    "cache_control_injection_points",
    "extra_headers",
    "timeout",
)
"""Options that change how a request is sent, not what is asked."""
SCHEMA = "response_format"


class NotRecorded(BudgetSpent):
    """A replay has no answer to a request. It may send none itself, as if its budget were spent, and so it stops
    where a spent budget stops: at once, with everything so far saved."""


class Entry(Frozen):
    """One attempt: either `response` or `error` is there."""

    hash: str
    """Of the request, see `hash_of`."""
    n: int
    """How many attempts at the very same request came before it. Of several entries with one hash and n, the last
    one in the file counts."""
    request: dict[str, Any]
    response: Response | None = None
    error: Failure | None = None

    def outcome(self) -> Response:
        """What the attempt brought, marked as replayed.

        Raises:
            AttemptFailed: it failed; there is nothing to wait for before the next one.
        """
        if self.response is not None:
            return self.response.model_copy(update={"replayed": True})
        assert self.error is not None, "an entry holds a response or an error"
        raise AttemptFailed(self.error.model_copy(update={"replayed": True, "wait": 0.0}))


class Cassette:
    """Stands between the caller of a model and the attempt at the call; safe to use from many threads.

    In mode ``record`` it takes what is there and appends what is missing, so that an interrupted run goes on for free.
    What failed for good in an earlier process, say for want of a key, is missing too; a failure after which the same
    request was tried again and answered is not.
    In mode ``replay`` nobody is called; a request that came more often than it was recorded gets its last outcome.
    """

    def __init__(self, path: Path, mode: Literal["record", "replay"]) -> None:
        """
        Raises:
            ConfigError: there is no such cassette to replay, it is none or is damaged, or another process records it.
        """
        self.path, self.mode = path, mode
        self._lock = Lock()
        self._asked: Counter[str] = Counter()
        self._entries: dict[str, dict[int, Entry]] = defaultdict(dict)
        self._file = self._open()

    def attempt(self, call: Call, make: Callable[[Call], Response]) -> Response:
        """The recorded outcome of this attempt, or else that of `make`, which is kept.

        Raises:
            AttemptFailed: the attempt fails, now or when it was recorded.
            NotRecorded: in a replay, this was never asked.
        """
        request = request_of(call)
        key = hash_of(request)
        with self._lock:
            n = self._asked[key]
            self._asked[key] += 1
            found = self._find(key, n)
            if found is None and self.mode == "replay":
                raise NotRecorded(self._missing(request))
        if found is not None:
            return found.outcome()
        try:
            response = make(call)
        except AttemptFailed as error:
            failure = Failure.model_validate(cleaned(error.failure.model_dump(mode="json")))
            self._keep(Entry(hash=key, n=n, request=request, error=failure))
            raise AttemptFailed(failure) from None
        response = Response.model_validate(cleaned(response.model_dump(mode="json")))
        self._keep(Entry(hash=key, n=n, request=request, response=response))
        return response

    def __len__(self) -> int:
        """Attempts that it holds."""
        return sum(map(len, self._entries.values()))

    def close(self) -> None:
        """Let other processes have the file."""
        self._file.close()

    def _find(self, key: str, n: int) -> Entry | None:
        mine = self._entries.get(key, {})
        if self.mode == "record":
            found = mine.get(n)
            return None if found is None or _for_good(found, mine.values()) else found
        if n in mine or not mine:
            return mine.get(n)
        return mine[max((k for k in mine if k < n), default=min(mine))]

    def _keep(self, entry: Entry) -> None:
        with self._lock:
            _write(self._file, entry.model_dump(mode="json", exclude_none=True))
            self._entries[entry.hash][entry.n] = entry

    # -- the file --------------------------------------------------------------------------------

    def _open(self) -> IO[bytes]:
        """The file, locked until it is closed, by a kill too; replays share the lock."""
        record = self.mode == "record"
        try:
            if record:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b" if record else "rb")
        except FileNotFoundError as error:
            raise ConfigError(
                f'there is no cassette {self.path} to replay; make it with --record or cassette.mode = "record"'
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot open the cassette {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if record else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            self._read(file)
        except BlockingIOError as error:
            file.close()
            raise ConfigError(
                f"the cassette {self.path} is in use by another process, and only one may record; "
                "wait for it or name another file in cassette.path"
            ) from error
        except BaseException:
            file.close()
            raise
        return file

    def _read(self, file: IO[bytes]) -> None:
        """All whole lines; what follows the last line end was being written when its writer was killed."""
        file.seek(0)
        *lines, rest = file.read().split(b"\n")
        if lines:
            self._check_header(lines[0])
        elif rest and not _header().startswith(rest):
            raise ConfigError(f"{self.path} is no cassette; nothing was changed")
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError as error:
                raise ConfigError(f"line {number} of the cassette {self.path} is damaged; delete that line") from error
            self._entries[entry.hash][entry.n] = entry
        if self.mode == "record" and rest:
            file.truncate(file.tell() - len(rest))
        if self.mode == "record" and not lines:
            file.write(_header() + b"\n")
            file.flush()

    def _check_header(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            version = header["cassette"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is no cassette; nothing was changed") from error
        if version != FORMAT:
            raise ConfigError(
                f"{self.path} is a cassette of format {version}, made by Tutelage {header.get('tutelage', '?')}; "
                f"this version reads format {FORMAT}"
            )

    # -- what a replay lacks ---------------------------------------------------------------------

    def _missing(self, request: dict[str, Any]) -> str:
        """One line that tells a reader where this run parts from the recorded one."""
        recorded = [entry.request for at in self._entries.values() for entry in at.values()]
        nearest = max(recorded, key=lambda other: _likeness(request, other), default=None)
        where = f"the nearest of its {len(self)} differs {_difference(request, nearest)}" if nearest else "it is empty"
        return (
            f"the cassette {self.path} has no answer to this request to {request['model']}: {where}. "
            'Nobody was called; to ask for what is missing, set cassette.mode = "record"'
        )


def request_of(call: Call) -> dict[str, Any]:
    """What is asked, without secrets and without what does not matter for the answer.

    Of a schema for the answer only stays that there is one, for it is in the prompt as well: a provider may refuse the
    one request and answer the other, and many threads ask them in no certain order.
    """
    options = {name: value for name, value in call.options.items() if name not in NO_MATTER}
    if SCHEMA in options:
        options[SCHEMA] = options[SCHEMA] is not None
    body = cleaned({**call.model_dump(mode="json", exclude={"model"}), "options": options})
    return {"model": call.model, **body}


def hash_of(request: dict[str, Any]) -> str:
    """SHA-256 of the request as JSON with sorted keys, no spaces and ASCII only."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _for_good(entry: Entry, others: Iterable[Entry]) -> bool:
    """Whether the attempt failed and no later one at the same request made up for it."""
    if entry.error is None:
        return False
    return not (entry.error.transient and any(other.response for other in others if other.n > entry.n))


def _header() -> bytes:
    return json.dumps({"cassette": FORMAT, "tutelage": __version__}).encode()


def _write(file: IO[bytes], body: dict[str, Any]) -> None:
    """One whole line, on disk when this returns."""
    file.write(json.dumps(body, ensure_ascii=False).encode(errors="replace") + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _likeness(asked: dict[str, Any], other: dict[str, Any]) -> tuple[int, int, int]:
    """Messages in common from the start, then characters of the next one, then model, tools and options."""
    same = _common(asked["messages"], other["messages"])
    one, two = (json.dumps(request["messages"][same : same + 1]) for request in (asked, other))
    return same, _common(one, two), sum(asked[name] == other[name] for name in ("model", "tools", "options"))


def _difference(asked: dict[str, Any], other: dict[str, Any]) -> str:
    same = _common(asked["messages"], other["messages"])
    if same < max(len(asked["messages"]), len(other["messages"])):
        here, there = (
            request["messages"][same] if same < len(request["messages"]) else None for request in (asked, other)
        )
        if here is None or there is None:
            return f"first in length: {len(other['messages'])} messages recorded, {len(asked['messages'])} asked"
        one, two = (str(m["content"]) if here["role"] == there["role"] else json.dumps(m) for m in (here, there))
        at = _common(one, two)
        if one == two:
            return f"first in message {same} ({here['role']}), in its tool calls"
        shown = slice(max(0, at - 20), at + 40)
        return (
            f"first in message {same} ({here['role']}), at character {at}: "
            f"recorded {two[shown]!r}, asked {one[shown]!r}"
        )
    for name in ("model", "tools", "options"):
        if asked[name] != other[name]:
            return f"in its {name}: recorded {_short(other[name])}, asked {_short(asked[name])}"
    raise AssertionError("an equal request has the same hash")


def _common(one: Any, two: Any) -> int:
    """Length of the common beginning of two sequences."""
    pairs = zip(one, two, strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(one), len(two)))


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else text[:117] + "..."

"""Who asks: callers, and the tokens that tell them apart.

A token is 256 random bits, so a plain digest of it is as good as a slow one: there is nothing to guess. The file
holds digests only; a token is shown once, when it is made.
"""

import hmac
import logging
import re
import secrets
import stat
import threading
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, ValidationError

from tutelage.errors import ConfigError
from tutelage.exchange import write_whole
from tutelage.types import TENANT, Frozen

_LOG = logging.getLogger(__name__)

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
TOKENS_FILE = "tokens.toml"
"""Name of the file in a workspace."""
_PREFIX = "tut_"


@dataclass(frozen=True)
class Caller:
    """Who asks: sees one tenant's memory, and what it writes is its own words."""

    name: str
    tenant: str
    write: bool = False

    @property
    def origin(self) -> str:
        """Where its words come from, as sources say it."""
        return f"user:{self.name}"


class Token(Frozen):
    """What the file says about one token."""

    name: str = Field(pattern=NAME)
    tenant: str = Field(TENANT, pattern=NAME)
    write: bool = False
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Tokens:
    """The tokens of a file, read again whenever it changes.

    A file that becomes unreadable while it is in use lets nobody in, and says so in the log.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError: there is no such file, it is not understood, or it is empty."""
        self._path = path
        self._lock = threading.Lock()
        self._seen = _stamp(path)
        self._tokens = read_tokens(path)
        if not self._tokens:
            raise ConfigError(f"{path} holds no tokens; `tutelage memory token NAME` makes one")

    def caller(self, secret: str) -> Caller | None:
        """Whose token this is; None if it is nobody's. Takes as long for a wrong one as for a right one."""
        digest = _digest(secret)
        found = None
        for token in self._current():
            if hmac.compare_digest(token.digest, digest):
                found = Caller(token.name, token.tenant, token.write)
        return found

    def _current(self) -> tuple[Token, ...]:
        with self._lock:
            try:
                stamp = _stamp(self._path)
                if stamp != self._seen:
                    self._tokens, self._seen = read_tokens(self._path), stamp
            except ConfigError as error:
                _LOG.error("nobody is let in: %s", error)
                return ()
            return self._tokens


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a TOML file with one ``[[token]]`` table each.

    Raises:
        ConfigError: it cannot be read or is not understood, two have one name, or anybody may write to it.
    """
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"everybody may write to {path}; run `chmod 600 {path}`")
        data = tomllib.loads(path.read_text("utf-8"))
        listed = data.pop("token", [])
        if data or not isinstance(listed, list):
            raise ConfigError(f"{path} may hold [[token]] tables only")
        tokens = tuple(Token.model_validate(item) for item in listed)
    except OSError as error:
        raise ConfigError(f"cannot read the tokens in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if len({token.name for token in tokens}) < len(tokens):
        raise ConfigError(f"two tokens in {path} have the same name")
    return tokens


def make_token(path: Path, name: str, *, tenant: str = TENANT, write: bool = False) -> str:
    """Make a token and keep its digest in the file, which is made if there is none.

    Returns:
        The token itself, which is kept nowhere.

    Raises:
        ConfigError: the file is not understood, the name or tenant is not possible, or the name is taken.
    """
    known = read_tokens(path) if path.exists() else ()
    for what, value in (("name", name), ("tenant", tenant)):
        if not re.fullmatch(NAME, value):
            raise ConfigError(f"{value!r} is no {what}: letters, digits, '_', '.' and '-', at most 63")
    if any(token.name == name for token in known):
        raise ConfigError(f"there is a token of {name!r} in {path}; revoke it first")
    secret = _PREFIX + secrets.token_urlsafe(32)
    _write(path, (*known, Token(name=name, tenant=tenant, write=write, digest=_digest(secret))))
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Raises ConfigError: the file is not understood, or has no token of that name."""
    known = read_tokens(path)
    kept = tuple(token for token in known if token.name != name)
    if len(kept) == len(known):
        raise ConfigError(f"there is no token of {name!r} in {path}")
    _write(path, kept)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than ``localhost`` counts as reachable by others."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    lines = [
        f'[[token]]\nname = "{token.name}"\ntenant = "{token.tenant}"\n'
        f'write = {str(token.write).lower()}\ndigest = "{token.digest}"\n'
        for token in tokens
    ]
    write_whole(path, "\n".join(lines))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"cannot read the tokens in {path}: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(secret: str) -> str:
    return f"sha256:{sha256(secret.encode('utf-8', 'surrogateescape')).hexdigest()}"

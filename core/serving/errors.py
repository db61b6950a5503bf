"""How the endpoint says what went wrong: OpenAI's error body, whose types and codes its clients know."""

import json
import logging
import traceback
from typing import Any

from tutelage.errors import PolicyFailed, RequestRefused, RequestTooLong, TutelageError, UnknownName
from tutelage.memory.server.guard import Send
from tutelage.redaction import Redactor

_LOG = logging.getLogger(__name__)
_CLEAN = Redactor()

CODES = {"unauthenticated": "invalid_api_key"}
"""Codes of `Guard` that OpenAI's clients know by another name."""
RETRY_SECONDS = 5
"""When a client may come back whose request could not be answered now."""
UNAVAILABLE = "the student cannot answer now; the server's log says why"
INTERNAL = "something went wrong; the server's log says what"


class ApiError(Exception):
    """An answer that says what went wrong; its message is for the client."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry: int | None = None
    ) -> None:
        """
        Args:
            param: which part of the request is to blame.
            retry: seconds after which the same request may be answered.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry = retry

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return failure(self.status, str(self), self.code, self.param)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry is None else {"retry-after": str(self.retry)}


def failure(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The one form of all errors."""
    return {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}


def as_answer(error: Exception, model: str) -> ApiError:
    """What a client is told about an error; what it cannot do anything about goes to the log.

    Args:
        model: the one that was asked for.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestRefused):
        code = "context_length_exceeded" if isinstance(error, RequestTooLong) else None
        return ApiError(400, str(error), code=code)
    if isinstance(error, UnknownName):
        return ApiError(404, f"the model {model!r} is not served here", code="model_not_found", param="model")
    log(error)
    if isinstance(error, TutelageError):
        return ApiError(503, UNAVAILABLE, code="unavailable", retry=RETRY_SECONDS)
    return ApiError(500, INTERNAL, code="internal")


def log(error: Exception) -> None:
    """Log an error without what somebody said.

    Our messages quote no request, and none of the words in which a provider might; they are cleaned besides. Of a
    programming error there is only where it happened and of which kind it is.
    """
    if isinstance(error, TutelageError):
        _LOG.error("%s", _CLEAN.text(str(error)))
        return
    _LOG.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip())


def sayable(error: Exception) -> str:
    """What a log may say of an error of ours: its message, unless it comes from a provider, who may quote in it what
    was said."""
    ours = isinstance(error, TutelageError) and not isinstance(error, PolicyFailed)
    return _CLEAN.text(str(error)) if ours else wordless(error)


def wordless(error: Exception) -> str:
    """Of which kind an error is, and its status, without a word of its message."""
    status = getattr(error, "status_code", 0) or getattr(getattr(error, "failure", None), "status", 0)
    return f"{type(error).__name__}, status {status}" if isinstance(status, int) and status else type(error).__name__


async def refuse(send: Send, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
    """A whole answer that says what went wrong, as `Guard` sends one."""
    body = json.dumps(failure(status, message, CODES.get(code, code)), ensure_ascii=False).encode()
    length = (b"content-length", str(len(body)).encode())
    start = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 401:  # LiteLLM goes by the type
        return "authentication_error"
    return "invalid_request_error" if status < 500 else "server_error"

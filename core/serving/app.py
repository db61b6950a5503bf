"""The student over HTTP, as OpenAI's API: a FastAPI application that describes itself at ``/openapi.json``."""

import asyncio
import time
from itertools import takewhile
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from tutelage import __version__
from tutelage.errors import RequestRefused
from tutelage.memory.server.auth import Caller, Tokens
from tutelage.memory.server.guard import Guard, Receive, Scope, Send, asking
from tutelage.service_config import ServeConfig
from tutelage.serving.answering import Whole, reply
from tutelage.serving.errors import INTERNAL, ApiError, as_answer, failure, log, refuse
from tutelage.serving.limits import CHAT, Counts, Limits, check_length
from tutelage.serving.reply import ChatReply
from tutelage.serving.request import understood
from tutelage.serving.schemas import ChatCompletion, ChatRequest, Failure, Health, Model, Models
from tutelage.serving.types import STUDENT, Assist, Chat, Loaded, Students


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "Not possible as asked",
        401: "No valid key",
        404: "The model is not served here",
        405: "Another method is needed",
        408: "The body did not come in time",
        413: "The body is too large",
        415: "The body is not declared as JSON",
        421: "Not addressed to loopback",
        429: "The key has used up its requests",
        503: "No student can answer now",
    }
    return {status: {"model": Failure, "description": said[status]} for status in statuses}


KEEPING_SECONDS = 5.0
"""How long a client waits for what it said before to be kept, where the record is busy."""
ANY = (400, 401, 405, 421)
"""What every path may answer with."""
_STREAM = {
    "description": "The reply, at once or, with `stream`, as server-sent events that end with `data: [DONE]`",
    "content": {"text/event-stream": {}},  # a schema of OpenAPI 3.1 cannot speak of single events
}


class Endpoint:
    """What the server does, apart from how requests reach it.

    Attributes:
        counts: of what was asked and answered.
    """

    def __init__(self, assist: Assist, students: Students, config: ServeConfig) -> None:
        self.counts = Counts()
        self._assist = assist
        self._students = students
        self._config = config
        self._keeping: dict[asyncio.Task[None], Chat] = {}
        """Exchanges that are being kept, and what was asked."""

    async def chat(self, sent: ChatRequest, caller: Caller) -> ChatReply:
        """The reply, which is generated while it is sent."""
        chat, names = await asyncio.to_thread(understood, sent, caller, self._config)
        if self._config.engine != "upstream":  # which has a length of its own, and knows it
            # Before anything reads it: what is too long to be answered costs nothing.
            check_length((message.content for message in chat.prompt.messages), self._config.max_length)
        # A client that was quick to go on finds its conversation as it left it.
        recorded = self._assist.records(chat)
        if earlier := [task for task, kept in self._keeping.items() if recorded and _may_continue(chat, kept)]:
            await asyncio.wait(earlier, timeout=KEEPING_SECONDS)
        most = 1 if sent.parallel_tool_calls is False else 0
        events = reply(chat, self._assist, self._students, retries=self._config.retries, most_calls=most)
        usage = bool(sent.stream_options and sent.stream_options.include_usage)
        return ChatReply(
            chat, events, names, self._sent, created=int(time.time()), stream=bool(sent.stream), usage=usage
        )

    def models(self) -> list[Model]:
        """What requests can name; the alias first."""
        loaded = self._students.loaded()
        alias = [Loaded(STUDENT, loaded[0].created)] if loaded else []
        return [Model(id=found.label, created=found.created) for found in (*alias, *loaded)]

    async def settle(self) -> None:
        """Wait until every exchange that was sent is kept."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    def _sent(self, whole: Whole) -> None:
        self.counts.answered(whole.answer)
        task = asyncio.create_task(self._keep(whole))
        self._keeping[task] = whole.prepared.chat
        task.add_done_callback(self._keeping.pop)

    async def _keep(self, whole: Whole) -> None:
        """The client has its reply; that it cannot be kept is not the client's trouble."""
        try:
            await asyncio.to_thread(self._assist.keep, whole.prepared, whole.answer)
        except Exception as error:
            log(error)


def _may_continue(chat: Chat, earlier: Chat) -> bool:
    """Whether it can be a later turn of the same conversation: there were replies, and both have the same name or begin
    alike."""
    if (chat.tenant, chat.caller) != (earlier.tenant, earlier.caller):
        return False
    if all(message.role != "assistant" for message in chat.prompt.messages):
        return False
    named = chat.options.session and chat.options.session == earlier.options.session
    return bool(named) or _beginning(chat) == _beginning(earlier)


def _beginning(chat: Chat) -> list[tuple[str, str]]:
    """What was said before the first reply, as conversations are recognised."""
    before = takewhile(lambda message: message.role != "assistant", chat.prompt.messages)
    return [(message.role, message.content.strip()) for message in before]


def make_app(
    endpoint: Endpoint,
    config: ServeConfig,
    *,
    tokens: Tokens | None = None,
    anyone: Caller | None = None,
    loopback: bool = True,
) -> Guard:
    """The whole server as an ASGI application.

    Args:
        tokens, anyone, loopback: as `Guard` takes them.
    """
    app = FastAPI(
        title="Tutelage student",
        version=__version__,
        description="The promoted student as OpenAI's chat completions.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )
    _add_chat(app, endpoint)
    _add_looks(app, endpoint)
    _handle_errors(app)
    limited = Limits(app, endpoint.counts, concurrency=config.concurrency, per_minute=config.per_minute)

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await limited(scope, receive, send)
        except Exception as error:  # answered already; the server would log its message, which may quote somebody
            log(error)

    return Guard(quiet, tokens=tokens, anyone=anyone, loopback=loopback, body_bytes=config.body_bytes, refuse=refuse)


def _add_chat(app: FastAPI, endpoint: Endpoint) -> None:
    failures = _failures(*ANY, 404, 408, 413, 415, 429, 503)

    @app.post(
        CHAT,
        tags=["chat"],
        summary="A reply of the student",
        response_model=ChatCompletion,
        responses={200: _STREAM, **failures},
    )
    async def chat(sent: ChatRequest, caller: Annotated[Caller, Depends(asking)]) -> ChatReply:
        return await endpoint.chat(sent, caller)


def _add_looks(app: FastAPI, endpoint: Endpoint) -> None:
    @app.get("/v1/models", tags=["look"], summary="The versions that answer", responses=_failures(*ANY))
    async def models() -> Models:
        return Models(data=endpoint.models())

    @app.get("/v1/models/{model:path}", tags=["look"], summary="One of them", responses=_failures(*ANY, 404))
    async def model(model: Annotated[str, Path(min_length=1, max_length=200)]) -> Model:
        for found in endpoint.models():
            if found.id == model:
                return found
        raise ApiError(404, f"the model {model!r} is not served here", code="model_not_found", param="model")

    @app.get("/health", tags=["look"], summary="Whether a student can answer", responses=_failures(405, 421, 503))
    async def health() -> Health:
        if not endpoint.models():
            raise ApiError(503, "no student is loaded", code="unavailable")
        return Health()

    @app.get(
        "/metrics",
        tags=["look"],
        summary="Counters, as Prometheus reads them",
        response_class=PlainTextResponse,
        responses=_failures(*ANY),
    )
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(endpoint.counts.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _handle_errors(app: FastAPI) -> None:
    """One form for everything that goes wrong; no message's text is sent back."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestRefused)
    async def senseless(request: Request, error: RequestRefused) -> JSONResponse:
        return await refused(request, as_answer(error, ""))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse(failure(400, "the body is not valid JSON"), 400)
        place = ".".join(str(part) for part in first["loc"] if part != "body" and _is_place(part)) or None
        unknown = first["type"] == "extra_forbidden"
        message = "is not known here" if unknown else str(first["msg"]).removeprefix("Value error, ")
        code = "unknown_parameter" if unknown else None
        return JSONResponse(failure(400, f"{place}: {message}" if place else message, code, place), 400)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        said = {404: "there is nothing here; the API is described at /openapi.json"}
        message = said.get(error.status_code, str(error.detail))
        return JSONResponse(failure(error.status_code, message), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(failure(500, INTERNAL, "internal"), 500)


def _is_place(part: int | str) -> bool:
    """Whether a part of an error's location names a part of the request, and not one of its possible types."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("str", "NamedTool"))

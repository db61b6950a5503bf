"""Memory over HTTP: a FastAPI application that describes itself at ``/openapi.json``, with MCP under ``/mcp``."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from tutelage import __version__
from tutelage.errors import TutelageError
from tutelage.experience import Experience
from tutelage.memory.server.auth import Caller, Tokens
from tutelage.memory.server.guard import Guard, asking
from tutelage.memory.server.mcp import McpEndpoint
from tutelage.memory.server.schemas import (
    MAX_STEPS,
    Edit,
    Failure,
    Forgotten,
    Found,
    Hits,
    Problem,
    Search,
    Sources,
    Versions,
    Why,
    Written,
)
from tutelage.memory.server.service import UNAVAILABLE, Refused, Service

_LOG = logging.getLogger(__name__)

STATUS = {"not_found": 404, "forbidden": 403, "conflict": 409, "refused": 422, "unavailable": 503}
"""HTTP status of each way to be refused."""
TITLES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


Asking = Annotated[Caller, Depends(asking)]
Id = Annotated[str, Path(min_length=1, max_length=200)]


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "The body is not JSON",
        401: "No valid token",
        403: "Not allowed",
        404: "No such experience",
        408: "The body did not come in time",
        409: "Another version, or a status, stands in the way",
        413: "The body is too large",
        415: "The body is not declared as JSON",
        421: "Not addressed to loopback",
        422: "Not possible as asked",
        503: "Memory cannot be opened now",
    }
    return {status: {"model": Failure, "description": said[status]} for status in statuses}


ANY = (401, 403, 421, 422, 503)
"""What every path may answer with."""
BODY = (400, 408, 413, 415)
"""What every path that takes a body may answer with, too."""


def make_app(
    service: Service, *, tokens: Tokens | None = None, anyone: Caller | None = None, loopback: bool = True
) -> Guard:
    """The whole server as an ASGI application; it closes `service` when it shuts down.

    Args:
        tokens, anyone, loopback: as `Guard` takes them.
    """
    mcp = McpEndpoint(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with mcp.running():
                yield
        finally:
            service.close()

    app = FastAPI(
        title="Tutelage memory",
        version=__version__,
        description="Experiences of agents: what worked, what must not be repeated, and where each comes from.",
        lifespan=lifespan,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )

    @app.get("/health", tags=["read"], summary="Whether the server answers", responses=_failures(421))
    def health() -> dict[str, str]:
        return {"status": "ok"}

    routers = (_reading(service), _writing(service))
    for router in routers:
        app.include_router(router)
    _handle_errors(app, [route for router in routers for route in router.routes])

    app.router.routes.append(Route("/mcp", endpoint=mcp))
    return Guard(app, tokens=tokens, anyone=anyone, loopback=loopback)


def _reading(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["read"], responses=_failures(*ANY))

    @router.post("/search", summary="Search by meaning and by keyword", responses=_failures(*BODY))
    def search(wanted: Search, caller: Asking) -> Hits:
        return Hits(hits=[Found.of(hit) for hit in service.search(caller, wanted)])

    @router.get("/experiences/{id}", summary="The newest version", responses=_failures(404))
    def get(id: Id, caller: Asking) -> Experience:
        return service.get(caller, id)

    @router.get("/experiences/{id}/history", summary="All versions, and why each was made", responses=_failures(404))
    def history(id: Id, caller: Asking) -> Versions:
        return Versions(versions=service.history(caller, id))

    @router.get("/experiences/{id}/sources", summary="The steps it was drawn from", responses=_failures(404))
    def sources(
        id: Id,
        caller: Asking,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_STEPS)] = MAX_STEPS,
    ) -> Sources:
        return service.sources(caller, id, offset, limit)

    @router.get("/stats", summary="How much of what there is")
    def stats(caller: Asking) -> dict[str, Any]:
        return service.stats(caller)

    return router


def _writing(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["write"], responses=_failures(*ANY, *BODY))
    known = _failures(404, 409)

    @router.post("/experiences", status_code=201, summary="Add one; what says exactly the same is merged")
    def add(written: Written, caller: Asking) -> Experience:
        return service.add(caller, written)

    @router.patch("/experiences/{id}", summary="Make the next version", responses=known)
    def change(id: Id, edit: Edit, caller: Asking) -> Experience:
        return service.change(caller, id, edit)

    @router.post("/experiences/{id}/approve", summary="Make it active", responses=known)
    def approve(id: Id, why: Why, caller: Asking) -> Experience:
        return service.approve(caller, id, why.reason)

    @router.post("/experiences/{id}/retire", summary="Take it out of use", responses=known)
    def retire(id: Id, why: Why, caller: Asking) -> Experience:
        return service.retire(caller, id, why.reason)

    @router.post("/experiences/{id}/undo", summary="Take back the newest change", responses=known)
    def undo(id: Id, caller: Asking) -> Experience:
        return service.undo(caller, id)

    @router.post("/experiences/{id}/forget", summary="Erase it; a tombstone stays", responses=known)
    def forget(id: Id, why: Why, caller: Asking) -> Forgotten:
        stone = service.forget(caller, id, why.reason)
        return Forgotten(id=stone.id, reason=stone.reason, by=stone.by, derived=stone.derived)

    return router


def _handle_errors(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """One form for everything that goes wrong; what was sent is never sent back."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return _failed(STATUS[error.code], error.code, str(error))

    @app.exception_handler(TutelageError)
    async def trouble(_: Request, error: TutelageError) -> JSONResponse:
        _LOG.error("%s", error)
        return _failed(503, "unavailable", UNAVAILABLE)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _failed(400, "bad_request", "the body is not valid JSON")
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _failed(422, "invalid", f"{place}: {first['msg']}" if place else first["msg"])

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        answer = _failed(error.status_code, TITLES.get(error.status_code, "error"), str(error.detail))
        answer.headers.update(error.headers or {})
        if error.status_code == 405:  # the router names those of the first route with this path only
            fitting = [route for route in (*app.routes, *routes) if route.matches(request.scope)[0] is not Match.NONE]
            answer.headers["allow"] = ", ".join(sorted({name for route in fitting for name in _methods(route)}))
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return _failed(500, "internal", "something went wrong; the server's log says what")


def _methods(route: BaseRoute) -> set[str]:
    return getattr(route, "methods", None) or set()


def _failed(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(Failure(error=Problem(code=code, message=message)).model_dump(), status)

"""Errors of the API as problem details (RFC 9457), one sentence each."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from calidrift_agent.errors import CaptureError, RegistryError, StateError
from calidrift_analyzer.errors import (
    CalidriftError,
    ConfigurationError,
    NoDataError,
    RefusedError,
    StoreError,
)

__all__ = ["MEDIA_TYPE", "RETRY_SECONDS", "Problem", "install", "problem", "responses"]

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 2
_MOST_LISTED: Final = 5
_log = logging.getLogger(__name__)


@final
class Problem(BaseModel):
    """What went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe for OpenAPI the problems that an operation can answer with."""
    every = {401, 403, 413, 429, 503, *statuses}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(every)
    }


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Give a problem as a response."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        content.model_dump(), status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def install(application: FastAPI) -> None:
    """Let every error of an application end as a problem, and its description say so."""
    describe = application.openapi

    def described() -> dict[str, Any]:
        found = describe()
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", Problem.model_json_schema())
        return found

    application.openapi = described  # type: ignore[method-assign]

    @application.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @application.exception_handler(RequestValidationError)
    async def of_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, _sentence(error))

    @application.exception_handler(ClientDisconnect)
    async def of_sender(request: Request, error: ClientDisconnect) -> JSONResponse:
        return problem(400, "the sender went away in the middle of the body")  # nobody hears it

    @application.exception_handler(CalidriftError)
    async def of_calidrift(request: Request, error: CalidriftError) -> JSONResponse:
        return of_error(error)

    @application.exception_handler(Exception)
    async def of_defect(request: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed by a defect", exc_info=error)
        return problem(500, "a defect of Calidrift; its log has the traceback")


def of_error(error: CalidriftError) -> JSONResponse:
    """Give the problem that an error of Calidrift is."""
    if isinstance(error, StoreError):
        return problem(503, str(error), {"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, NoDataError):
        return problem(404, str(error))
    if isinstance(error, RefusedError | RegistryError):
        return problem(409, str(error))
    if isinstance(error, StateError | CaptureError | ConfigurationError | ValueError):
        return problem(400, str(error))
    return problem(500, str(error))


def _sentence(error: RequestValidationError) -> str:
    """Name the places that are wrong, never what was sent."""
    found = []
    for one in error.errors()[:_MOST_LISTED]:
        where = ".".join(str(part) for part in one["loc"])
        found.append(f"{where}: {one['msg']}")
    return "; ".join(found)

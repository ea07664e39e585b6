"""Windows that sidecars push: `/api/v1/ingest`, with the scope `ingest`."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final, final

from fastapi import APIRouter, Depends, Path, Request, Response

from calidrift_agent._state import PUSH_MEDIA_TYPE, Push, decode_push, encode_push
from calidrift_agent.errors import StateFormatError
from calidrift_analyzer.service._api_read import service_of
from calidrift_analyzer.service._guard import GuardedRoute, requires
from calidrift_analyzer.service._ingest import Ingested, check_push, store_push
from calidrift_analyzer.service._problems import responses
from calidrift_analyzer.service._received import Received
from calidrift_analyzer.service._service import Service
from calidrift_analyzer.service._tokens import Caller, Scope

__all__ = ["Kept", "ingest_router"]

ingest_router = APIRouter(
    prefix="/api/v1/ingest", responses=responses(400, 404), route_class=GuardedRoute
)
MayIngest = Annotated[Caller, Depends(requires(Scope.INGEST))]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {PUSH_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


_FILE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Process = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, Path(min_length=1, max_length=512)]


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a capture.

    Attributes:
        process: The process that captured it.
        name: Its name there.
        new: Whether it was not here yet.
    """

    process: str
    name: str
    new: bool


def received_of(service: Service, model: str) -> Received | None:
    """Give where captures of a model are kept; `None` where it is not configured."""
    if model not in service.config.models:
        return None
    return Received(service.config.database, service.config.service.max_body_bytes)


@ingest_router.post("", openapi_extra=_BODY)
async def ingest(request: Request, caller: MayIngest) -> Ingested:
    """Take windows of one process, each exactly once, whatever is sent again."""
    service = service_of(request)
    body = await request.body()
    push = await asyncio.to_thread(decode_push, body)
    profile = await asyncio.to_thread(check_push, push)
    received = received_of(service, push.meta.model)
    return await service.owner.ask(
        lambda store: store_push(store, service.board, push, profile, received)
    )


@ingest_router.post("/captures/{process:name}/{name:name}", openapi_extra=_FILE)
async def capture(request: Request, process: Process, name: FileName, caller: MayIngest) -> Kept:
    """Take one capture that was asked for, the same one any number of times."""
    service = service_of(request)
    received = Received(service.config.database, service.config.service.max_body_bytes)
    body = await request.body()
    row = await service.owner.ask(lambda store: received.expected(store, process, name))
    new = await asyncio.to_thread(received.keep, row, body)
    await service.owner.ask(received.list_all)
    return Kept(process, name, new)


@ingest_router.post(
    "/sums",
    openapi_extra=_BODY,
    response_class=Response,
    responses={
        200: {"content": {PUSH_MEDIA_TYPE: {}}, "description": "The same, with one window."}
    },
)
async def sums(request: Request, caller: MayIngest) -> Response:
    """Give the sum of what is stored of a process, for a sender that has lost windows.

    The body is a push without windows. What the sums, taken from the cumulative state, leave is one
    coarse window that loses no count.
    """
    service = service_of(request)
    push = await asyncio.to_thread(decode_push, await request.body())
    if push.windows:
        raise StateFormatError("a question for sums is a push without windows")
    check_push(push)
    found = await service.owner.ask(lambda store: store.sums(push.meta))
    answer = await asyncio.to_thread(encode_push, Push(push.meta, (found,)))
    return Response(answer, media_type=PUSH_MEDIA_TYPE)

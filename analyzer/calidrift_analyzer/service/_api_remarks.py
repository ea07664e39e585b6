"""What people say about models: `/api/v1/mutes` and `/api/v1/marks`, set with `trigger`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from calidrift_analyzer.service._api_read import OneModel, service_of
from calidrift_analyzer.service._guard import GuardedRoute, requires
from calidrift_analyzer.service._payloads import MarkOrder, MuteOrder, UnmuteOrder
from calidrift_analyzer.service._problems import responses
from calidrift_analyzer.service._remarks import (
    EndedView,
    MarkerView,
    MutedView,
    MuteView,
    end_mutes,
    set_marker,
    set_mute,
    view_markers,
    view_mutes,
)
from calidrift_analyzer.service._tokens import Caller, Scope

__all__ = ["remark_router"]

remark_router = APIRouter(
    prefix="/api/v1", responses=responses(400, 404, 422), route_class=GuardedRoute
)
MayRead = Depends(requires(Scope.READ))
MayTrigger = Annotated[Caller, Depends(requires(Scope.TRIGGER))]
Every = Annotated[bool, Query(description="Those that have ended, too, and how they ended.")]


@remark_router.get("/mutes", dependencies=[MayRead])
async def mutes(
    request: Request, model: OneModel = None, every: Every = False
) -> tuple[MuteView, ...]:
    """List what is muted, until when, why and by whom, the newest first."""
    owner = service_of(request).owner
    return await owner.ask(lambda store: view_mutes(store, model, every=every))


@remark_router.post("/mutes")
async def mute_points(request: Request, body: MuteOrder, caller: MayTrigger) -> MutedView:
    """Let an alarm decide nothing for a while; it stays visible, and its evidence counts on."""
    service = service_of(request)
    return await service.owner.ask(lambda store: set_mute(store, service.config, body, caller.name))


@remark_router.post("/mutes/end")
async def unmute_points(request: Request, body: UnmuteOrder, caller: MayTrigger) -> EndedView:
    """End a mute before its time."""
    service = service_of(request)
    return await service.owner.ask(
        lambda store: end_mutes(store, service.config, body, caller.name)
    )


@remark_router.get("/marks", dependencies=[MayRead])
async def marks(request: Request, model: OneModel = None) -> tuple[MarkerView, ...]:
    """List the marked moments, promotions and rollbacks among them, the latest first."""
    return await service_of(request).owner.ask(lambda store: view_markers(store, model))


@remark_router.post("/marks")
async def mark_moment(request: Request, body: MarkOrder, caller: MayTrigger) -> MarkerView:
    """Mark a moment that may explain a change: a deployment, a new client, a new sensor."""
    service = service_of(request)
    return await service.owner.ask(
        lambda store: set_marker(store, service.config, body, caller.name)
    )

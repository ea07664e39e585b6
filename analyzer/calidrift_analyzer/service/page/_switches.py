"""Forms that start a job, freeze or thaw, mute or unmute; each asks again before it acts."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import Response

from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.jobs import Order, freeze, order_job
from calidrift_analyzer.records import JobKind, Trigger
from calidrift_analyzer.service._api_change import require_contract
from calidrift_analyzer.service._api_read import service_of
from calidrift_analyzer.service._remarks import end_mutes, set_mute
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service.page._forms import decide, order_of, show, with_form
from calidrift_analyzer.service.page._gather import SwitchPage, gather_switches
from calidrift_analyzer.service.page._mutes import SPANS, read_mute, read_unmute
from calidrift_analyzer.service.page._route import PageRoute
from calidrift_analyzer.service.page._viewers import Viewer, enter

__all__ = ["switch_router"]

_KINDS: Final = tuple(JobKind)
Named = Annotated[str, Query(min_length=1, max_length=256)]
Subject = Annotated[str, Query(max_length=256)]
Pattern = Annotated[str, Query(max_length=512)]

switch_router = APIRouter(include_in_schema=False, route_class=PageRoute)


@switch_router.get("/start")
async def ask_start(request: Request, model: Named) -> Response:
    """Ask whether a job shall begin now."""
    viewer = enter(request, Scope.TRIGGER)
    service = service_of(request)
    name = require_contract(service, model).name
    page = await _switches(request, name)
    return with_form(
        request, viewer, "start.html", page=page, kinds=_KINDS, mode=service.config.service.mode
    )


@switch_router.post("/start")
async def start_job(request: Request) -> Response:
    """Ask for a job."""
    viewer, form = await decide(request, Scope.TRIGGER)
    service = service_of(request)
    name = require_contract(service, form.get("model", "")).name
    kind = form.get("kind", "")
    if kind not in _KINDS:
        raise HTTPException(400, f"choose one of {', '.join(_KINDS)}; nothing was started, go back")
    order = Order(
        model=name,
        kind=JobKind(kind),
        trigger=Trigger.API,
        cause=order_of(form).note,
        actor=viewer.name,
    )
    answer = await service.owner.ask(lambda store: order_job(store, order, service.config.service))
    if answer.refused:
        raise RefusedError(answer.sentence)
    service.worker.wake()
    return show("jobs", answer.job)


@switch_router.get("/freeze")
async def ask_freeze(request: Request, model: Subject = "") -> Response:
    """Ask whether nothing may change a model, or any, from now on."""
    return await _ask_switch(request, model, frozen=True)


@switch_router.post("/freeze")
async def freeze_model(request: Request) -> Response:
    """Forbid all changes of a model, or of every one."""
    return await _switch(request, frozen=True)


@switch_router.get("/thaw")
async def ask_thaw(request: Request, model: Subject = "") -> Response:
    """Ask whether a model, or every one, may be changed again."""
    return await _ask_switch(request, model, frozen=False)


@switch_router.post("/thaw")
async def thaw_model(request: Request) -> Response:
    """Allow changes of a model, or of every one, again."""
    return await _switch(request, frozen=False)


@switch_router.get("/mute")
async def ask_mute(request: Request, model: Named, point: Pattern = "") -> Response:
    """Ask for how long, and why, an alarm shall decide nothing."""
    viewer = enter(request, Scope.TRIGGER)
    page = await _switches(request, model)
    return with_form(request, viewer, "mute.html", page=page, point=point, spans=SPANS)


@switch_router.post("/mute")
async def mute(request: Request) -> Response:
    """Let the alarms of some points, or of a whole model, decide nothing for a while."""
    viewer, form = await decide(request, Scope.TRIGGER)
    service, order = service_of(request), read_mute(form)
    await service.owner.ask(lambda store: set_mute(store, service.config, order, viewer.name))
    return _back(order.model, form)


@switch_router.get("/unmute")
async def ask_unmute(request: Request, model: Named, point: Pattern = "") -> Response:
    """Ask whether a mute shall end before its time."""
    viewer = enter(request, Scope.TRIGGER)
    page = await _switches(request, model)
    found = next((one for one in page.mutes if (one.point or "") == point), None)
    if found is None:
        raise RefusedError("this mute has ended already; nothing is left to do")
    return with_form(request, viewer, "unmute.html", page=page, mute=found)


@switch_router.post("/unmute")
async def unmute(request: Request) -> Response:
    """End a mute before its time."""
    viewer, form = await decide(request, Scope.TRIGGER)
    service, order = service_of(request), read_unmute(form)
    await service.owner.ask(lambda store: end_mutes(store, service.config, order, viewer.name))
    return _back(order.model, form)


async def _switches(request: Request, model: str) -> SwitchPage:
    service = service_of(request)
    context = service.context()
    return await service.owner.ask(lambda store: gather_switches(store, context, model))


async def _ask_switch(request: Request, model: str, *, frozen: bool) -> Response:
    viewer: Viewer = enter(request, Scope.PROMOTE)
    name = require_contract(service_of(request), model).name if model else ""
    values: dict[str, Any] = {"model": name, "frozen": frozen}
    return with_form(request, viewer, "freeze.html", **values)


async def _switch(request: Request, *, frozen: bool) -> Response:
    viewer, form = await decide(request)
    service = service_of(request)
    asked, note = form.get("model", ""), order_of(form).note
    model = require_contract(service, asked).name if asked else ""
    await service.owner.ask(
        lambda store: freeze(store, model, frozen=frozen, actor=viewer.name, note=note)
    )
    service.worker.wake()
    return show("models", model) if model else show()


def _back(model: str, form: dict[str, str]) -> Response:
    """Go back to the point that the form was opened from, else to the model."""
    point = form.get("from", "")
    return show("models", model, "points", point) if point else show("models", model)

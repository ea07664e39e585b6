"""Forms: signing in and out, and the decisions of people, each after a page that asks again."""

import asyncio
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from calidrift_agent._registry import VersionLayout, number_of, read_pointer
from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import RefusedError
from calidrift_analyzer.jobs import approve, cancel, require_job, take_back
from calidrift_analyzer.service._api_change import require_contract
from calidrift_analyzer.service._api_read import JobNumber, service_of
from calidrift_analyzer.service._gate import gate_of
from calidrift_analyzer.service._reading import view_job
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service._views import JobView
from calidrift_analyzer.service.page._forms import (
    SEE_OTHER,
    decide,
    order_of,
    read_form,
    show,
    with_form,
)
from calidrift_analyzer.service.page._route import PageRoute, came_from, sign_in_page
from calidrift_analyzer.service.page._sessions import (
    COOKIE,
    check_form,
    check_origin,
    sessions_of,
)
from calidrift_analyzer.service.page._viewers import enter
from calidrift_analyzer.store import Store

__all__ = ["change_router"]

_MOST_SHOWN: Final = 50

change_router = APIRouter(include_in_schema=False, route_class=PageRoute)


@change_router.get("/sign-in")
async def ask_token(next: str = "/") -> Response:
    """Ask for a token."""
    return sign_in_page(came_from(next), 200)


@change_router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take a token, and give a session for it."""
    check_origin(request)
    form = await read_form(request)
    target = came_from(form.get("next", "/"))
    secret = form.get("token", "").strip()
    try:
        gate_of(request).admit(request, secret, Scope.READ)
    except HTTPException as error:
        if error.status_code not in (401, 403):
            raise
        sentence = (
            "this token is not known here, or has expired"
            if error.status_code == 401
            else str(error.detail)
        )
        return sign_in_page(target, error.status_code, sentence)
    sessions = sessions_of(request)
    before = sessions.find(request)
    if before is not None:
        sessions.close(before)
    response = RedirectResponse(target, SEE_OTHER)
    sessions.send(request, response, sessions.open(secret))
    return response


@change_router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End a session."""
    check_origin(request)
    sessions = sessions_of(request)
    form = await read_form(request)
    sessions.close(check_form(sessions.find(request), form.get("form_token", "")))
    response = RedirectResponse("/sign-in", SEE_OTHER)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


@change_router.get("/jobs/{job}/approve")
async def ask_approval(request: Request, job: JobNumber) -> Response:
    """Ask whether the candidate of a job may really be promoted."""
    return await _ask_about_job(request, job, "approve.html")


@change_router.post("/jobs/{job}/approve")
async def approve_job(request: Request, job: JobNumber) -> Response:
    """Let the candidate of a job be promoted."""
    viewer, form = await decide(request)
    service = service_of(request)
    note = order_of(form).note

    def work(store: Store) -> None:
        contract = require_contract(service, require_job(store, job).model)
        approve(store, contract, job, actor=viewer.name, note=note)

    await service.owner.ask(work)
    service.worker.wake()
    return show("jobs", job)


@change_router.get("/jobs/{job}/cancel")
async def ask_cancelling(request: Request, job: JobNumber) -> Response:
    """Ask whether a job shall really end."""
    return await _ask_about_job(request, job, "cancel.html")


@change_router.post("/jobs/{job}/cancel")
async def cancel_job(request: Request, job: JobNumber) -> Response:
    """End a job."""
    viewer, form = await decide(request)
    service = service_of(request)
    note = order_of(form).note
    await service.owner.ask(lambda store: cancel(store, job, actor=viewer.name, note=note))
    service.worker.unwant(job)
    return show("jobs", job)


@change_router.get("/rollback")
async def ask_rollback(request: Request, model: str) -> Response:
    """Ask which earlier version shall serve again."""
    viewer = enter(request, Scope.PROMOTE)
    contract = require_contract(service_of(request), model)
    current, versions = await asyncio.to_thread(_versions, contract)
    if not versions:
        raise RefusedError(f"there is no earlier version of {model} to roll back to")
    values = {"model": model, "current": current, "versions": versions}
    return with_form(request, viewer, "rollback.html", **values)


@change_router.post("/rollback")
async def rollback_model(request: Request) -> Response:
    """Let an earlier version serve again."""
    viewer, form = await decide(request)
    service = service_of(request)
    contract = require_contract(service, form.get("model", ""))
    order = order_of(form)
    await asyncio.to_thread(take_back, service.owner, contract, order.to or None, actor=viewer.name)
    service.tell(contract.name)
    return show("models", contract.name)


async def _ask_about_job(request: Request, job: int, template: str) -> Response:
    viewer = enter(request, Scope.PROMOTE)
    service = service_of(request)
    context = service.context()

    def view(store: Store) -> JobView:
        return view_job(store, context, job).job

    return with_form(request, viewer, template, job=await service.owner.ask(view))


def _versions(contract: ModelContract) -> tuple[str | None, list[str]]:
    """Give the version that serves, and the others, those before it first."""
    layout = VersionLayout(contract.registry, contract.name)
    pointer = read_pointer(layout)
    current = None if pointer is None else pointer.version
    if current is None:
        return None, []
    others = [one for one in layout.identities() if one != current]
    others.sort(key=lambda one: (number_of(one) > number_of(current), -number_of(one)))
    return current, others[:_MOST_SHOWN]

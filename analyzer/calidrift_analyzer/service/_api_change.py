"""What may be changed: jobs with the scope `trigger`, decisions with the scope `promote`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from calidrift_analyzer.config import ModelContract
from calidrift_analyzer.errors import NoDataError, RefusedError
from calidrift_analyzer.jobs import (
    Order,
    approve,
    cancel,
    freeze,
    order_job,
    require_job,
    take_back,
    tell_again,
)
from calidrift_analyzer.records import Trigger
from calidrift_analyzer.service._api_read import JobNumber, ModelName, service_of
from calidrift_analyzer.service._guard import GuardedRoute, requires
from calidrift_analyzer.service._payloads import FreezeOrder, JobOrder, Note, RollbackOrder
from calidrift_analyzer.service._problems import responses
from calidrift_analyzer.service._reading import view_freeze, view_job
from calidrift_analyzer.service._service import Service
from calidrift_analyzer.service._tokens import Caller, Scope
from calidrift_analyzer.service._views import FreezeView, JobDetail, OrderView
from calidrift_analyzer.store import Store

__all__ = ["change_router", "require_contract"]

change_router = APIRouter(
    prefix="/api/v1", responses=responses(400, 404, 409, 422), route_class=GuardedRoute
)
MayTrigger = Annotated[Caller, Depends(requires(Scope.TRIGGER))]
MayPromote = Annotated[Caller, Depends(requires(Scope.PROMOTE))]


def require_contract(service: Service, model: str) -> ModelContract:
    """Give the contract of a configured model.

    Raises:
        NoDataError: No such model is configured.
    """
    contract = service.config.models.get(model)
    if contract is None:
        raise NoDataError(f"no model {model!r} is configured; see /api/v1/models")
    return contract


@change_router.post("/jobs", status_code=202)
async def order(request: Request, body: JobOrder, caller: MayTrigger) -> OrderView:
    """Ask for a job."""
    service = service_of(request)
    model = require_contract(service, body.model).name
    wanted = Order(
        model=model,
        kind=body.kind,
        trigger=Trigger.API,
        cause=body.note,
        actor=caller.name,
    )
    answer = await service.owner.ask(lambda store: order_job(store, wanted, service.config.service))
    if answer.refused:
        raise RefusedError(answer.sentence)
    service.worker.wake()
    return OrderView(
        model=model, job=answer.job, new=answer.new, refused=False, sentence=answer.sentence
    )


@change_router.post("/jobs/{job}/approve")
async def approve_job(
    request: Request, job: JobNumber, body: Note, caller: MayPromote
) -> JobDetail:
    """Let the candidate of a job be promoted."""
    service = service_of(request)

    def work(store: Store) -> JobDetail:
        contract = require_contract(service, require_job(store, job).model)
        approve(store, contract, job, actor=caller.name, note=body.note)
        return view_job(store, service.context(), job)

    detail = await service.owner.ask(work)
    service.worker.wake()
    return detail


@change_router.post("/jobs/{job}/cancel")
async def cancel_job(request: Request, job: JobNumber, body: Note, caller: MayPromote) -> JobDetail:
    """End a job: at once where it waits, else at its next step."""
    service = service_of(request)

    def work(store: Store) -> JobDetail:
        cancel(store, job, actor=caller.name, note=body.note)
        return view_job(store, service.context(), job)

    detail = await service.owner.ask(work)
    service.worker.unwant(job)
    return detail


@change_router.post("/models/{model:name}/rollback")
async def rollback_model(
    request: Request, model: ModelName, body: RollbackOrder, caller: MayPromote
) -> OrderView:
    """Let an earlier version serve again."""
    service = service_of(request)
    contract = require_contract(service, model)
    sentence = await asyncio.to_thread(
        take_back, service.owner, contract, body.to, actor=caller.name
    )
    service.tell(contract.name)
    return OrderView(
        model=contract.name,
        job=None,
        new=True,
        refused=False,
        sentence=sentence,
    )


@change_router.post("/models/{model:name}/deploy", status_code=202)
async def deploy_model(
    request: Request, model: ModelName, body: Note, caller: MayPromote
) -> OrderView:
    """Have the last promotion or rollback told to the deployment system once more."""
    service = service_of(request)
    contract = require_contract(service, model)
    sentence = await service.owner.ask(
        lambda store: tell_again(store, contract, actor=caller.name, note=body.note)
    )
    service.tell(contract.name)
    return OrderView(model=contract.name, job=None, new=True, refused=False, sentence=sentence)


@change_router.post("/freezes")
async def freeze_model(request: Request, body: FreezeOrder, caller: MayPromote) -> FreezeView:
    """Forbid, or allow again, all changes of a model, or of every one."""
    service = service_of(request)
    model = require_contract(service, body.model).name if body.model else ""
    row = await service.owner.ask(
        lambda store: freeze(store, model, frozen=body.frozen, actor=caller.name, note=body.note)
    )
    service.worker.wake()
    return view_freeze(row)

"""Webhooks of Alertmanager and Grafana: alerts that may lead to a recalibration."""

from dataclasses import dataclass, replace
from typing import Annotated, Final, final

from fastapi import APIRouter, Depends, Request

from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.jobs import Order, order_job, resolve_trigger
from calidrift_analyzer.records import Trigger
from calidrift_analyzer.service._api_read import service_of
from calidrift_analyzer.service._gate import gate_of
from calidrift_analyzer.service._guard import Guard, GuardedRoute
from calidrift_analyzer.service._payloads import (
    Alert,
    AlertmanagerGroup,
    GrafanaGroup,
)
from calidrift_analyzer.service._problems import responses
from calidrift_analyzer.service._tokens import SIGNATURE_HEADER, Caller, Scope
from calidrift_analyzer.service._views import OrderView
from calidrift_analyzer.store import Store

__all__ = ["Received", "hook_router"]

hook_router = APIRouter(
    prefix="/api/v1/webhooks", responses=responses(400, 422), route_class=GuardedRoute
)


Group = AlertmanagerGroup | GrafanaGroup


@final
@dataclass(frozen=True, slots=True)
class Received:
    """What became of each alert of a group."""

    alerts: tuple[OrderView, ...]


async def may_trigger(request: Request, sent: str | None) -> Caller:
    """Let in who sends a token or signs the body."""
    gate = gate_of(request)
    if SIGNATURE_HEADER in request.headers:
        return await gate.admit_signed(request, Scope.TRIGGER)
    return gate.admit(request, sent, Scope.TRIGGER)


_ACTION: Final = "action"
_RECALIBRATE: Final = "recalibrate"
"""The label that the rules in `dashboards/` give to alerts which ask for new ranges."""
MayTrigger = Annotated[Caller, Depends(Guard(may_trigger))]


@hook_router.post("/alertmanager", status_code=202)
async def alertmanager(request: Request, body: AlertmanagerGroup, caller: MayTrigger) -> Received:
    """Take alerts of Alertmanager (payload version 4)."""
    return await _receive(request, body, Trigger.ALERTMANAGER, caller)


@hook_router.post("/grafana", status_code=202)
async def grafana(request: Request, body: GrafanaGroup, caller: MayTrigger) -> Received:
    """Take alerts of a Grafana contact point (payload version 1)."""
    return await _receive(request, body, Trigger.GRAFANA, caller)


async def _receive(request: Request, group: Group, source: Trigger, caller: Caller) -> Received:
    """Write down what the alerts ask for, all of them or none; the work is not waited for."""
    service = service_of(request)
    config = service.config

    def take(store: Store) -> tuple[OrderView, ...]:
        known: dict[tuple[str, str, str], OrderView] = {}
        views = []
        for alert in group.alerts:
            order = _order(group, alert, source, caller)
            same = (order.key, order.model, alert.status)
            if same in known:
                views.append(replace(known[same], new=False))
                continue
            view = known[same] = _take(store, config, alert, order)
            views.append(view)
        return tuple(views)

    def work(store: Store) -> tuple[OrderView, ...]:
        # Where a commit is lost after it became durable, the keys of alerts find what it stored.
        return store.jobs.changing(lambda: take(store), done=lambda: None)

    views = await service.owner.ask(work)
    service.worker.wake()
    return Received(views)


def _order(group: Group, alert: Alert, source: Trigger, caller: Caller) -> Order:
    """Say which alert this is: the same one has the same group, fingerprint and beginning."""
    begun = "" if alert.startsAt is None else alert.startsAt.isoformat()
    name = alert.labels.get("alertname", "an alert")
    return Order(
        model=alert.labels.get("model", ""),
        trigger=source,
        cause=f"{name[:200]} of {source.value}",
        actor=caller.name,
        key=f"{source.value}:{group.groupKey}:{alert.fingerprint}:{begun}",
    )


def _take(store: Store, config: AnalyzerConfig, alert: Alert, order: Order) -> OrderView:
    passed_over = _passed_over(config, alert, order.model)
    if passed_over is not None:
        sentence = f"passed over: {passed_over}"
        return OrderView(model=order.model, job=None, new=False, refused=True, sentence=sentence)
    if alert.status == "resolved":
        answer = resolve_trigger(store, order)
    else:
        answer = order_job(store, order, config.service)
    return OrderView(
        model=order.model,
        job=answer.job,
        new=answer.new,
        refused=answer.refused,
        sentence=answer.sentence,
    )


def _passed_over(config: AnalyzerConfig, alert: Alert, model: str) -> str | None:
    """Why an alert asks for nothing; most alerts of a model are not cured by new ranges."""
    if not model:
        return "no label `model`"
    if model not in config.models:
        return f"no model {model!r} is configured"
    if alert.labels.get(_ACTION) != _RECALIBRATE:
        return f"it has no label {_ACTION}={_RECALIBRATE!r}"
    return None

"""What may be read: `/api/v1`, with the scope `read`."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request

from calidrift_analyzer.service._guard import requires
from calidrift_analyzer.service._histogram import Histogram, view_histogram
from calidrift_analyzer.service._listing import (
    view_assessments,
    view_audit,
    view_captures,
    view_decision,
    view_decisions,
    view_tasks,
)
from calidrift_analyzer.service._names import register_names
from calidrift_analyzer.service._problems import responses
from calidrift_analyzer.service._reading import (
    ViewContext,
    require_model,
    view_freeze,
    view_job,
    view_jobs,
    view_model,
    view_models,
    view_points,
)
from calidrift_analyzer.service._series import MOST_SLICES, view_series
from calidrift_analyzer.service._service import Service
from calidrift_analyzer.service._tokens import Scope
from calidrift_analyzer.service._views import (
    AssessmentView,
    AuditView,
    CaptureView,
    DecisionView,
    FreezeView,
    JobDetail,
    JobView,
    Measure,
    ModelOverview,
    Page,
    PointRow,
    Series,
    TaskView,
)
from calidrift_analyzer.store import Store

__all__ = ["Cursor", "JobNumber", "Limit", "ModelName", "OneModel", "read_router", "service_of"]

_T = TypeVar("_T")
_MOST_NUMBER = 2**53

ModelName = Annotated[str, Path(min_length=1, max_length=256)]
JobNumber = Annotated[int, Path(ge=1, le=_MOST_NUMBER)]
Cursor = Annotated[str | None, Query(max_length=4_096, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500)]
OneModel = Annotated[str | None, Query(min_length=1, max_length=256)]
EntryNumber = Annotated[int, Path(ge=1, le=_MOST_NUMBER)]

register_names()
read_router = APIRouter(
    prefix="/api/v1", dependencies=[Depends(requires(Scope.READ))], responses=responses(422)
)
_MISSING = responses(400, 404, 422)


def service_of(request: Request) -> Service:
    """Give the service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


async def _ask(request: Request, view: Callable[[Store, ViewContext], _T]) -> _T:
    service = service_of(request)
    context = service.context()
    return await service.owner.ask(lambda store: view(store, context))


@read_router.get("/models")
async def models(request: Request) -> tuple[ModelOverview, ...]:
    """Tell about every model."""
    return await _ask(request, view_models)


@read_router.get("/models/{model:name}", responses=_MISSING)
async def model(request: Request, model: ModelName) -> ModelOverview:
    """Tell about one model."""
    return await _ask(request, lambda store, context: view_model(store, context, model))


@read_router.get("/models/{model:name}/points", responses=_MISSING)
async def points(request: Request, model: ModelName) -> tuple[PointRow, ...]:
    """Tell about every point of a model, the worst first."""
    return await _ask(request, lambda store, context: view_points(store, context, model))


@read_router.get("/models/{model:name}/series", responses=_MISSING)
async def series(
    request: Request,
    model: ModelName,
    measure: Measure = Measure.COVERAGE,
    hours: Annotated[float, Query(gt=0, le=24 * 3_660)] = 24.0,
    slices: Annotated[int, Query(ge=1, le=MOST_SLICES)] = 48,
    point: Annotated[str | None, Query(max_length=512)] = None,
) -> Series:
    """Tell about points by slices of time, up to the newest window."""
    return await _ask(
        request,
        lambda store, context: view_series(
            store, context, model, measure=measure, hours=hours, slices=slices, point=point
        ),
    )


@read_router.get("/models/{model:name}/histogram", responses=_MISSING)
async def histogram(
    request: Request, model: ModelName, point: Annotated[str, Query(max_length=512)]
) -> Histogram:
    """Tell how the values of a point are spread: calibration beside production."""
    return await _ask(request, lambda store, context: view_histogram(store, context, model, point))


@read_router.get("/models/{model:name}/assessments", responses=_MISSING)
async def assessments(
    request: Request, model: ModelName, cursor: Cursor = None, limit: Limit = 50
) -> Page[AssessmentView]:
    """List the assessments that were kept, the newest first."""

    def view(store: Store, context: ViewContext) -> Page[AssessmentView]:
        name = require_model(store, context.config, model)
        return view_assessments(store, name, cursor, limit)

    return await _ask(request, view)


@read_router.get("/models/{model:name}/captures", responses=_MISSING)
async def captures(
    request: Request, model: ModelName, cursor: Cursor = None, limit: Limit = 50
) -> Page[CaptureView]:
    """List the captured requests, the newest first; never their content."""

    def view(store: Store, context: ViewContext) -> Page[CaptureView]:
        name = require_model(store, context.config, model)
        return view_captures(store, name, cursor, limit)

    return await _ask(request, view)


@read_router.get("/models/{model:name}/selections", responses=_MISSING)
async def selections(
    request: Request, model: ModelName, cursor: Cursor = None, limit: Limit = 50
) -> Page[DecisionView]:
    """List what jobs selected from the captured requests, the newest first."""
    return await _decisions(request, "selections", model, cursor, limit)


@read_router.get("/models/{model:name}/selections/{id}", responses=_MISSING)
async def selection(request: Request, model: ModelName, id: EntryNumber) -> DecisionView:
    """Tell one selection: which requests, why, and the certificate."""
    return await _ask(request, lambda store, context: view_decision(store, "selections", model, id))


@read_router.get("/models/{model:name}/validations", responses=_MISSING)
async def validations(
    request: Request, model: ModelName, cursor: Cursor = None, limit: Limit = 50
) -> Page[DecisionView]:
    """List the decisions of the gate, the newest first."""
    return await _decisions(request, "validations", model, cursor, limit)


@read_router.get("/models/{model:name}/validations/{id}", responses=_MISSING)
async def validation(request: Request, model: ModelName, id: EntryNumber) -> DecisionView:
    """Tell one decision of the gate, with its report."""
    return await _ask(
        request, lambda store, context: view_decision(store, "validations", model, id)
    )


@read_router.get("/models/{model:name}/versions", responses=_MISSING)
async def versions(
    request: Request, model: ModelName, cursor: Cursor = None, limit: Limit = 50
) -> Page[DecisionView]:
    """List the moves of the version pointer, the newest first."""
    return await _decisions(request, "versions", model, cursor, limit)


@read_router.get("/models/{model:name}/versions/{id}", responses=_MISSING)
async def version(request: Request, model: ModelName, id: EntryNumber) -> DecisionView:
    """Tell one move of the version pointer, with its manifest."""
    return await _ask(request, lambda store, context: view_decision(store, "versions", model, id))


@read_router.get("/jobs", responses=_MISSING)
async def jobs(
    request: Request, model: OneModel = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[JobView]:
    """List the jobs, the newest first."""
    return await _ask(
        request, lambda store, context: view_jobs(store, context, model, cursor, limit)
    )


@read_router.get("/jobs/{job}", responses=_MISSING)
async def job(request: Request, job: JobNumber) -> JobDetail:
    """Tell everything about one job: steps, selection, report, and how far it is."""
    return await _ask(request, lambda store, context: view_job(store, context, job))


@read_router.get("/audit", responses=_MISSING)
async def audit(
    request: Request, model: OneModel = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[AuditView]:
    """List who changed what, and what was refused, the newest first."""
    return await _ask(request, lambda store, context: view_audit(store, model, cursor, limit))


@read_router.get("/freezes")
async def freezes(request: Request) -> tuple[FreezeView, ...]:
    """Tell which models may not be changed."""
    return await _ask(
        request, lambda store, context: tuple(view_freeze(row) for row in store.jobs.freezes())
    )


@read_router.get("/tasks")
async def tasks(request: Request) -> tuple[TaskView, ...]:
    """Tell what became of the tasks of the schedule."""
    return await _ask(request, lambda store, context: view_tasks(store))


async def _decisions(
    request: Request, kind: str, model: str, cursor: str | None, limit: int
) -> Page[DecisionView]:
    def view(store: Store, context: ViewContext) -> Page[DecisionView]:
        name = require_model(store, context.config, model)
        return view_decisions(store, kind, name, cursor, limit)

    return await _ask(request, view)

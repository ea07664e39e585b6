"""Pages that show something."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Path, Query, Request
from starlette.responses import Response

from calidrift_analyzer.records import JobState
from calidrift_analyzer.service._api_read import JobNumber, ModelName, service_of
from calidrift_analyzer.service._histogram import Histogram
from calidrift_analyzer.service._views import Measure
from calidrift_analyzer.service.page._chart import Span, draw_bars, draw_line, draw_strip
from calidrift_analyzer.service.page._gather import (
    HOURS,
    ModelPage,
    PointPage,
    gather_job,
    gather_model,
    gather_overview,
    gather_point,
)
from calidrift_analyzer.service.page._heat import draw_heat, level, told
from calidrift_analyzer.service.page._proposal import Proposal
from calidrift_analyzer.service.page._rendering import asset, render
from calidrift_analyzer.service.page._route import PageRoute
from calidrift_analyzer.service.page._samples import describe
from calidrift_analyzer.service.page._viewers import enter

__all__ = ["MEASURES", "show_router"]

MEASURES: Final = {
    Measure.COVERAGE: "coverage",
    Measure.EXCEEDANCE: "exceedance",
    Measure.SQNR_CHANGE: "ΔSQNR",
    Measure.CLIPPED_ENERGY: "clipped energy",
}
_ROWS: Final = 200
_ROWS_OF_FIGURES: Final = 25
_WAY: Final = (
    JobState.QUEUED,
    JobState.SELECTING,
    JobState.RECALIBRATING,
    JobState.VALIDATING,
    JobState.AWAITING_APPROVAL,
    JobState.CANARY,
    JobState.PROMOTED,
)
_MISSING: Final = "there is no such page; begin at the overview"
PointName = Annotated[str, Path(min_length=1, max_length=512)]
First = Annotated[int, Query(ge=0, le=1_000_000)]
Hours = Annotated[int | None, Query()]

show_router = APIRouter(include_in_schema=False, route_class=PageRoute)


@show_router.get("/")
async def overview(request: Request) -> Response:
    """Tell about every model in one sentence."""
    viewer = enter(request)
    service = service_of(request)
    context = service.context()
    page = await service.owner.ask(lambda store: gather_overview(store, context))
    return render("overview.html", viewer=viewer, page=page)


@show_router.get("/models/{model:name}/points/{point:name}")
async def point(
    request: Request, model: ModelName, point: PointName, hours: Hours = None
) -> Response:
    """Show one point: its values, its ranges, and its figures over time."""
    viewer = enter(request)
    _check_hours(hours)
    service = service_of(request)
    context = service.context()
    page = await service.owner.ask(lambda store: gather_point(store, context, model, point, hours))
    return render("point.html", viewer=viewer, page=page, **_drawn(page))


@show_router.get("/models/{model:name}")
async def model(
    request: Request,
    model: ModelName,
    measure: Measure = Measure.COVERAGE,
    hours: Hours = None,
    first: First = 0,
    figures: bool = False,
) -> Response:
    """Show one model: its points over time, and everything that was done about it."""
    viewer = enter(request)
    _check_hours(hours)
    service = service_of(request)
    context = service.context()
    page = await service.owner.ask(
        lambda store: gather_model(store, context, model, measure, hours)
    )
    rows = _ROWS_OF_FIGURES if figures else _ROWS
    return render(
        "model.html",
        viewer=viewer,
        page=page,
        measure=measure,
        measures=MEASURES,
        spans=HOURS,
        first=first,
        rows=rows,
        figures=figures,
        heat=_heat(page, first, rows),
        level=level,
        told=told,
    )


@show_router.get("/jobs/{job}")
async def job(request: Request, job: JobNumber) -> Response:
    """Show one job: how far it is, what it measured, and what may be decided."""
    viewer = enter(request)
    service = service_of(request)
    context = service.context()
    page = await service.owner.ask(lambda store: gather_job(store, context, job))
    samples = await asyncio.to_thread(describe, page.samples)
    way = [one for one in _WAY if one is not JobState.CANARY or page.detail.canary is not None]
    return render("job.html", viewer=viewer, page=page, samples=samples, way=way)


@show_router.get("/assets/{name}")
async def assets(name: str) -> Response:
    """Give a file that pages load; nothing in it is about any model."""
    found = asset(name)
    if found is None:
        raise HTTPException(404, _MISSING)
    return Response(found[0], media_type=found[1], headers={"Cache-Control": "max-age=300"})


def _check_hours(hours: int | None) -> None:
    if hours is not None and hours not in HOURS:
        raise HTTPException(404, f"hours must be one of {', '.join(map(str, HOURS))}")


def _heat(page: ModelPage, first: int, rows: int) -> Any:
    if page.series is None or not page.series.points[first:]:
        return None
    return draw_heat(page.series, [one.at for one in page.moments], first, rows)


def _drawn(page: PointPage) -> dict[str, Any]:
    spans = [] if page.histogram is None else _spans(page.histogram, page.proposal)
    bars = None if page.histogram is None else draw_bars(page.histogram, spans)
    lines = [
        (MEASURES[one.measure], one, line)
        for one in page.series
        if (line := draw_line(one)) is not None
    ]
    return {
        "spans": spans,
        "bars": bars,
        "strip": draw_strip(spans),
        "lines": lines,
        "choices": HOURS,
        "told": told,
    }


def _spans(histogram: Histogram, proposal: Proposal | None) -> list[Span]:
    """Give the ranges of a point, those that are known."""
    found = []
    if histogram.clip_lo is not None and histogram.clip_hi is not None:
        found.append(Span("clip", "calibrated", histogram.clip_lo, histogram.clip_hi))
    if histogram.observed_bound is not None:
        bound = histogram.observed_bound
        found.append(Span("bound", "observed bound", -bound, bound))
    if histogram.lowest is not None and histogram.highest is not None:
        found.append(Span("now", "production", histogram.lowest, histogram.highest))
    if proposal is not None:
        found.append(Span("next", "proposed", proposal.low, proposal.high))
    return found

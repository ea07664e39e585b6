"""What each page shows, read in one go; every function runs on the owner's thread."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from calidrift_analyzer.errors import NoDataError
from calidrift_analyzer.records import MarkerKind, ModelAssessment, Mute, PointAssessment, Verdict
from calidrift_analyzer.service._histogram import Histogram, view_histogram
from calidrift_analyzer.service._listing import (
    view_audit,
    view_captures,
    view_decisions,
    view_tasks,
)
from calidrift_analyzer.service._reading import (
    ViewContext,
    bare_assessment,
    latest_assessment,
    view_freeze,
    view_job,
    view_jobs,
    view_model,
    view_models,
    view_points,
)
from calidrift_analyzer.service._series import view_series
from calidrift_analyzer.service._views import (
    AuditView,
    CaptureView,
    DecisionView,
    FreezeView,
    JobDetail,
    JobView,
    Measure,
    ModelOverview,
    PointRow,
    Series,
    TaskView,
    moment,
)
from calidrift_analyzer.service.page._proposal import Proposal, view_proposal
from calidrift_analyzer.service.page._samples import SampleFile, view_samples
from calidrift_analyzer.store import Store

__all__ = [
    "HOURS",
    "JobPage",
    "ModelPage",
    "Moment",
    "OverviewPage",
    "PointPage",
    "SwitchPage",
    "gather_job",
    "gather_model",
    "gather_overview",
    "gather_point",
    "gather_switches",
]

HOURS: Final = {1: 60, 24: 48, 168: 56, 720: 60}
"""Hours that can be shown, and into how many slices they are cut."""
_USUAL_HOURS: Final = 168
_MOST_LISTED: Final = 10
_MOST_MARKED: Final = 12
_MOST_PREDICTED: Final = 2_400
"""Cells of ΔSQNR on one page: half a millisecond each, on the thread that all others wait for."""
_FEWEST_SLICES: Final = 6
_ORDER: Final = tuple(Verdict)


@final
@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a model, to stand beside its figures."""

    at: datetime
    what: str
    who: str | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """The page at `/`; `everywhere` is the switch that freezes every model."""

    models: tuple[tuple[ModelOverview, datetime | None], ...]
    jobs: tuple[JobView, ...]
    tasks: tuple[TaskView, ...]
    everywhere: FreezeView | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPage:
    """The page of a model; what is not known yet is `None` or empty."""

    overview: ModelOverview
    hours: int
    since: datetime | None
    assessment: ModelAssessment | None
    points: tuple[PointRow, ...]
    series: Series | None
    moments: tuple[Moment, ...]
    mutes: tuple[Mute, ...]
    jobs: tuple[JobView, ...]
    versions: tuple[DecisionView, ...]
    validations: tuple[DecisionView, ...]
    captures: tuple[CaptureView, ...]
    audit: tuple[AuditView, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PointPage:
    """The page of a point."""

    model: str
    point: str
    hours: int
    assessed: PointAssessment | None
    histogram: Histogram | None
    proposal: Proposal | None
    series: tuple[Series, ...]
    mutes: tuple[Mute, ...]


@final
@dataclass(frozen=True, slots=True)
class SwitchPage:
    """What a page that asks about a model shows: in one sentence, and what is muted."""

    overview: ModelOverview
    mutes: tuple[Mute, ...]


@final
@dataclass(frozen=True, slots=True)
class JobPage:
    """The page of a job."""

    detail: JobDetail
    samples: tuple[SampleFile, ...]
    frozen: FreezeView | None


def gather_overview(store: Store, context: ViewContext) -> OverviewPage:
    """Read what `/` shows; models that need somebody come first."""
    models = view_models(store, context)
    rows = [(one, _since(store, context, one.model)) for one in models]
    rows.sort(key=lambda row: _urgency(row[0]))
    every = next((one for one in store.jobs.freezes() if not one.model and one.frozen), None)
    return OverviewPage(
        models=tuple(rows),
        jobs=view_jobs(store, context, None, None, _MOST_LISTED).items,
        tasks=view_tasks(store),
        everywhere=None if every is None else view_freeze(every),
    )


def gather_model(
    store: Store, context: ViewContext, model: str, measure: Measure, hours: int | None
) -> ModelPage:
    """Read what the page of a model shows; where no hours are given, those that fit its data.

    Raises:
        NoDataError: It is neither declared nor recorded.
    """
    overview = view_model(store, context, model)
    found = latest_assessment(store, context, model)
    points = view_points(store, context, model)
    hours = _fitting(found) if hours is None else hours
    slices = HOURS[hours]
    if measure is Measure.SQNR_CHANGE:
        slices = max(_FEWEST_SLICES, min(slices, _MOST_PREDICTED // max(1, len(points))))
    limit = _MOST_LISTED
    return ModelPage(
        overview=overview,
        hours=hours,
        since=_since(store, context, model),
        assessment=None if found is None else found[1],
        points=points,
        series=_series(store, context, model, measure, hours, slices),
        moments=_moments(store, model, None if found is None else found[1]),
        mutes=store.annotations.active(model),
        jobs=view_jobs(store, context, model, None, limit).items,
        versions=view_decisions(store, "versions", model, None, limit).items,
        validations=view_decisions(store, "validations", model, None, limit).items,
        captures=view_captures(store, model, None, limit).items,
        audit=view_audit(store, model, None, limit).items,
    )


def gather_point(
    store: Store, context: ViewContext, model: str, point: str, hours: int | None
) -> PointPage:
    """Read what the page of a point shows; where no hours are given, those that fit its data.

    Raises:
        NoDataError: There is no such model, or it has no such point.
    """
    view_model(store, context, model)
    found = latest_assessment(store, context, model)
    points = () if found is None else found[1].points
    assessed = next((one for one in points if one.name == point), None)
    try:
        histogram = view_histogram(store, context, model, point)
    except NoDataError:
        if assessed is None:
            raise
        histogram = None
    hours = _fitting(found) if hours is None else hours
    told = (
        _series(store, context, model, measure, hours, HOURS[hours], point) for measure in Measure
    )
    return PointPage(
        model=model,
        point=point,
        hours=hours,
        assessed=assessed,
        histogram=histogram,
        proposal=None if histogram is None else view_proposal(store, context, model, point),
        series=tuple(one for one in told if one is not None),
        mutes=tuple(one for one in store.annotations.active(model) if one.covers(point)),
    )


def gather_job(store: Store, context: ViewContext, job: int) -> JobPage:
    """Read what the page of a job shows.

    Raises:
        NoDataError: There is none of this number.
    """
    detail = view_job(store, context, job)
    frozen = next(
        (one for one in store.jobs.freezes() if one.frozen and one.model in ("", detail.job.model)),
        None,
    )
    return JobPage(
        detail, view_samples(store, job), None if frozen is None else view_freeze(frozen)
    )


def gather_switches(store: Store, context: ViewContext, model: str) -> SwitchPage:
    """Read what a page that asks about a model shows.

    Raises:
        NoDataError: It is neither declared nor recorded.
    """
    return SwitchPage(view_model(store, context, model), store.annotations.active(model))


def _series(
    store: Store,
    context: ViewContext,
    model: str,
    measure: Measure,
    hours: int,
    slices: int,
    point: str | None = None,
) -> Series | None:
    try:
        return view_series(
            store, context, model, measure=measure, hours=hours, slices=slices, point=point
        )
    except NoDataError:
        return None


def _fitting(found: tuple[int, ModelAssessment] | None) -> int:
    """Give the fewest hours that show everything up to a week."""
    if found is None or not found[1].first_ns:
        return _USUAL_HOURS
    lasted = (found[1].last_ns - found[1].first_ns) / 3.6e12
    return next((hours for hours in HOURS if lasted <= hours <= _USUAL_HOURS), _USUAL_HOURS)


def _since(store: Store, context: ViewContext, model: str) -> datetime | None:
    """Give when the drift began; `None` where none was found."""
    found = bare_assessment(store, context, model)
    if found is None or found[1].alarm is None:
        return None
    alarm = found[1].alarm
    return moment(alarm.since_ns or found[1].first_ns)


def _moments(store: Store, model: str, assessment: ModelAssessment | None) -> tuple[Moment, ...]:
    """List what happened to a model beside its alarm, the latest first."""
    found = []
    for marker in store.annotations.markers(model)[:_MOST_MARKED]:
        at = moment(marker.at_ns)
        if at is not None:
            who = marker.author if marker.kind is MarkerKind.MARKED else None
            found.append(Moment(at, marker.text, who))
    if assessment is not None and assessment.alarm is not None:
        begun = moment(assessment.alarm.since_ns or assessment.first_ns)
        raised = moment(assessment.alarm.end_ns)
        if begun is not None:
            found.append(Moment(begun, "the drift began, as far as the evidence tells", None))
        if raised is not None:
            found.append(Moment(raised, "the alarm was raised", None))
    return tuple(sorted(found, key=lambda one: one.at, reverse=True))


def _urgency(model: ModelOverview) -> tuple[int, str]:
    waiting = model.job is not None and model.job.state.value == "awaiting_approval"
    place = len(_ORDER) if model.verdict is None else _ORDER.index(model.verdict)
    return (-1 if waiting else place, model.model)

"""Reads the views out of the store; each function runs on the owner's thread."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, final

from calidrift_agent._registry import VersionLayout, read_pointer
from calidrift_agent.errors import RegistryError
from calidrift_analyzer.config import AnalyzerConfig
from calidrift_analyzer.errors import CalidriftError, ConfigurationError, NoDataError
from calidrift_analyzer.jobs import LiveProgress, require_job
from calidrift_analyzer.records import (
    DeployAction,
    DeploymentRow,
    FreezeRow,
    JobRow,
    JobState,
    Marker,
    ModelAssessment,
    Mute,
    PointAssessment,
    alarm_in_force,
    read_record,
)
from calidrift_analyzer.service._advice import while_serving
from calidrift_analyzer.service._canary import view_canary, with_canary
from calidrift_analyzer.service._paging import cursor_number, paged
from calidrift_analyzer.service._together import Together
from calidrift_analyzer.service._views import (
    DeploymentView,
    FreezeView,
    JobDetail,
    JobStepView,
    JobView,
    ModelOverview,
    Page,
    PointRow,
    ProgressView,
    moment,
)
from calidrift_analyzer.store import Store

__all__ = [
    "ViewContext",
    "bare_assessment",
    "known_models",
    "latest_assessment",
    "require_model",
    "view_deployment",
    "view_freeze",
    "view_job",
    "view_jobs",
    "view_model",
    "view_models",
    "view_points",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ViewContext:
    """What views need beside the store.

    Attributes:
        config: The models.
        live: How far the job at work is; `None` while there is none.
        latest: Moment (UTC nanoseconds) and newest assessment by model; those that this process
            has not made come from the store.
        together: Assessments that were put together with mutes and markers before.
    """

    config: AnalyzerConfig
    live: LiveProgress | None = None
    latest: Mapping[str, tuple[int, ModelAssessment]] = field(default_factory=dict)
    together: Together = field(default_factory=Together)


@final
@dataclass(frozen=True, slots=True)
class _Said:
    """What is asked about many models at once: switches, open jobs, mutes and markers."""

    freezes: Mapping[str, FreezeRow]
    jobs: Mapping[str, JobRow]
    mutes: tuple[Mute, ...]
    markers: tuple[Marker, ...]

    @classmethod
    def read(cls, store: Store, model: str | None = None) -> "_Said":
        """Read it, of one model or of all."""
        return cls(
            freezes={row.model: row for row in store.jobs.freezes() if row.frozen},
            jobs={job.model: job for job in reversed(store.jobs.open_jobs(model))},
            mutes=store.annotations.active(model),
            markers=store.annotations.markers(model),
        )

    def about(self, model: str) -> "_Said":
        """Give what of it is about one model."""
        return _Said(
            self.freezes,
            self.jobs,
            tuple(one for one in self.mutes if one.model == model),
            tuple(one for one in self.markers if one.model == model),
        )


def known_models(store: Store, config: AnalyzerConfig) -> tuple[str, ...]:
    """List the models that are declared or were recorded."""
    recorded = [one.model for one in store.observed()]
    return tuple(dict.fromkeys([*config.models, *recorded]))


def require_model(store: Store, config: AnalyzerConfig, model: str) -> str:
    """Give the name of a model.

    Raises:
        NoDataError: It is neither declared nor recorded.
    """
    if model in config.models or store.observed(model):
        return model
    raise NoDataError(f"no model {model!r} is declared or was recorded; see /api/v1/models")


def bare_assessment(
    store: Store, context: ViewContext, model: str
) -> tuple[int, ModelAssessment] | None:
    """Give the newest assessment of a model as it was made, and when; `None` without one."""
    found = context.latest.get(model)
    if found is not None:
        return found
    kept = store.views.latest(model)
    if kept is None:
        return None
    try:
        return kept.created_ns, _assessment(kept.document)
    except CalidriftError:
        return None  # of another version; the next one replaces it


def latest_assessment(
    store: Store, context: ViewContext, model: str
) -> tuple[int, ModelAssessment] | None:
    """Give the newest assessment of a model with the mutes of now, and when it was made.

    `None` where there is none yet.
    """
    found = bare_assessment(store, context, model)
    if found is None:
        return None
    mutes, markers = store.annotations.active(model), store.annotations.markers(model)
    return found[0], context.together.of(found[1], mutes, markers)


def view_models(store: Store, context: ViewContext) -> tuple[ModelOverview, ...]:
    """Tell about every model."""
    names, said = known_models(store, context.config), _Said.read(store)
    return tuple(_overview(store, context, name, said.about(name)) for name in names)


def view_model(store: Store, context: ViewContext, model: str) -> ModelOverview:
    """Tell about one model.

    Raises:
        NoDataError: It is neither declared nor recorded.
    """
    require_model(store, context.config, model)
    return _overview(store, context, model, _Said.read(store, model))


def _overview(store: Store, context: ViewContext, model: str, said: _Said) -> ModelOverview:
    config = context.config
    switch = said.freezes.get("") or said.freezes.get(model)
    at_work = said.jobs.get(model)
    always: dict[str, Any] = {
        "model": model,
        "declared": model in config.models,
        "mode": config.service.mode,
        "frozen": None if switch is None else view_freeze(switch),
        "version": _serving(config, model),
        "job": None if at_work is None else _job(at_work, context.live),
    }
    found = bare_assessment(store, context, model)
    if found is None:
        return ModelOverview(
            verdict=None,
            sentence=f"{model} has not been assessed yet",
            next_step="wait for the first assessment, or check state_dirs",
            **always,
        )
    made_ns = found[0]
    assessment = context.together.of(found[1], said.mutes, said.markers)
    worst = assessment.points[0] if assessment.points else None
    alarm = alarm_in_force(assessment)
    coverage = assessment.request_coverage
    return ModelOverview(
        verdict=assessment.verdict,
        sentence=assessment.sentence,
        next_step=while_serving(assessment.next_step),
        profile=assessment.profile,
        assessed=moment(made_ns),
        alarm=None if alarm is None else moment(alarm.end_ns),
        muted=_muted(assessment.muted, worst),
        request_coverage=None if coverage is None else coverage.estimate,
        worst_point=None if worst is None else worst.name,
        worst_sqnr_change_db=None if worst is None else worst.sqnr_change_db,
        points=len(assessment.points),
        units=assessment.units,
        last_window=moment(assessment.last_ns),
        **always,
    )


def view_points(store: Store, context: ViewContext, model: str) -> tuple[PointRow, ...]:
    """Tell about every point of a model, the worst first; empty before the first assessment.

    Raises:
        NoDataError: The model is neither declared nor recorded.
    """
    require_model(store, context.config, model)
    found = latest_assessment(store, context, model)
    return () if found is None else tuple(_point(one) for one in found[1].points)


def view_jobs(
    store: Store, context: ViewContext, model: str | None, cursor: str | None, limit: int
) -> Page[JobView]:
    """List jobs, the newest first."""
    rows = store.jobs.page(model, before=cursor_number(cursor), limit=limit + 1)
    return paged([_job(row, context.live) for row in rows], limit, [row.job for row in rows])


def view_job(store: Store, context: ViewContext, job: int) -> JobDetail:
    """Tell everything about one job.

    Raises:
        NoDataError: There is none of this number.
    """
    row = require_job(store, job)
    steps = store.jobs.steps(job)
    documents: dict[JobState, dict[str, Any]] = {}
    for step in steps:  # an approval has a document beside the report's, in the same state
        documents.setdefault(step.state, {}).update(json.loads(step.document or "{}"))
    validated = (JobState.AWAITING_APPROVAL, JobState.REFUSED, JobState.CONFIRMED)
    reports = [documents[state].get("report") for state in validated if state in documents]
    canary = view_canary(store, row, steps)
    return JobDetail(
        job=with_canary(_job(row, context.live), canary),
        steps=tuple(
            JobStepView(
                state=step.state,
                event=step.event,
                actor=step.actor,
                at=moment(step.at_ns),
                sentence=step.sentence,
            )
            for step in steps
        ),
        selection=documents.get(JobState.RECALIBRATING, {}).get("selection"),
        report=next((one for one in reports if one is not None), None),
        deployment=_deployment(store, row.model, documents.get(JobState.PROMOTED, {})),
        canary=canary,
    )


def view_deployment(row: DeploymentRow) -> DeploymentView:
    """Tell about a move and its hook."""
    return DeploymentView(
        version=row.version,
        previous=row.previous,
        action=row.action,
        key=row.key,
        state=row.state,
        attempts=row.attempts,
        created=moment(row.created_ns),
        updated=moment(row.updated_ns),
        sentence=row.sentence,
        output=row.output,
    )


def _deployment(store: Store, model: str, promoted: Mapping[str, Any]) -> DeploymentView | None:
    version = promoted.get("version")
    moves = () if version is None else store.deployments.page(model, version=str(version))
    found = next((one for one in moves if one.action is DeployAction.PROMOTE), None)
    return None if found is None else view_deployment(found)


def view_freeze(row: FreezeRow) -> FreezeView:
    """Tell about a switch."""
    return FreezeView(
        model=row.model,
        frozen=row.frozen,
        actor=row.actor,
        at=moment(row.at_ns),
        note=row.sentence,
    )


@lru_cache(maxsize=32)
def _assessment(document: str) -> ModelAssessment:
    """Read an assessment; the same document is read once, however often it is looked at."""
    return read_record(ModelAssessment, json.loads(document), source="the newest assessment")


def _serving(config: AnalyzerConfig, model: str) -> str | None:
    contract = config.models.get(model)
    if contract is None:
        return None
    try:
        pointer = read_pointer(VersionLayout(contract.registry, contract.name))
    except (RegistryError, ConfigurationError):
        return None
    return None if pointer is None else pointer.version


def _point(point: PointAssessment) -> PointRow:
    return PointRow(
        point=point.name,
        verdict=point.verdict,
        sentence=point.sentence,
        next_step=while_serving(point.next_step),
        units=point.units,
        exceedance=None if point.exceedance is None else point.exceedance.estimate,
        coverage=None if point.coverage is None else point.coverage.estimate,
        observed_bound=point.observed_bound,
        sqnr_db=point.sqnr_production_db,
        sqnr_change_db=point.sqnr_change_db,
        clipped_energy=point.clipped_energy,
        log10_evidence=point.log10_evidence,
        alarm=None if point.alarm is None else moment(point.alarm.end_ns),
        muted=None if point.muted is None else point.muted.sentence,
    )


def _muted(whole: Any, worst: PointAssessment | None) -> str | None:
    mute = whole or (None if worst is None else worst.muted)
    return None if mute is None else str(mute.sentence)


def _job(row: JobRow, live: LiveProgress | None) -> JobView:
    mine = live if live is not None and live.job == row.job and not row.state.finished else None
    return JobView(
        job=row.job,
        model=row.model,
        kind=row.kind,
        trigger=row.trigger,
        cause=row.cause,
        actor=row.actor,
        created=moment(row.created_ns),
        state=row.state,
        updated=moment(row.updated_ns),
        sentence=row.sentence,
        attempts=row.attempts,
        approved_by=row.approved_by,
        cancel_requested=row.cancel_requested,
        finished=row.state.finished,
        progress=None
        if mine is None
        else ProgressView(
            what=mine.what, done=mine.done, total=mine.total, since=moment(mine.since_ns)
        ),
    )

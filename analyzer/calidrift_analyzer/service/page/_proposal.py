"""Which range a recalibration would give a point."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.assess import judged
from calidrift_analyzer.errors import CalidriftError, NoDataError
from calidrift_analyzer.ranges import Estimator, estimate_range, grid_of, predict
from calidrift_analyzer.records import JobState
from calidrift_analyzer.service._reading import ViewContext, view_job
from calidrift_analyzer.store import Store

__all__ = ["Proposal", "view_proposal"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A range that could take the place of the one in use.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        sqnr_db: Predicted SQNR of production at it, dB.
        why: Where it comes from, in words.
        job: The job whose candidate it is; `None` where it is only an estimate.
    """

    low: float
    high: float
    sqnr_db: float | None
    why: str
    job: int | None = None


def view_proposal(store: Store, context: ViewContext, model: str, point: str) -> Proposal | None:
    """Give the range of the candidate that waits for approval, else an estimate from production.

    `None` where there is neither: behind a clipped layer values are distorted, so sketches of the
    clip instrument propose nothing.
    """
    chosen = judged(store, model, context.config.models.get(model))
    if chosen is None:
        return None
    totals = store.totals(model, chosen.profile, instrument=chosen.instrument)
    found = next((one for one in totals.points if one.name == point), None)
    if found is None:
        return None
    sketch = found.sketch()
    waiting = _waiting(store, context, model, point, sketch)
    if waiting is not None or chosen.instrument is not Instrument.RANGE:
        return waiting
    try:
        grid = grid_of(estimate_range(sketch, Estimator.MSE))
    except NoDataError:
        return None
    return Proposal(
        low=grid.lo,
        high=grid.hi,
        sqnr_db=predict(sketch, grid).sqnr_db,
        why="estimated from production: the least squared error",
    )


def _waiting(
    store: Store, context: ViewContext, model: str, point: str, sketch: MagnitudeSketch
) -> Proposal | None:
    for row in store.jobs.open_jobs(model):
        if row.state is not JobState.AWAITING_APPROVAL:
            continue
        report = view_job(store, context, row.job).report or {}
        bound = _bound(report.get("candidate"), point)
        if bound is not None:
            return Proposal(
                low=bound[0],
                high=bound[1],
                sqnr_db=predict(sketch, bound[2]).sqnr_db,
                why=f"candidate {report['candidate'].get('id', '')} of job {row.job}",
                job=row.job,
            )
    return None


def _bound(candidate: Any, point: str) -> tuple[float, float, Any] | None:
    """Read a range out of the profile that a job wrote beside its candidate."""
    if not isinstance(candidate, dict) or not isinstance(candidate.get("path"), str):
        return None
    try:
        profile = CalibrationProfile.load(Path(candidate["path"]) / "profile.json")
    except (CalidriftError, OSError):
        return None
    known = profile.find(point)
    bound = None if known is None else known.clip_bound
    return None if bound is None else (bound.lo, bound.hi, bound)

"""From judged points to the verdict about a model."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import ReferenceFigures
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_analyzer.assess._evidence import smallest_detectable, units_to_alarm
from calidrift_analyzer.assess._headline import Headline
from calidrift_analyzer.assess._intervals import interval, lower_bound
from calidrift_analyzer.records import (
    MeasuredHarm,
    ModelAssessment,
    ModelTotals,
    PointAssessment,
    Seasons,
    SegmentCoverage,
    ServiceLevel,
    Verdict,
)

__all__ = ["Context", "assess_model"]

_LN10: Final = math.log(10.0)


@final
@dataclass(frozen=True, slots=True)
class Context:
    """What is known about the model beside its points.

    Attributes:
        alpha: False alarm probability of all points together.
        log_threshold: Natural logarithm of the joint threshold.
        levels: All traffic, then segments, the worst first.
        harm: What was measured beside the FP32 reference.
        seasons: When units leave the ranges.
    """

    alpha: float
    log_threshold: float
    levels: tuple[ServiceLevel, ...] = ()
    harm: MeasuredHarm | None = None
    seasons: Seasons | None = None


def assess_model(
    totals: ModelTotals,
    points: tuple[PointAssessment, ...],
    profile: CalibrationProfile | None,
    context: Context,
) -> ModelAssessment:
    """Sum up judged points.

    Args:
        totals: Sums over all windows.
        points: The points, worst first.
        profile: Their profile, where there is one.
        context: What is known beside the points.
    """
    alarms = [point.alarm for point in points if point.alarm is not None]
    alarm = min(alarms, key=lambda one: one.observed) if alarms else None
    verdict = _model_verdict(totals, points)
    why_not = (
        "the profile has no observed bounds"
        if profile is not None
        else f"profile {totals.profile[:12]} has not been collected"
        if totals.profile
        else "the service has no calibration profile"
    )
    served = int(totals.requests[RequestColumn.SEEN])
    observed = totals.observed
    errors = _happened(totals, RequestColumn.ERROR_FIRST, Stage)
    referenced = any(point.observed_bound is not None for point in points)
    detection = _detection(totals, profile, context.log_threshold)
    headline = Headline(
        verdict=verdict,
        points=points,
        alarm=alarm,
        levels=context.levels,
        harm=context.harm,
        why_not=why_not,
        uncollected="" if profile is not None else totals.profile,
        errors=bool(errors),
    )
    return ModelAssessment(
        model=totals.model,
        profile=totals.profile,
        instrument=totals.instrument,
        verdict=verdict,
        sentence=headline.sentence,
        next_step=headline.next_step,
        points=points,
        alpha=context.alpha,
        log10_threshold=context.log_threshold / _LN10,
        units=totals.units,
        served=served,
        sampling_ratio=observed / served if served else None,
        request_coverage=interval(totals.units_covered, totals.units) if referenced else None,
        request_coverage_low=(
            lower_bound(totals.units_covered, totals.units) if referenced else None
        ),
        segments=_segments(totals) if referenced else (),
        alarm=alarm,
        worst_point=points[0].name if points else None,
        detectable_exceedance=detection[0],
        units_to_detect=detection[1],
        seconds_to_detect=detection[2],
        first_ns=totals.first_ns,
        last_ns=totals.last_ns,
        observed=observed,
        errors=errors,
        dropped=_happened(totals, RequestColumn.DROP_FIRST, DropReason),
        reference=ReferenceFigures.of(totals.requests),
        service_levels=context.levels,
        harm=context.harm,
        seasons=context.seasons,
    )


def _happened(totals: ModelTotals, first: int, words: type[StrEnum]) -> dict[str, int]:
    """Counters of a closed list that are not 0."""
    counted = {word.value: int(totals.requests[first + at]) for at, word in enumerate(words)}
    return {word: times for word, times in counted.items() if times}


def _segments(totals: ModelTotals) -> tuple[SegmentCoverage, ...]:
    found = (
        SegmentCoverage(one.name, one.units, interval(one.covered, one.units))
        for one in totals.segments
    )
    return tuple(sorted(found, key=lambda one: one.coverage.estimate if one.coverage else 1.0))


def _model_verdict(totals: ModelTotals, points: tuple[PointAssessment, ...]) -> Verdict:
    found = {point.verdict for point in points}
    if totals.unread:
        return Verdict.BLIND
    if totals.units == 0:  # counted only where there is a bound
        return Verdict.NO_REFERENCE if Verdict.NO_REFERENCE in found else Verdict.NO_DATA
    for verdict in (Verdict.DRIFTED_HARMFUL, Verdict.BLIND, Verdict.DRIFTED_HARMLESS):
        if verdict in found:
            return verdict
    if not found & {Verdict.LEARNING, Verdict.NOT_DRIFTED}:
        return Verdict.NO_REFERENCE
    return Verdict.LEARNING if Verdict.LEARNING in found else Verdict.NOT_DRIFTED


def _detection(
    totals: ModelTotals, profile: CalibrationProfile | None, log_threshold: float
) -> tuple[float | None, int | None, float | None]:
    """Smallest exceedance all tested points can see; units and seconds to see twice that."""
    bounds = [] if profile is None else [one.observed_bound for one in profile.points.values()]
    limits = [
        (smallest_detectable(bound.rank, bound.units, log_threshold), bound)
        for bound in bounds
        if bound is not None
    ]
    if not limits or any(limit is None for limit, _ in limits):
        return None, None, None
    limit, bound = max(limits, key=lambda pair: pair[0] or 0.0)
    if limit is None:
        return None, None, None
    units = units_to_alarm(
        min(1.0, 2.0 * limit),
        rank=bound.rank,
        reference_units=bound.units,
        log_threshold=log_threshold,
    )
    span = (totals.last_ns - totals.first_ns) / 1e9
    rate = totals.units / span if span > 0 else 0.0
    return limit, units, units / rate if units is not None and rate > 0 else None

"""The time after a promotion, until random units of production have become the reference.

Bounds of a promoted profile come from a calibration set with samples that were selected, so nothing
says how often exchangeable traffic leaves them: the finite-calibration evidence (`_evidence`) would
be wrong in both directions. With extreme samples it misses drift, with a calibration set of other
traffic it cries wolf. So it is silent, points are `learning`, and the tolerance alarm
(`_service_level`) speaks alone: its null is a share that somebody declared, whatever the bounds are
made of. The first n random units under the profile then become the reference of a new profile
(`calidrift reference learn`), whose evidence starts afresh.

A tolerance alarm during that time is the alarm of the points whose own count would have raised it
(`_named`); of a segment or of many points together it names nothing but the service level. The same
count of units is told where a profile has ranges only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._vocabulary import CountColumn
from calidrift_analyzer.assess._named import Named
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._words import NEXT, NON_FINITE
from calidrift_analyzer.records import (
    Alarm,
    BurnIn,
    MeasuredHarm,
    ModelAssessment,
    ModelHistory,
    ModelTotals,
    PointAssessment,
    Verdict,
)

__all__ = ["burn_in", "is_provisional", "point_alarms", "progress_of"]

_LEARN: Final = "run `calidrift reference learn`"
_SILENT: Final = "only the tolerance alarm speaks"
_MUTE: Final = "no alarm can speak, because the profile has no observed bounds"
_TOO_SMALL: Final = "the reference is too small to judge "


def is_provisional(profile: CalibrationProfile | None) -> bool:
    """Whether the bounds of a profile are of no random units, so that evidence is silent."""
    return profile is not None and not profile.reference.is_random


def progress_of(
    totals: ModelTotals, profile: CalibrationProfile | None, rules: AssessRules
) -> BurnIn | None:
    """Say how far production has come; `None` where there is a reference, or nothing to learn."""
    if profile is None:
        return None
    provisional = is_provisional(profile)
    if not provisional and len(profile.unobserved) < len(profile.points):
        return None
    units = max((int(one.counts[CountColumn.UNITS_MEASURED]) for one in totals.points), default=0)
    if not units and not provisional:
        return None
    span = (totals.last_ns - totals.first_ns) / 1e9
    missing = max(0, rules.reference_units - units)
    return BurnIn(
        units=units,
        wanted=rules.reference_units,
        seconds_left=missing * span / units if units and span > 0 else None,
        provisional=provisional,
    )


def point_alarms(
    points: Sequence[PointAssessment],
    progress: BurnIn | None,
    history: ModelHistory,
    named: Mapping[str, Named],
    beside: tuple[AssessRules, MeasuredHarm | None],
) -> list[PointAssessment]:
    """Let the tolerance alarm speak for the points whose evidence is silent.

    Args:
        points: The points, judged without evidence.
        progress: How far the burn-in is.
        history: Windows in the order of looks.
        named: Points that broke a service level by themselves.
        beside: By what harm is judged, and what was measured beside FP32.

    Returns:
        The points: those that are named have alarmed, the others know what to wait for. The same
        ones where the bounds are of random units.
    """
    if progress is None or not progress.provisional:
        return list(points)
    return [
        _alarmed(point, history, named[point.name], beside)
        if point.name in named
        else _waiting(point, progress)
        for point in points
    ]


def burn_in(assessment: ModelAssessment, progress: BurnIn | None) -> ModelAssessment:
    """Say how far production has come on its way to a reference of its own.

    Args:
        assessment: The model as judged so far.
        progress: How far it is; `None` where there is a random reference.

    Returns:
        The assessment with `burn_in` and the words of a burn-in; the same one where there is a
        random reference.
    """
    if progress is None:
        return assessment
    assessment = replace(assessment, burn_in=progress)
    if not progress.provisional:
        return _without_bounds(assessment, progress)
    bounded = any(point.observed_bound is not None for point in assessment.points)
    said = _said(progress, _SILENT if bounded else _MUTE)
    others = [one for one in assessment.sentence.split("; ") if not one.startswith(_TOO_SMALL)]
    broken = any(level.breach is not None for level in assessment.service_levels)
    calm = assessment.verdict is Verdict.LEARNING and not broken
    step = assessment.next_step
    if broken and assessment.verdict is Verdict.LEARNING:
        step += (
            "; where it has always been so, `calidrift reference learn --force` makes it the "
            "reference"
        )
    return replace(
        assessment,
        sentence="; ".join([said, *others] if calm else [*others, said]),
        next_step=step,
        detectable_exceedance=None,
        units_to_detect=None,
        seconds_to_detect=None,
    )


def _said(progress: BurnIn, alarms: str) -> str:
    if progress.complete:
        return (
            f"learning: {progress.units:,} random units since this version was promoted are enough "
            f"for a reference of {progress.wanted:,}; until it is learned {alarms}"
        )
    return (
        f"learning: {progress.units:,} of {progress.wanted:,} random units since this version was "
        f"promoted; until then {alarms}"
    )


def _next_step(progress: BurnIn) -> str:
    if progress.complete:
        return _LEARN
    if not progress.units:
        return (
            "check that the service runs this version of calidrift: earlier ones do not measure "
            "the units that a reference is learned from"
        )
    return f"nothing to do yet; {_LEARN} when they are complete{progress.time_left}"


def _waiting(point: PointAssessment, progress: BurnIn) -> PointAssessment:
    """A point whose bound is provisional."""
    if point.verdict is not Verdict.LEARNING:
        return point
    step = _next_step(progress)
    if point.suspected:
        step = (
            "look with `calidrift coverage` at what this traffic leaves; `calidrift reference "
            "learn` takes suspected traffic only with --force"
        )
    return replace(point, next_step=step)


def _alarmed(
    point: PointAssessment,
    history: ModelHistory,
    named: Named,
    beside: tuple[AssessRules, MeasuredHarm | None],
) -> PointAssessment:
    """A point that more units leave than are tolerated."""
    until = slice(0, named.look + 1)
    column = history.points.index(point.name)
    harmful = _is_harmful(point, *beside)
    verdict = Verdict.DRIFTED_HARMFUL if harmful else Verdict.DRIFTED_HARMLESS
    broken = point.nan_elements or point.infinite_elements
    step = f"{NON_FINITE}; then {NEXT[verdict]}" if broken else NEXT[verdict]
    if not harmful:
        step = (
            "nothing to repair; where this traffic is here to stay, `calidrift reference learn "
            "--force` makes it the reference"
        )
    left = (
        f"of {point.units:,} {'unit' if point.units == 1 else 'units'} left the provisional range"
    )
    return replace(
        point,
        verdict=verdict,
        sentence=point.sentence.replace(left, f"{left}, more than is tolerated", 1),
        next_step=step,
        suspected=False,
        log10_evidence=named.log_evidence / math.log(10.0),
        alarm=Alarm(
            end_ns=int(history.end_ns[named.look]),
            since_ns=0 if named.begun < 0 else int(history.end_ns[named.begun]),
            units=int(history.units[until, column].sum()),
            exceedances=int(history.exceedances[until, column].sum()),
            observed=int(history.request_units[until].sum()),
            served=int(history.seen[until].sum()),
        ),
    )


def _is_harmful(point: PointAssessment, rules: AssessRules, harm: MeasuredHarm | None) -> bool:
    """As for any alarm: SQNR fell with more energy clipped, cannot be said, or was measured."""
    before, now = point.overload_calibration, point.overload_production
    if harm is not None and harm.breach is not None:
        return True
    if point.nan_elements or point.infinite_elements:
        return True
    if point.sqnr_change_db is None or before is None or now is None:
        return True
    return point.sqnr_change_db <= -rules.harm_db and now > before


def _without_bounds(assessment: ModelAssessment, progress: BurnIn) -> ModelAssessment:
    """Ranges only: what has to be done anyway, or a reference of production."""
    if assessment.verdict is not Verdict.NO_REFERENCE:
        return assessment
    learn = (
        f"{_LEARN}: {progress.units:,} random units are enough for a reference"
        if progress.complete
        else f"{_LEARN} when {progress.wanted:,} random units were observed ({progress.units:,} so "
        f"far{progress.time_left}), or do not wait: {assessment.next_step}"
    )
    return replace(assessment, next_step=learn)

"""Assess a model: coverage, evidence, harm, and a verdict for each point and for the whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from calidrift_agent._profile import CalibrationProfile, PointProfile
from calidrift_agent._sketch import CELLS
from calidrift_agent._state import empty_values
from calidrift_agent._vocabulary import COUNT_COLUMNS, CountColumn
from calidrift_agent.errors import ProfileMismatchError
from calidrift_analyzer.assess._burn_in import (
    burn_in,
    is_provisional,
    point_alarms,
    progress_of,
)
from calidrift_analyzer.assess._evidence import smallest_detectable
from calidrift_analyzer.assess._figures import described
from calidrift_analyzer.assess._harm import Harm, harm_of
from calidrift_analyzer.assess._intervals import interval
from calidrift_analyzer.assess._measured_harm import measured_harm, since_drift
from calidrift_analyzer.assess._model import Context, assess_model
from calidrift_analyzer.assess._named import named_points
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._seasons import seasons
from calidrift_analyzer.assess._sequential import Evidence, evidence_of
from calidrift_analyzer.assess._service_level import levels_of, streams
from calidrift_analyzer.assess._triage import triage
from calidrift_analyzer.assess._words import Findings, point_next_step, point_sentence
from calidrift_analyzer.records import (
    ModelAssessment,
    ModelHistory,
    ModelTotals,
    PointAssessment,
    PointTotals,
    Verdict,
)

__all__ = ["assess"]

SUSPICION_DB: Final = 6.02
"""Fall of predicted SQNR that is told without an alarm, dB: one bit. Measured without drift (512
reference and 300 observed units, 5 distributions): in 0 to 8 % of runs; 1 dB in 0 to 22 %."""

_LN10: Final = math.log(10.0)
_SEVERITY: Final = (
    Verdict.DRIFTED_HARMFUL,
    Verdict.BLIND,
    Verdict.DRIFTED_HARMLESS,
    Verdict.NO_REFERENCE,
    Verdict.LEARNING,
    Verdict.NOT_DRIFTED,
    Verdict.NO_DATA,
)
_DISQUIET: Final = 2
"""Place of a point that has not drifted as far as can be proved, but is not calm either."""


@final
@dataclass(frozen=True, slots=True)
class _Judging:
    """What every point of one model is judged by.

    `looked`: a silent point is a blind one. `suffering`: served outputs were measured to be worse
    than is tolerated, so that no drift is harmless, whatever is predicted. `silent`: the bounds are
    provisional, and the evidence says nothing.
    """

    rules: AssessRules
    log_threshold: float
    looked: bool
    suffering: bool
    silent: bool
    recent: Mapping[str, PointTotals]
    evidence: Mapping[str, Evidence]


def assess(
    totals: ModelTotals,
    history: ModelHistory,
    profile: CalibrationProfile | None,
    rules: AssessRules = AssessRules(),  # noqa: B008 - frozen, so one for all is safe
    recent: Mapping[str, PointTotals] | None = None,
) -> ModelAssessment:
    """Judge the traffic of one model against its calibration profile.

    Coverage and exceedance use the observed bounds, clipped energy and SQNR the clip ranges. A
    point alarms when its evidence (`_evidence`) has reached L / `alpha` after any window, with L
    the number of points that have an observed bound. Without drift the chance that any point ever
    alarms is at most `alpha`, however often this is called and whatever the dependence between
    points. Measured without drift: 1 to 2 % of runs of 3,000 units at `alpha` = 5 % and one point.

    An alarm is harmful when predicted SQNR at the frozen range has fallen by `harm_db` or more
    and a larger share of the energy is clipped than in calibration, or when that cannot be
    predicted (as where there is NaN or Inf), or when served outputs were measured beside FP32 and
    differ by more than is tolerated (`_measured_harm`); else it is harmless.

    Args:
        totals: Sums over all windows.
        history: The same windows one by one.
        profile: The profile that the windows were compared with; `None` where there was none, or
            where it has not been collected.
        rules: False alarm probability, what counts as harm, and the service level.
        recent: Sums of some points over the traffic since their drift began (`Alarm.since_ns`);
            their harm is judged on these. `assess_stored` fills it in.

    Returns:
        The assessment, points worst first.

    Raises:
        ProfileMismatchError: The profile is another one, or of another instrument.

    Cost: about 4 ms per point, and 1 us per point and window.
    """
    _require_match(totals, profile)
    tested = () if profile is None else _tested(profile)
    log_threshold = math.log(max(len(tested), 1) / rules.alpha)
    looked = totals.units > 0 or totals.unread
    harm = measured_harm(history, rules)
    suffering = harm is not None and harm.breach is not None
    silent = is_provisional(profile)
    pairs = _pairs(totals, profile)
    evidence = {} if silent else _evidence(pairs, history, log_threshold)
    judging = _Judging(rules, log_threshold, looked, suffering, silent, recent or {}, evidence)
    judged = [_assess_point(point, reference, judging) for point, reference in pairs]
    found = streams(history, profile, rules)
    levels = levels_of(found, history, rules)
    named = named_points(history, found) if silent else {}
    progress = progress_of(totals, profile, rules)
    points = sorted(point_alarms(judged, progress, history, named, (rules, harm)), key=_badness)
    begun = [one.begun for one in named.values()]
    begun += [one.begun for one in evidence.values() if one.begun is not None]
    if harm is not None and begun:
        harm = replace(harm, recent=since_drift(history, min(begun)))
    context = Context(rules.alpha, log_threshold, levels, harm, seasons(history))
    assessment = replace(
        assess_model(totals, tuple(points), profile, context),
        standing_out=_standing_out(points, rules.alpha),
    )
    return burn_in(assessment, progress)


def _standing_out(points: Sequence[PointAssessment], alpha: float) -> tuple[str, ...]:
    now = ((one.name, one.log10_evidence_now) for one in points)
    return triage({name: value * _LN10 for name, value in now if value is not None}, alpha)


def _require_match(totals: ModelTotals, profile: CalibrationProfile | None) -> None:
    if profile is None:
        return
    if profile.digest != totals.profile:
        raise ProfileMismatchError(
            f"the windows of model {totals.model!r} were compared with profile "
            f"{totals.profile[:12] or '(none)'}, not with {profile.digest[:12]}; assess them with "
            "the profile that the service uses"
        )
    if totals.instrument is not None and profile.instrument is not totals.instrument:
        raise ProfileMismatchError(
            f"the profile of model {totals.model!r} was measured with the {profile.instrument} "
            f"instrument, the windows with the {totals.instrument} instrument; their figures "
            "cannot be compared: calibrate with the instrument of the watch"
        )


def _tested(profile: CalibrationProfile) -> tuple[PointProfile, ...]:
    """Points that can alarm. Counted from the profile, so traffic cannot move the threshold."""
    return tuple(point for point in profile.points.values() if point.observed_bound is not None)


def _pairs(
    totals: ModelTotals, profile: CalibrationProfile | None
) -> list[tuple[PointTotals, PointProfile]]:
    """Every point that was observed or expected, with what is known about it."""
    pairs: list[tuple[PointTotals, PointProfile]] = []
    found: set[str] = set()
    for point in totals.points:
        reference = None if profile is None else profile.find(point.name)
        if reference is not None:
            found.add(reference.name)
        pairs.append((point, reference or PointProfile(name=point.name)))
    tested = () if profile is None else _tested(profile)
    pairs.extend((_never_listed(one.name), one) for one in tested if one.name not in found)
    return pairs


def _never_listed(name: str) -> PointTotals:
    counts = np.zeros(COUNT_COLUMNS, np.int64)
    return PointTotals(name, counts, empty_values(1)[0], np.zeros(CELLS, np.int64))


def _evidence(
    pairs: Sequence[tuple[PointTotals, PointProfile]], history: ModelHistory, log_threshold: float
) -> dict[str, Evidence]:
    """What the looks at each observed point with a bound come to."""
    return {
        totals.name: evidence_of(history, totals.name, reference.observed_bound, log_threshold)
        for totals, reference in pairs
        if reference.observed_bound is not None and totals.units
    }


def _assess_point(
    totals: PointTotals, reference: PointProfile, judging: _Judging
) -> PointAssessment:
    bound = reference.observed_bound
    judged = judging.recent.get(totals.name, totals)
    harm = harm_of(judged, reference)
    evidence = judging.evidence.get(totals.name)
    detectable: float | None = None
    if bound is not None and not judging.silent:
        detectable = smallest_detectable(bound.rank, bound.units, judging.log_threshold)
    verdict = _verdict(totals, reference, evidence, harm, detectable, judging)
    silent_cost = harm.is_harmful(judging.rules.harm_db) is None
    findings = Findings(
        verdict=verdict,
        totals=totals,
        bound=bound,
        harm=harm,
        detectable=detectable,
        evidence=evidence,
        log10_threshold=judging.log_threshold / _LN10,
        provisional=judging.silent,
        harmful=harm.is_harmful(judging.rules.harm_db if bound is None else SUSPICION_DB) is True,
        only_non_finite=(
            verdict is Verdict.DRIFTED_HARMFUL
            and harm.non_finite
            and silent_cost
            and not judging.suffering
        ),
    )
    referenced = bound is not None
    point = PointAssessment(
        name=totals.name,
        verdict=verdict,
        sentence=point_sentence(findings),
        next_step=point_next_step(findings),
        units=totals.units,
        exceedances=totals.exceedances,
        exceedance=interval(totals.exceedances, totals.units) if referenced else None,
        coverage=(
            interval(totals.units - totals.exceedances, totals.units) if referenced else None
        ),
        observed_bound=bound.value if bound else None,
        reference_rank=bound.rank if bound else None,
        reference_units=bound.units if bound else None,
        log10_evidence=evidence.log10_largest if evidence else None,
        log10_evidence_now=evidence.log10_latest if evidence else None,
        alarm=evidence.alarm if evidence else None,
        ended_ns=evidence.ended.since_ns if evidence and evidence.ended else None,
        suspected=findings.suspected,
        exceedances_to_alarm=evidence.to_alarm if evidence else None,
        detectable_exceedance=detectable,
        nan_elements=int(totals.counts[CountColumn.NAN]),
        infinite_elements=int(totals.counts[CountColumn.INF]),
    )
    return described(point, judged, reference, harm)


def _verdict(
    totals: PointTotals,
    reference: PointProfile,
    evidence: Evidence | None,
    harm: Harm,
    detectable: float | None,
    judging: _Judging,
) -> Verdict:
    if reference.observed_bound is None:
        return Verdict.NO_REFERENCE if totals.rows else Verdict.NO_DATA
    if not totals.units:
        return Verdict.BLIND if judging.looked else Verdict.NO_DATA
    if evidence is not None and evidence.alarm is not None:
        harmless = harm.is_harmful(judging.rules.harm_db) is False and not judging.suffering
        return Verdict.DRIFTED_HARMLESS if harmless else Verdict.DRIFTED_HARMFUL
    if detectable is None or detectable > judging.rules.learning_floor:
        return Verdict.LEARNING
    return Verdict.NOT_DRIFTED


def _badness(point: PointAssessment) -> tuple[int, int, float, float]:
    severity = _SEVERITY.index(point.verdict)
    disquiet = point.suspected or point.nan_elements > 0 or point.infinite_elements > 0
    place = min(severity, _DISQUIET) if disquiet else severity
    change = math.inf if point.sqnr_change_db is None else point.sqnr_change_db
    return place, not disquiet, change, -(point.log10_evidence or 0.0)

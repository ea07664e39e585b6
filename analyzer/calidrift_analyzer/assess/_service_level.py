"""Service levels: does more traffic leave the ranges than is tolerated, in all and by segment.

The alarms of the points ask whether traffic differs from a finite reference. These ask something
simpler, which also has an answer while there is hardly a reference: of the units of a segment, do
more than a share p0 leave the observed bound of any point? See `_tolerance` and `_detector`.

The false alarm probability alpha is shared: half of it for all traffic, half for the segments, of
which the j-th to appear has the share 1 / (j (j+1)): these add up to 1 however many come, and a
segment that appears later does not move the thresholds of those before it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess._detector import detect_changes
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._tolerance import (
    confidence_sequence,
    log_tolerance_evidence,
    reference_tolerance,
    units_to_breach,
)
from calidrift_analyzer.records import Breach, ModelHistory, ServiceLevel

__all__ = ["effective_tolerance", "level_looks", "service_levels"]

_LN10: Final = math.log(10.0)


def service_levels(
    history: ModelHistory, profile: CalibrationProfile | None, rules: AssessRules
) -> tuple[ServiceLevel, ...]:
    """Judge all traffic, then every segment, against the tolerated share.

    Args:
        history: Windows in the order of looks.
        profile: Their profile; without one, or without observed bounds, there is nothing to judge.
        rules: Tolerance and false alarm probability.

    Returns:
        All traffic first (its segment is None), then segments by their upper share, worst first.

    Cost: 0.5 us per window and segment for the evidence, 5 us for the renewable alarm.
    """
    tolerance = effective_tolerance(profile, rules.tolerance)
    if tolerance is None:
        return ()
    levels = [
        _level(stream, history, tolerance, rules)
        for stream in _streams(history, rules.alpha)
        if stream.units.size
    ]
    whole = [level for level in levels if level.segment is None]
    segments = [level for level in levels if level.segment is not None]
    segments.sort(key=lambda level: (level.breach is None, -level.log10_evidence))
    return (*whole, *segments)


def level_looks(
    history: ModelHistory, profile: CalibrationProfile | None, rules: AssessRules
) -> tuple[int, ...]:
    """Name the looks at which service levels spent evidence: largest, breach, renewable alarms."""
    tolerance = effective_tolerance(profile, rules.tolerance)
    found: set[int] = set()
    for stream in () if tolerance is None else _streams(history, rules.alpha):
        if tolerance is None or not stream.units.size:
            continue
        units, outside = np.cumsum(stream.units), np.cumsum(stream.outside)
        evidence = log_tolerance_evidence(outside, units, tolerance)
        changes = detect_changes(
            stream.outside,
            stream.units,
            tolerance=tolerance,
            average_run_length=rules.average_run_length,
        ).alarms
        crossed = np.flatnonzero(evidence >= stream.log_threshold)[:1]
        found |= {int(stream.looks[one]) for one in (evidence.argmax(), *crossed, *changes)}
    return tuple(sorted(found))


def effective_tolerance(profile: CalibrationProfile | None, declared: float) -> float | None:
    """The declared share, or what the reference can promise at best if that is more.

    Traffic in which nothing has changed leaves the bounds of a small reference more often than a
    small tolerance allows: 0.6 % at one point and 512 units, 12 % at 50 points that have nothing
    to do with each other. Alarming about that would be crying wolf.

    That is a law of *random* reference units. Provisional bounds are of selected ones and promise
    nothing, so it is the declared share alone that they are held against: it is all that can alarm
    until a reference is learned.

    Returns:
        The share in force; None where no bound can be left, or no share below 1 is promised.
    """
    bounds = [] if profile is None else [one.observed_bound for one in profile.points.values()]
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    if profile is None or not profile.reference.is_random:
        return declared
    promised = reference_tolerance(
        len(known), max(bound.rank for bound in known), min(bound.units for bound in known)
    )
    found = max(declared, promised)
    return found if found < 1.0 else None


@final
@dataclass(frozen=True, slots=True)
class _Stream:
    """Units of all traffic or of one segment, look by look."""

    segment: str | None
    looks: NDArray[np.int64]
    units: NDArray[np.int64]
    outside: NDArray[np.int64]
    log_threshold: float


def _streams(history: ModelHistory, alpha: float) -> Iterator[_Stream]:
    busy = np.flatnonzero(history.request_units)
    units = history.request_units[busy]
    yield _Stream(None, busy, units, units - history.request_covered[busy], math.log(2 / alpha))
    for place, one in enumerate(history.segments, 1):
        threshold = math.log(2 * place * (place + 1) / alpha)
        yield _Stream(one.name, one.looks, one.units, one.units - one.covered, threshold)


def _level(
    stream: _Stream, history: ModelHistory, tolerance: float, rules: AssessRules
) -> ServiceLevel:
    units, outside = np.cumsum(stream.units), np.cumsum(stream.outside)
    evidence = log_tolerance_evidence(outside, units, tolerance)
    crossed = np.flatnonzero(evidence >= stream.log_threshold)
    breach = None
    if crossed.size:
        first = int(crossed[0])
        end_ns = int(history.end_ns[stream.looks[first]])
        breach = Breach(end_ns, int(units[first]), int(outside[first]))
    changes = detect_changes(
        stream.outside,
        stream.units,
        tolerance=tolerance,
        average_run_length=rules.average_run_length,
    ).alarms
    return ServiceLevel(
        segment=stream.segment,
        units=int(units[-1]),
        outside=int(outside[-1]),
        share=confidence_sequence(int(outside[-1]), int(units[-1])),
        declared=rules.tolerance,
        tolerance=tolerance,
        log10_evidence=max(0.0, float(evidence.max())) / _LN10,
        log10_threshold=stream.log_threshold / _LN10,
        breach=breach,
        changes_ns=tuple(int(history.end_ns[stream.looks[one]]) for one in changes),
        units_to_breach=units_to_breach(min(1.0, 2 * tolerance), tolerance, stream.log_threshold),
    )

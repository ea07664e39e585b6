"""Service levels: does more traffic leave the ranges than is tolerated, in all and by segment.

The alarms of the points ask whether traffic differs from a finite reference. These ask something
simpler, which also has an answer while there is hardly a reference: of the units of a segment, do
more than a share p0 leave the observed bound of any point? See `_tolerance` and `_detector`; which
share is in force is said by `_promise`.

The false alarm probability alpha is shared: half of it for all traffic, half for the segments, of
which the j-th to appear has the share 1 / (j (j+1)): these add up to 1 however many come, and a
segment that appears later does not move the thresholds of those before it. Of each share, half is
for the test and half for what the tolerance in force rests on: that the reference units were
luckier than they may be, or that the share of the segment is taken for more than it is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._state import OVERFLOW_SEGMENT
from calidrift_analyzer.assess._detector import detect_changes
from calidrift_analyzer.assess._promise import Promise, promise_of
from calidrift_analyzer.assess._rules import AssessRules
from calidrift_analyzer.assess._tolerance import (
    confidence_sequence,
    log_tolerance_evidence,
    units_to_breach,
)
from calidrift_analyzer.records import Breach, ModelHistory, SegmentHistory, ServiceLevel

__all__ = [
    "Stream",
    "crossing",
    "level_looks",
    "levels_of",
    "log_evidence_of",
    "service_levels",
    "streams",
]

_LN10: Final = math.log(10.0)
_Counts = NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Units of all traffic or of one segment, look by look.

    Attributes:
        segment: The segment; None for all traffic.
        looks: Rows of the history, (V,).
        units: Units in each of them, (V,).
        outside: Those of them outside the observed bound of some point, (V,).
        tolerance: The share in force at each look, (V,); 1 where nothing can be a breach.
        in_force: The share in force after all that was observed.
        log_threshold: Natural logarithm of the evidence that is a breach.
        log_evidence: Natural logarithm of the evidence at each look, (V,).
        reference_units: Units of the random reference that the tolerance rests on.
    """

    segment: str | None
    looks: _Counts
    units: _Counts
    outside: _Counts
    tolerance: NDArray[np.float64]
    in_force: float
    log_threshold: float
    log_evidence: NDArray[np.float64]
    reference_units: int | None

    @property
    def breach(self) -> int | None:
        """The first place at which the evidence is a breach."""
        return crossing(self.log_evidence, self.log_threshold)


def crossing(log_evidence: NDArray[np.float64], log_threshold: float) -> int | None:
    """Give the first place at which evidence reaches a threshold; `None` where it never does."""
    crossed = np.flatnonzero(log_evidence >= log_threshold)
    return int(crossed[0]) if crossed.size else None


def log_evidence_of(
    outside: _Counts, units: _Counts, tolerance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Natural logarithm of the evidence at each look.

    Args:
        outside: Units outside up to each look, (V,).
        units: Units up to it, (V,).
        tolerance: The share in force at it, (V,).

    Returns:
        The evidence, (V,); 0, which says nothing, where everything is tolerated.
    """
    found = np.zeros(units.shape)
    tested = tolerance < 1.0
    found[tested] = log_tolerance_evidence(outside[tested], units[tested], tolerance[tested])
    return found


def streams(
    history: ModelHistory, profile: CalibrationProfile | None, rules: AssessRules
) -> tuple[Stream, ...]:
    """Hold all traffic, then every segment, against the share that is tolerated of it.

    Args:
        history: Windows in the order of looks.
        profile: Their profile.
        rules: Tolerance and false alarm probability.

    Returns:
        All traffic first, then segments in the order in which they appeared; none without an
        observed bound, or without units.

    Cost: 0.5 us per window and segment; 3 us where the units of the segment in the reference were
    not counted.
    """
    promise = promise_of(profile)
    if promise is None:
        return ()
    return tuple(_streams(history, promise, rules))


def _streams(history: ModelHistory, promise: Promise, rules: AssessRules) -> Iterator[Stream]:
    busy = np.flatnonzero(history.request_units)
    if not busy.size:
        return
    units = history.request_units[busy]
    unlucky = rules.alpha / 4.0
    tolerance = promise.whole(rules.tolerance, unlucky)
    yield _stream(
        (None, busy),
        units,
        units - history.request_covered[busy],
        np.full(units.size + 1, tolerance),
        # A declared share does not rest on the luck of a reference.
        math.log((4.0 if promise.is_random else 2.0) / rules.alpha),
        promise.units if promise.is_random else None,
    )
    so_far = np.cumsum(history.request_units)
    for place, one in enumerate(history.segments, 1):
        share = rules.alpha / (4.0 * place * (place + 1))
        counted = _counted(one, promise)
        yield _stream(
            (one.name, one.looks),
            one.units,
            one.units - one.covered,
            _tolerances(one, counted, promise, rules, (unlucky, share), so_far),
            math.log(1.0 / share),
            counted,
        )


def _counted(segment: SegmentHistory, promise: Promise) -> int | None:
    """Units of the segment in the reference; None where they are not known, or promise nothing.

    A segment that the reference hardly knows is new, or was not named then: what all traffic is
    promised says more about it. Which names are counted together as others differs by process and
    by time, so those of the reference are not the same traffic as those of now.
    """
    known = None if segment.name == OVERFLOW_SEGMENT else segment.reference_units
    return known if promise.is_random and known is not None and known > promise.blocks else None


def _tolerances(
    segment: SegmentHistory,
    counted: int | None,
    promise: Promise,
    rules: AssessRules,
    alphas: tuple[float, float],
    so_far: _Counts,
) -> NDArray[np.float64]:
    """The share that is tolerated of a segment, at each of its looks and after the last look."""
    if counted is not None:
        found = promise.segment(rules.tolerance, alphas[1], counted)
        return np.full(segment.units.size + 1, found)
    units = np.cumsum(segment.units)
    return promise.unknown_segment(
        rules.tolerance,
        alphas,
        np.append(units, units[-1]),
        np.append(so_far[segment.looks], so_far[-1]),
    )


def _stream(
    whose: tuple[str | None, _Counts],
    units: _Counts,
    outside: _Counts,
    tolerance: NDArray[np.float64],
    log_threshold: float,
    reference_units: int | None,
) -> Stream:
    """Look at one stream; `tolerance` has one share more than looks: the one in force now."""
    at, now = tolerance[:-1], float(tolerance[-1])
    evidence = log_evidence_of(np.cumsum(outside), np.cumsum(units), at)
    return Stream(*whose, units, outside, at, now, log_threshold, evidence, reference_units)


def service_levels(
    history: ModelHistory, profile: CalibrationProfile | None, rules: AssessRules
) -> tuple[ServiceLevel, ...]:
    """Judge all traffic, then every segment, against the tolerated share; see `streams`.

    Returns:
        All traffic first (its segment is None), then segments by their evidence, worst first.
    """
    return levels_of(streams(history, profile, rules), history, rules)


def levels_of(
    found: Sequence[Stream], history: ModelHistory, rules: AssessRules
) -> tuple[ServiceLevel, ...]:
    """Say of each stream whether more of it leaves the ranges than is tolerated.

    Args:
        found: What `streams` gave.
        history: The same windows.
        rules: The same rules.

    Returns:
        As `service_levels`.

    Cost: 5 us per window and segment for the renewable alarm.
    """
    levels = [_level(stream, history, rules) for stream in found]
    whole = [level for level in levels if level.segment is None]
    segments = [level for level in levels if level.segment is not None]
    segments.sort(key=lambda level: (level.breach is None, -level.log10_evidence))
    return (*whole, *segments)


def level_looks(found: Sequence[Stream], rules: AssessRules) -> tuple[int, ...]:
    """Name the looks at which service levels spent evidence: largest, breach, renewable alarms."""
    spent: set[int] = set()
    for stream in found:
        places = [int(stream.log_evidence.argmax()), *_changes(stream, rules)]
        if stream.breach is not None:
            places.append(stream.breach)
        spent |= {int(stream.looks[place]) for place in places}
    return tuple(sorted(spent))


def _level(stream: Stream, history: ModelHistory, rules: AssessRules) -> ServiceLevel:
    units, outside = np.cumsum(stream.units), np.cumsum(stream.outside)
    breach = None
    if (first := stream.breach) is not None:
        end_ns = int(history.end_ns[stream.looks[first]])
        breach = Breach(end_ns, int(units[first]), int(outside[first]))
    return ServiceLevel(
        segment=stream.segment,
        units=int(units[-1]),
        outside=int(outside[-1]),
        share=confidence_sequence(int(outside[-1]), int(units[-1])),
        declared=rules.tolerance,
        tolerance=stream.in_force,
        log10_evidence=max(0.0, float(stream.log_evidence.max())) / _LN10,
        log10_threshold=stream.log_threshold / _LN10,
        breach=breach,
        changes_ns=tuple(int(history.end_ns[stream.looks[one]]) for one in _changes(stream, rules)),
        units_to_breach=units_to_breach(
            min(1.0, 2 * stream.in_force), stream.in_force, stream.log_threshold
        ),
        reference_units=stream.reference_units,
    )


def _changes(stream: Stream, rules: AssessRules) -> tuple[int, ...]:
    """Places at which the renewable alarm is raised, at the share that is in force now."""
    if stream.in_force >= 1.0:
        return ()
    return detect_changes(
        stream.outside,
        stream.units,
        tolerance=stream.in_force,
        average_run_length=rules.average_run_length,
    ).alarms

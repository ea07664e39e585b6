"""What Calidrift alarms on, each kind by itself: points, all traffic, segments, measured harm.

The alarms are raised by the code that raises them in production, on what the store would hold. The
more often evidence is looked at, the more false alarms there could be; so a window ends after every
unit that leaves a range and every answer that differs, where that makes the share so far more than
is tolerated (below that no evidence is above 1), and after 50 requests at the latest. What a
segment is held against depends on whether its units in the reference were counted (a reference
learned from production) or not (a calibration set); both are told.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from streams import POINTS, SHARES, Stream

from calidrift_agent import CalibrationProfile, PointProfile
from calidrift_agent._profile import Fingerprint, ObservedBound
from calidrift_agent._sketch import CELLS
from calidrift_agent._state import empty_values
from calidrift_agent._vocabulary import COUNT_COLUMNS, REQUEST_COLUMNS, CountColumn, Instrument
from calidrift_agent._vocabulary import RequestColumn as Requests
from calidrift_analyzer.assess import AssessRules, assess, log_evidence
from calidrift_analyzer.assess._measured_harm import measured_harm
from calidrift_analyzer.assess._service_level import Stream as Level
from calidrift_analyzer.assess._service_level import streams as levels_of
from calidrift_analyzer.records import (
    ComparedHistory,
    ModelHistory,
    ModelTotals,
    PointTotals,
    SegmentHistory,
)

__all__ = [
    "KINDS",
    "RULES",
    "UNCOUNTED",
    "Alarms",
    "alarms_of",
    "assessed",
    "exceedances",
    "profile_of",
]

RULES = AssessRules()
UNCOUNTED = "segments, not counted"
KINDS = ("points", "all traffic", "segments", UNCOUNTED, "harm")
LONGEST = 50
"""Requests of a window at most."""
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Alarms:
    """Request (from 1) by which each kind first alarmed; None where it never did.

    Attributes:
        first: By kind.
        segments: Units of each segment by which it alarmed, where its reference was counted.
    """

    first: dict[str, int | None]
    segments: dict[int, int | None]

    @property
    def any(self) -> int | None:
        """The first of them all."""
        return min((one for one in self.first.values() if one is not None), default=None)

    def without(self, kind: str) -> "Alarms":
        """Give the same without one kind."""
        kept = {name: moment for name, moment in self.first.items() if name != kind}
        return Alarms(kept, self.segments)


def exceedances(stream: Stream) -> tuple[Whole, Whole, Whole, Whole]:
    """Every exceedance: its request, its point, and the counts (S, t) of that point then."""
    bound = stream.reference.max(axis=0)
    counted = np.flatnonzero(stream.units)
    places, points = np.nonzero(stream.maxima[counted] > bound)
    order = np.argsort(points, kind="stable")
    places, points = places[order], points[order]
    first = np.searchsorted(points, points)  # points ascend: how many came before this one
    return counted[places] + 1, points, np.arange(points.size) - first + 1, places + 1


def alarms_of(stream: Stream, profile: CalibrationProfile | None = None) -> Alarms:
    """Let every kind look at a stream.

    Args:
        stream: The stream.
        profile: Of the size of its reference; where left out, of as many points as all have.
    """
    profile = profile_of(POINTS, len(stream.reference)) if profile is None else profile
    found = exceedances(stream)
    history = _history(stream, found, tolerance_of(len(profile.points), profile.units))
    whole, *segments = levels_of(history, profile, RULES)
    blank = tuple(replace(one, reference_units=None) for one in history.segments)
    _, *uncounted = levels_of(replace(history, segments=blank), profile, RULES)
    return Alarms(
        first={
            "points": _of_points(found, profile),
            "all traffic": _moment(np.flatnonzero(stream.units), _breach(whole)),
            "segments": _first_of(stream, segments),
            UNCOUNTED: _first_of(stream, uncounted),
            "harm": _of_harm(stream, history),
        },
        segments={int(level.segment or -1): _breach(level) for level in segments},
    )


def assessed(stream: Stream) -> Alarms:
    """Let the whole assessment look at the same windows, to check the parts above; slow."""
    profile = profile_of(POINTS, len(stream.reference))
    tolerance = tolerance_of(POINTS, len(stream.reference))
    history = _history(stream, exceedances(stream), tolerance, points=True)
    found = assess(_totals(history, profile), history, profile, RULES)
    units = np.flatnonzero(stream.units)
    breaches = {
        one.segment: None if one.breach is None else one.breach.units
        for one in found.service_levels
    }
    segments = {int(name): count for name, count in breaches.items() if name is not None}
    moments = (_moment(_units_of(stream, name), count) for name, count in segments.items())
    harm = None if found.harm is None else found.harm.breach
    return Alarms(
        first={
            "points": None if found.alarm is None else _moment(units, found.alarm.observed),
            "all traffic": _moment(units, breaches[None]),
            "segments": min((one for one in moments if one is not None), default=None),
            "harm": None if harm is None else _moment(np.flatnonzero(stream.compared), harm.units),
        },
        segments=segments,
    )


@cache
def profile_of(points: int, units: int) -> CalibrationProfile:
    """A profile with so many points, whose bounds are the largest of so many random units."""
    bound = ObservedBound(1.0, 1, units, (1.0,))
    return CalibrationProfile(
        points={name: PointProfile(name, observed_bound=bound) for name in _names(points)},
        units=units,
        instrument=Instrument.RANGE,
        fingerprint=Fingerprint(),
        created="2030-01-01T00:00:00+00:00",
    )


@cache
def tolerance_of(points: int, units: int) -> float:
    """The share that is tolerated of all traffic; never more than that of a segment."""
    one = np.ones(1, np.int64)
    blank = np.zeros((1, 0), np.int64)
    history = ModelHistory("net", "", (), one, one, one, one, blank, blank)
    return float(levels_of(history, profile_of(points, units), RULES)[0].tolerance[-1])


def _names(points: int) -> tuple[str, ...]:
    return tuple(f"point{number:02}:input" for number in range(points))


def _of_points(found: tuple[Whole, Whole, Whole, Whole], profile: CalibrationProfile) -> int | None:
    """Finite-calibration evidence, joint over points: E >= L / alpha."""
    requests, _, above, units = found
    if not requests.size:
        return None
    evidence = log_evidence(above, units, rank=1, reference_units=profile.units)
    crossed = requests[evidence >= math.log(len(profile.points) / RULES.alpha)]
    return int(crossed.min()) if crossed.size else None


def _of_harm(stream: Stream, history: ModelHistory) -> int | None:
    found = measured_harm(history, RULES)
    if found is None or found.breach is None:
        return None
    return _moment(np.flatnonzero(stream.compared), found.breach.units)


def _first_of(stream: Stream, levels: list[Level]) -> int | None:
    """Request by which the first of some segments alarmed."""
    found = (_moment(_units_of(stream, int(one.segment or -1)), _breach(one)) for one in levels)
    return min((one for one in found if one is not None), default=None)


def _breach(level: Level) -> int | None:
    """Units up to the breach."""
    return None if level.breach is None else int(level.units[: level.breach + 1].sum())


def _units_of(stream: Stream, segment: int) -> Whole:
    return np.flatnonzero(stream.units & (stream.segments == segment))


def _moment(requests: Whole, count: int | None) -> int | None:
    """Request (from 1) by which so many of these had come."""
    return None if count is None else int(requests[count - 1]) + 1


def _rising(counted: NDArray[np.bool_], happened: NDArray[np.bool_], tolerance: float) -> Whole:
    """Requests at which it happened, and with which it has happened more often than tolerated."""
    among = np.flatnonzero(counted)
    at = np.flatnonzero(happened[among])
    return among[at[np.arange(1, at.size + 1) > tolerance * (at + 1)]]


def _history(
    stream: Stream,
    found: tuple[Whole, Whole, Whole, Whole],
    tolerance: float,
    *,
    points: bool = False,
) -> ModelHistory:
    """What the store would hold.

    Args:
        stream: The stream.
        found: Every exceedance.
        tolerance: Share of units that may leave the ranges.
        points: Whether points have columns; then a window ends after each exceedance.
    """
    requests, column, _, _ = found
    units = np.flatnonzero(stream.units)
    left = np.zeros(stream.units.size, np.bool_)
    left[requests - 1] = True
    ends = left | stream.differing if points else np.zeros(left.size, np.bool_)
    ends[_rising(stream.compared, stream.differing, RULES.harm_tolerance)] = True
    ends[_rising(stream.units, left, tolerance)] = True
    for segment in range(len(SHARES)):
        mine = stream.units & (stream.segments == segment)
        ends[_rising(mine, left, tolerance)] = True
    ends[LONGEST - 1 :: LONGEST] = ends[-1] = True
    looks = np.flatnonzero(ends)
    row = np.searchsorted(looks, np.arange(ends.size))
    count = np.bincount(row[units], minlength=looks.size)
    exceeding = np.zeros((looks.size, POINTS if points else 0), np.int64)
    if points:
        np.add.at(exceeding, (row[requests - 1], column), 1)
    return ModelHistory(
        model="net",
        profile="",
        points=_names(exceeding.shape[1]),
        end_ns=(looks + 1) * 10**9,
        seen=np.diff(looks + 1, prepend=0),
        request_units=count,
        request_covered=count - np.bincount(row[left], minlength=looks.size),
        units=np.repeat(count[:, None], exceeding.shape[1], axis=1),
        exceedances=exceeding,
        segments=tuple(_segments(stream, row, left)),
        compared=_compared(stream, row),
    )


def _segments(stream: Stream, row: Whole, left: NDArray[np.bool_]) -> Iterator[SegmentHistory]:
    """Segments in the order in which they first appeared."""
    appeared, first = np.unique(stream.segments[stream.units], return_index=True)
    for segment in appeared[np.argsort(first)]:
        mine = stream.units & (stream.segments == segment)
        count = np.bincount(row[mine], minlength=row[-1] + 1)
        outside = np.bincount(row[mine & left], minlength=row[-1] + 1)
        looks = np.flatnonzero(count)
        counted = int(stream.reference_segments[segment])
        covered = (count - outside)[looks]
        yield SegmentHistory(str(segment), looks, count[looks], covered, counted)


def _compared(stream: Stream, row: Whole) -> ComparedHistory | None:
    if not stream.compared.any():
        return None
    count = np.bincount(row[stream.compared], minlength=row[-1] + 1)
    differing = np.bincount(row[stream.compared & stream.differing], minlength=row[-1] + 1)
    looks = np.flatnonzero(count)
    agreed = (count - differing)[looks]
    return ComparedHistory(looks, count[looks], count[looks], agreed, np.zeros_like(looks))


def _totals(history: ModelHistory, profile: CalibrationProfile) -> ModelTotals:
    requests = np.zeros(REQUEST_COLUMNS, np.int64)
    requests[Requests.SEEN] = requests[Requests.SAMPLED] = history.seen.sum()
    requests[Requests.OBSERVED] = requests[Requests.UNITS] = history.request_units.sum()
    requests[Requests.UNITS_COVERED] = history.request_covered.sum()
    points = []
    for column, name in enumerate(history.points):
        counts = np.zeros(COUNT_COLUMNS, np.int64)
        counts[CountColumn.UNITS] = counts[CountColumn.ROWS] = history.units[:, column].sum()
        counts[CountColumn.EXCEEDANCES] = history.exceedances[:, column].sum()
        points.append(PointTotals(name, counts, empty_values(1)[0], np.zeros(CELLS, np.int64)))
    return ModelTotals(
        model="net",
        profile=profile.digest,
        instrument=profile.instrument,
        points=tuple(points),
        requests=requests,
        last_ns=int(history.end_ns[-1]),
    )

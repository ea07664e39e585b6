"""Runs the evidence of every point along the history of a model."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import ObservedBound
from calidrift_analyzer.assess._evidence import exceedances_to_alarm, log_evidence
from calidrift_analyzer.assess._tolerance import confidence_sequence
from calidrift_analyzer.records import Alarm, ModelHistory

__all__ = ["Ended", "Evidence", "evidence_of"]

_LN10 = math.log(10.0)
_Looks = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """A drift that is over, as far as the looks since its evidence was largest tell.

    Attributes:
        since_ns: End of the look at which the evidence was largest, UTC nanoseconds.
        units: Units observed after it.
        exceedances: Those of them above the bound.
    """

    since_ns: int
    units: int
    exceedances: int


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """What the looks at one point come to.

    Attributes:
        log10_largest: Largest log10 e-value over all looks.
        alarm: The first look that crossed the threshold.
        log10_latest: log10 e-value at the last look.
        to_alarm: Further exceedances in a row that would cross it; `None` after an alarm, or
            where none can.
        ended: Whether what alarmed is over; a description, no alarm is made or unmade of it.
        begun: Row of the look after which the drift is said to have begun; -1 where the evidence
            rose from the first look on, `None` without an alarm.
    """

    log10_largest: float
    alarm: Alarm | None
    log10_latest: float
    to_alarm: int | None
    ended: Ended | None = None
    begun: int | None = None


def evidence_of(
    history: ModelHistory, point: str, bound: ObservedBound, log_threshold: float
) -> Evidence:
    """Look at one point after each window.

    The result only grows when windows are appended: a crossing is never taken back.

    Args:
        history: Windows in the order of looks.
        point: Name of the point.
        bound: Its observed bound, with k and n.
        log_threshold: Natural logarithm of the joint threshold.
    """
    column = history.points.index(point)
    units = np.cumsum(history.units[:, column])
    exceedances = np.cumsum(history.exceedances[:, column])
    looks = log_evidence(exceedances, units, rank=bound.rank, reference_units=bound.units)
    largest = max(0.0, float(looks.max(initial=0.0)))  # before the first look the evidence is 1
    crossed = np.flatnonzero(looks >= log_threshold)
    latest = float(looks[-1]) if looks.size else 0.0
    if not crossed.size:
        to_alarm = exceedances_to_alarm(
            int(exceedances[-1]) if looks.size else 0,
            int(units[-1]) if looks.size else 0,
            rank=bound.rank,
            reference_units=bound.units,
            log_threshold=log_threshold,
        )
        return Evidence(largest / _LN10, None, latest / _LN10, to_alarm)
    first = int(crossed[0])
    before = looks[: first + 1]
    lowest = int(before.argmin())
    # The evidence starts at 1, before the first window.
    since_ns = int(history.end_ns[lowest]) if before[lowest] < 0.0 else 0
    return Evidence(
        largest / _LN10,
        Alarm(
            end_ns=int(history.end_ns[first]),
            since_ns=since_ns,
            units=int(units[first]),
            exceedances=int(exceedances[first]),
            observed=int(history.request_units[: first + 1].sum()),
            served=int(history.seen[: first + 1].sum()),
        ),
        latest / _LN10,
        None,
        _ended(history, (units, exceedances), looks, lowest if since_ns else None, bound),
        lowest if before[lowest] < 0.0 else -1,
    )


def _ended(
    history: ModelHistory,
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    looks: _Looks,
    begun: int | None,
    bound: ObservedBound,
) -> Ended | None:
    """Whether units stay inside again since the evidence was largest.

    They do where evidence taken afresh from there speaks for the reference, and where bounds of
    their share (95 %) stay below half of that while the drift lasted. A moment that was looked for
    in the same data promises nothing; it is told, and the alarm stays.
    """
    units, exceedances = counts
    peak = int(looks.argmax())
    since, above = int(units[-1] - units[peak]), int(exceedances[-1] - exceedances[peak])
    found = confidence_sequence(above, since)
    if found is None:
        return None
    before = (0, 0) if begun is None else (int(units[begun]), int(exceedances[begun]))
    drifted = (int(exceedances[peak]) - before[1]) / max(1, int(units[peak]) - before[0])
    afresh = float(log_evidence(above, since, rank=bound.rank, reference_units=bound.units))
    if afresh >= 0.0 or found.high >= drifted / 2.0:
        return None
    return Ended(int(history.end_ns[peak]), since, above)

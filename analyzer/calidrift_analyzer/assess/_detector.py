"""An alarm that can be raised again and again: an e-detector of the Shiryaev-Roberts kind.

The tolerance alarm (`_tolerance`) promises that a service in order is *never* called broken, with
probability 1 - alpha, and therefore latches. After it was dealt with, or where a year of traffic
must not wear it out, another promise is wanted: false alarms come once in A windows on average.

For each of some alternatives p_j > p0, let L_j(w) be the likelihood ratio of window w, a function
of its counts (S, t) with conditional mean at most 1 under the null (see `_tolerance`). Then

    M(w) = sum over j of weight_j M_j(w),    M_j(w) = (M_j(w-1) + 1) L_j(w),    M_j(0) = 0

sums one test that was started at each window. M(w) - w is a supermartingale under the null, so the
mean number of windows until M first reaches A is at least A, whatever the units depend on (optional
stopping). After an alarm it starts anew. The alternatives are p0 · 2^i, up to 1, equally weighted.

Source: Shin, Ramdas and Rinaldo, "E-detectors", New England J. Stat. Data Sci. 2024.

Worked numbers, p0 = 1 %, windows of 10 units, A = 10,000: exceedances that come evenly are found
after 195 windows at a share of 2 %, 24 at 5 % and 3 at 20 %. At A = 100 and a true share of exactly
1 %, 300 simulated runs lasted 344 windows on average.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Detection", "detect_changes"]

_LARGEST: Final = 0.999
"""Highest alternative: at 1 a single unit inside would make the evidence 0 for ever."""


@final
@dataclass(frozen=True, slots=True)
class Detection:
    """One run of the detector over windows.

    Attributes:
        alarms: Windows at which it alarmed, ascending; after each it started anew.
        log_level: ln M after each window, -inf for 0.
    """

    alarms: tuple[int, ...]
    log_level: NDArray[np.float64]


def detect_changes(
    exceedances: ArrayLike,
    units: ArrayLike,
    *,
    tolerance: float,
    average_run_length: float,
) -> Detection:
    """Run the detector along windows, restarting it after each alarm.

    Guarantee: as long as every unit exceeds with a chance of at most `tolerance` given those
    before it, the mean number of windows to an alarm is at least `average_run_length`. Windows
    without units count as windows; leave them out where traffic pauses.

    Args:
        exceedances: S of each window, shape (W,).
        units: t of each window, shape (W,).
        tolerance: p0, in (0, 1).
        average_run_length: A, in windows, at least 1.

    Returns:
        Alarms and levels.

    Raises:
        ValueError: The counts are not possible, or an argument is out of its range.

    Cost: 5 us per window.

    Example:
        >>> calm, drift = [0] * 50, [1] * 10
        >>> detect_changes(calm + drift, [10] * 60, tolerance=0.01, average_run_length=1e4).alarms
        (56,)
    """
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance is {tolerance}, but must be a share above 0 and below 1")
    if average_run_length < 1.0:
        raise ValueError(
            f"average_run_length is {average_run_length}, but is a number of windows, at least 1"
        )
    above = np.asarray(exceedances, dtype=np.float64)
    inside = np.asarray(units, dtype=np.float64) - above
    if bool((above < 0).any()) or bool((inside < 0).any()):
        raise ValueError("exceedances must lie between 0 and units; the counts are damaged")
    rates = _alternatives(tolerance)
    ratios = np.outer(above, np.log(rates / tolerance)) + np.outer(
        inside, np.log1p(-rates) - math.log1p(-tolerance)
    )
    limit, weight = math.log(average_run_length), -math.log(len(rates))
    started = np.full(len(rates), -np.inf)
    current, alarms = started, []
    levels = np.empty(above.size)
    for window, ratio in enumerate(ratios):
        current = np.logaddexp(current, 0.0) + ratio
        levels[window] = level = float(np.logaddexp.reduce(current)) + weight
        if level >= limit:
            alarms.append(window)
            current = started
    return Detection(tuple(alarms), levels)


def _alternatives(tolerance: float) -> NDArray[np.float64]:
    steps = math.floor(math.log2(_LARGEST / tolerance))
    rates = tolerance * 2.0 ** np.arange(1, steps + 1)
    return np.asarray(np.unique(np.append(rates[rates < _LARGEST], _LARGEST)), np.float64)

"""Value intervals of cells, and quantiles interpolated inside them."""

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch._grid import HALF, OVERFLOW, UNDERFLOW, bucket_bounds

FINITE: int = OVERFLOW + 1
"""Leading cells of a half that hold finite values: zero, underflow, buckets, overflow."""
LARGEST_FLOAT32: float = float(np.finfo(np.float32).max)

_BOUNDS = bucket_bounds()
_LOWER = np.concatenate(([0.0, 0.0], _BOUNDS))
_UPPER = np.concatenate(([0.0], _BOUNDS, [LARGEST_FLOAT32]))


def magnitude_bounds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper magnitude of the 643 finite cells of a half, ascending.

    Returns:
        Two new float64 arrays of shape (643,). Entry 0 is the zero cell (0, 0), entry 1 the
        underflow (0, 2**-24], entries 2 ... 641 the buckets, entry 642 the overflow (2**16, largest
        float32].
    """
    return _LOWER.copy(), _UPPER.copy()


def quantile_of(
    counts: NDArray[np.int64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    q: float,
) -> float:
    """Quantile of counted intervals, ascending and disjoint, at rank `q * (total - 1)`.

    Inside an interval values are taken as log-uniform (density proportional to 1 / x); an interval
    that touches zero is taken as uniform.

    Args:
        counts: int64 (n,), at least one positive.
        lower: float64 (n,), lower end of every interval.
        upper: float64 (n,), upper end; both ends have the same sign or one is zero.
        q: 0 ... 1.
    """
    occupied = np.flatnonzero(counts)
    cumulative = np.cumsum(counts[occupied])
    # Centres of ranks, so that q and 1 - q mirror each other and one value sits mid-interval.
    rank = q * (int(cumulative[-1]) - 1) + 0.5
    place = int(np.searchsorted(cumulative, rank, side="left"))
    cell = int(occupied[place])
    before = int(cumulative[place]) - int(counts[cell])
    return _inside(float(lower[cell]), float(upper[cell]), (rank - before) / int(counts[cell]))


def _inside(low: float, high: float, fraction: float) -> float:
    if low == high:
        return low
    if low * high <= 0.0:
        return low + (high - low) * fraction
    return low * float((high / low) ** fraction)


def signed_intervals(
    cells: NDArray[np.int64], minimum: float, maximum: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Counts and value intervals of all finite cells in ascending order of value.

    The zero cells of both signs are one entry. Intervals are cut at the exact extremes.

    Returns:
        counts (1285,), lower (1285,), upper (1285,): 642 negative entries, zero, 642 positive ones.
    """
    negative = cells[HALF + UNDERFLOW : HALF + FINITE][::-1]
    zeros = cells[:1] + cells[HALF : HALF + 1]
    counts = np.concatenate((negative, zeros, cells[UNDERFLOW:FINITE]))
    lower = np.concatenate((-_UPPER[:0:-1], _LOWER))
    upper = np.concatenate((-_LOWER[:0:-1], _UPPER))
    return counts, np.clip(lower, minimum, maximum), np.clip(upper, minimum, maximum)


def magnitude_intervals(
    cells: NDArray[np.int64], smallest: float, absmax: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Counts and magnitude intervals of the 643 finite cells of |x|, cut at its extremes."""
    counts = cells[:FINITE] + cells[HALF : HALF + FINITE]
    return counts, np.clip(_LOWER, smallest, absmax), np.clip(_UPPER, smallest, absmax)


def occupied_extremes(cells: NDArray[np.int64]) -> tuple[float, float]:
    """Interval that certainly contains every finite value counted in `cells`.

    Returns:
        (lowest, highest) as outer ends of the outermost occupied cells; (inf, -inf) where none.
    """
    counts, lower, upper = signed_intervals(cells, -np.inf, np.inf)
    occupied = np.flatnonzero(counts)
    if occupied.size == 0:
        return np.inf, -np.inf
    return float(lower[occupied[0]]), float(upper[occupied[-1]])


def inner_extremes(cells: NDArray[np.int64]) -> tuple[float, float]:
    """The narrowest extremes that `cells` allow.

    Returns:
        (highest possible minimum, lowest possible maximum); (inf, -inf) where no cell is occupied.
    """
    counts, lower, upper = signed_intervals(cells, -np.inf, np.inf)
    occupied = np.flatnonzero(counts)
    if occupied.size == 0:
        return np.inf, -np.inf
    return float(upper[occupied[0]]), float(lower[occupied[-1]])

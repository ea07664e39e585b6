"""How much clipped energy each request would remove at each point."""

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.ranges import Mass, excess_energy, overload, signed_mass

__all__ = ["benefit_at", "benefits"]

_Floats = NDArray[np.float64]


def benefits(
    maxima: NDArray[np.float32], bounds: _Floats, sketches: tuple[MagnitudeSketch, ...]
) -> _Floats:
    """phi(m) = O(c) - O(max(m, c)) for every request and point; see `benefit_at`.

    Args:
        maxima: (N, P), finite.
        bounds: (P,), NaN where a point has none: its benefits are 0.
        sketches: P sketches.

    Returns:
        float64 (N, P), entries 0 ... 1, never falling in the maximum.
    """
    result = np.zeros(maxima.shape, dtype=np.float64)
    for place, (bound, sketch) in enumerate(zip(bounds.tolist(), sketches, strict=True)):
        if not np.isnan(bound):
            column = maxima[:, place].astype(np.float64)
            result[:, place] = benefit_at(column, bound, sketch)
    return result


def benefit_at(maxima: _Floats, bound: float, sketch: MagnitudeSketch) -> _Floats:
    """Share of a point's energy that is clipped at `bound` and no longer at max(maximum, bound).

    O(c), the energy beyond c over all energy, comes from the sketch. A sketch samples elements and
    may have missed the few that exceed the bound, while the captured maxima are exact: the energy
    beyond c is at least the sum of (m - c)**2 over the requests. The larger of the two counts.

    Args:
        maxima: (N,), finite.
        bound: The bound c, at least 0; +inf gives 0.
        sketch: Production values of the point.

    Returns:
        float64 (N,), 0 where a maximum is within the bound.
    """
    exceeding = np.sort(maxima[maxima > bound])
    if exceeding.size == 0:
        return np.zeros(maxima.shape, dtype=np.float64)
    widened = np.append(np.maximum(maxima, bound), bound)
    captured = Mass.of(exceeding, exceeding, np.ones_like(exceeding))
    counted = signed_mass(sketch).energy if sketch.count else 0.0
    left = excess_energy(captured, widened) / max(counted, captured.energy)
    if counted:
        left = np.maximum(left, overload(sketch, widened))
    return np.asarray(np.maximum(left[-1] - left[:-1], 0.0), dtype=np.float64)

"""Exact-integral quantization error of piecewise-uniform mass.

For a grid with step D and K positive codes (clip c = K D), r = min(x, c) / D and
k = min(floor(r + 1/2), K), the integral of the squared error from 0 to x is

    G(x) = D**3 (k / 12 + (r - k)**3 / 3) + max(x - c, 0)**3 / 3

so the mean squared error of values uniform in [l, u] is (G(u) - G(l)) / (u - l), exactly: with 2
bits as with 8, near zero and beyond the clip, where the rule D**2 / 12 is wrong. The first term is
the granular error (rounding), the second the overload (clipping). An affine grid always contains 0,
so its error is G over the positive values with `qmax - zero_point` codes plus G over the magnitudes
of the negative values with `zero_point - qmin` codes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calidrift_analyzer.ranges._mass import Mass, SignedMass

__all__ = ["cumulative_error", "error_sums", "granular_integral"]

_Floats = NDArray[np.float64]


def granular_integral(x: ArrayLike, step: ArrayLike, codes: ArrayLike) -> NDArray[np.float64]:
    """Integral of the squared rounding error from 0 to min(x, step * codes); broadcasts."""
    magnitude, width, count = (np.asarray(a, dtype=np.float64) for a in (x, step, codes))
    ratio = np.minimum(magnitude / width, count)
    code = np.minimum(np.floor(ratio + 0.5), count)
    return np.asarray(width**3 * (code / 12.0 + (ratio - code) ** 3 / 3.0), dtype=np.float64)


def cumulative_error(x: ArrayLike, step: ArrayLike, codes: ArrayLike) -> NDArray[np.float64]:
    """G(x): integral of the squared quantization error from 0 to x.

    Args:
        x: Magnitudes, at least 0.
        step: Step of the grid, above 0.
        codes: Codes on this side of zero (INT8 symmetric: 127; 0 clips everything to 0).

    Returns:
        float64, the broadcast shape of the arguments; in units of x cubed; rises with x.

    Examples:
        >>> float(cumulative_error(1.0, 1 / 127, 127).round(12))
        5.166677e-06
    """
    beyond = np.maximum(np.asarray(x) - np.asarray(step) * np.asarray(codes), 0.0)
    return np.asarray(granular_integral(x, step, codes) + beyond**3 / 3.0, dtype=np.float64)


def _side_sums(mass: Mass, step: _Floats, codes: _Floats) -> tuple[_Floats, _Floats]:
    """Summed granular and overload error of one side for C grids; each (C,)."""
    step, codes = step[:, np.newaxis], codes[:, np.newaxis]
    clip = step * codes
    width = mass.upper - mass.lower
    spread = width > 0
    per_unit = np.divide(mass.count, width, out=np.zeros_like(width), where=spread)
    upper = granular_integral(mass.upper, step, codes)
    granular = ((upper - granular_integral(mass.lower, step, codes)) * per_unit).sum(axis=1)
    above, below = np.maximum(mass.upper - clip, 0.0), np.maximum(mass.lower - clip, 0.0)
    overload = ((above**3 - below**3) / 3.0 * per_unit).sum(axis=1)
    if not spread.all():
        value, count = mass.upper[~spread], mass.count[~spread]
        inside = np.minimum(value, clip)
        rounding = inside - np.minimum(np.floor(inside / step + 0.5), codes) * step
        granular = granular + (rounding**2 * count).sum(axis=1)
        overload = overload + (np.maximum(value - clip, 0.0) ** 2 * count).sum(axis=1)
    return granular, overload


def error_sums(
    mass: SignedMass, step: _Floats, positive_codes: _Floats, negative_codes: _Floats
) -> tuple[_Floats, _Floats]:
    """Summed squared error of all values on C candidate grids.

    Args:
        mass: The values.
        step: (C,), above 0.
        positive_codes: (C,), `qmax - zero_point`.
        negative_codes: (C,), `zero_point - qmin`.

    Returns:
        granular (C,) and overload (C,): sums of squared errors from rounding and from clipping.

    Cost: about 10 numpy passes over C x (occupied intervals); 161 grids x 400 intervals: 2 ms.
    """
    granular, overload = _side_sums(mass.positive, step, positive_codes)
    more_granular, more_overload = _side_sums(mass.negative, step, negative_codes)
    return granular + more_granular, overload + more_overload

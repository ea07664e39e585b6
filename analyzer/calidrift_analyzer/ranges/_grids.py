"""From a range of values to the quantizer that covers it."""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._profile import ClipBound
from calidrift_analyzer.errors import ConfigurationError

__all__ = ["SMALLEST_SCALE", "UINT8", "Codes", "Range", "affine_grids", "grid_of"]

SMALLEST_SCALE: Final = 2.0**-12
"""Smallest scale that torch's observers give an activation quantizer."""


@final
@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a quantizer.

    Attributes:
        qmin: Lowest code.
        qmax: Highest code, above `qmin`.
        dtype: Name of the code's type.
    """

    qmin: int
    qmax: int
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if self.qmin >= self.qmax:
            raise ConfigurationError(
                f"a quantizer needs qmin below qmax, got {self.qmin} and {self.qmax}"
            )


UINT8: Final = Codes(0, 255)
"""The activation quantizer of the x86 INT8 kernels."""


@final
@dataclass(frozen=True, slots=True)
class Range:
    """Values that a quantizer should represent.

    Attributes:
        lo: Lower end, finite.
        hi: Upper end, finite, not below `lo`.
        guarded: The percentile guard replaced the percentile by the MSE-optimal range.
    """

    lo: float
    hi: float
    guarded: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= self.hi):
            raise ConfigurationError(
                f"a range needs finite ends with lo <= hi, got {self.lo} ... {self.hi}"
            )


def grid_of(
    target: Range, codes: Codes = UINT8, *, smallest_scale: float = SMALLEST_SCALE
) -> ClipBound:
    """The affine quantizer that covers a range, by the rule of torch's observers.

    The range is extended to contain 0; `scale = max(width / (qmax - qmin), smallest_scale)` and
    `zero_point = qmin - round(lo / scale)`, kept within the codes. Rounding the zero point shifts
    the range that is really covered by at most half a step against the one asked for.

    Args:
        target: The range to cover.
        codes: The quantizer's codes.
        smallest_scale: Floor of the scale.

    Returns:
        The clip bound of that quantizer.

    Raises:
        ConfigurationError: `smallest_scale` is not above 0.

    Examples:
        >>> bound = grid_of(Range(-1.0, 1.55))
        >>> bound.zero_point, round(bound.scale, 6), round(bound.hi, 6)
        (100, 0.01, 1.55)
    """
    if not smallest_scale > 0:
        raise ConfigurationError(f"the smallest scale must be above 0, got {smallest_scale}")
    lo, hi = min(target.lo, 0.0), max(target.hi, 0.0)
    scale = max((hi - lo) / (codes.qmax - codes.qmin), smallest_scale)
    zero_point = codes.qmin - round(lo / scale)
    zero_point = min(max(zero_point, codes.qmin), codes.qmax)
    return ClipBound.of_quantizer(scale, zero_point, codes.qmin, codes.qmax, codes.dtype)


def affine_grids(
    lo: NDArray[np.float64], hi: NDArray[np.float64], codes: Codes
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Step and codes on either side of zero of many ranges, as `grid_of` without a scale floor.

    Args:
        lo: (C,), at most 0.
        hi: (C,), at least 0, not both 0.
        codes: The quantizer's codes.

    Returns:
        step (C,), positive codes (C,), negative codes (C,).
    """
    steps = codes.qmax - codes.qmin
    step = (hi - lo) / steps
    negative = np.clip(np.round(-lo / step), 0, steps)
    return step, steps - negative, negative

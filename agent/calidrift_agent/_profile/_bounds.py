"""The two bounds of a point: what its quantizer clips to, and what its reference units reached."""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike

from calidrift_agent.errors import ConfigurationError

TOP_LIMIT: Final = 32
"""Most order statistics that a bound keeps."""


@final
@dataclass(frozen=True, slots=True)
class ClipBound:
    """The range of a quantizer: values outside of it are clipped.

    `lo = (qmin - zero_point) * scale` and `hi = (qmax - zero_point) * scale`, computed in float64
    from the quantizer's own numbers (`qmin` and `qmax` of the node, not of the dtype: they differ
    with `reduce_range`).

    Example:
        >>> bound = ClipBound.of_quantizer(0.5, 128, 0, 255, "uint8")
        >>> bound.lo, bound.hi, bound.absmax
        (-64.0, 63.5, 64.0)
    """

    lo: float
    hi: float
    scale: float
    zero_point: int
    dtype: str
    qmin: int
    qmax: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigurationError(
                f"clip bound has scale {self.scale!r}, but a quantizer's scale is a finite number "
                "above 0; read the range again from the model"
            )
        if self.qmin >= self.qmax:
            raise ConfigurationError(
                f"clip bound has qmin {self.qmin} and qmax {self.qmax}, but qmin must be below "
                "qmax; read the range again from the model"
            )
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo < self.hi):
            raise ConfigurationError(
                f"clip bound has the range {self.lo!r} to {self.hi!r}, but it must be finite and "
                "rising; read the range again from the model"
            )

    @classmethod
    def of_quantizer(
        cls, scale: float, zero_point: int, qmin: int, qmax: int, dtype: str
    ) -> "ClipBound":
        """Return the bound of an affine quantizer.

        Args:
            scale: Step between two codes, above 0.
            zero_point: Code of the real value 0.
            qmin: Lowest code.
            qmax: Highest code.
            dtype: Name of the code's type, e.g. ``"uint8"``.

        Raises:
            ConfigurationError: The numbers are not a quantizer's.
        """
        lo, hi = (qmin - zero_point) * scale, (qmax - zero_point) * scale
        return cls(lo, hi, scale, zero_point, dtype, qmin, qmax)

    @property
    def absmax(self) -> float:
        """Largest magnitude that is not clipped on at least one side."""
        return max(abs(self.lo), abs(self.hi))


@final
@dataclass(frozen=True, slots=True)
class ObservedBound:
    """The k-th largest absmax of n random reference units.

    With the largest of n = 300 exchangeable units as the bound (k = 1), a new unit of the same
    traffic exceeds it with probability 1 / 301; with k = 2 with probability 2 / 301.

    A unit that holds a NaN or an infinity is infinitely large, in the reference as in production,
    where it exceeds every bound: the bound is finite all the same, and its rank says how many
    units lie at or above it. The largest finite one of 300 units, 4 of them not finite, has
    rank 5.

    Attributes:
        value: The bound: the `rank`-th largest unit absmax, finite.
        rank: k, counted from 1, the units that are not finite first.
        units: n, all units.
        top: The largest finite unit absmaxes, largest first, at most 32; `value` is one of them.
    """

    value: float
    rank: int
    units: int
    top: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (1 <= self.rank <= self.units and 1 <= len(self.top) <= min(TOP_LIMIT, self.units)):
            raise ConfigurationError(
                f"observed bound has rank {self.rank}, {len(self.top)} order statistics and "
                f"{self.units} units; the rank must be 1 up to the number of units, with 1 to "
                f"{TOP_LIMIT} order statistics"
            )
        if not all(math.isfinite(one) and one >= 0 for one in self.top):
            raise ConfigurationError(
                "observed bound holds an order statistic that is not a finite magnitude; "
                "calibrate again on units with finite activations"
            )
        if any(one < two for one, two in zip(self.top, self.top[1:], strict=False)):
            raise ConfigurationError(
                "the order statistics of an observed bound must be sorted, largest first"
            )
        # Those before the value in `top` are finite; the rest of the rank are not.
        places = [place for place, one in enumerate(self.top, start=1) if one == self.value]
        if not any(0 <= self.rank - place <= self.units - len(self.top) for place in places):
            raise ConfigurationError(
                f"observed bound is {self.value!r}, which is not of rank {self.rank} among its "
                f"{len(self.top)} order statistics and the {self.units - len(self.top)} other "
                "units; calibrate again"
            )

    @classmethod
    def from_absmax(cls, absmax: ArrayLike, *, rank: int = 1) -> "ObservedBound | None":
        """Return the bound of reference units, or None where no unit has a finite absmax.

        Args:
            absmax: Absmax of each unit, any shape, flattened; NaN or infinite for a unit that
                holds a value that is not finite.
            rank: Which of the finite units, 1 (the largest) to 32. With fewer of them the
                smallest is taken. The rank of the bound counts the units above it that are not
                finite too.

        Raises:
            ConfigurationError: `rank` is outside 1 to 32.

        Example:
            >>> ObservedBound.from_absmax([3.0, 1.0, float("nan"), 2.0], rank=2)
            ObservedBound(value=2.0, rank=3, units=4, top=(3.0, 2.0, 1.0))
        """
        if not 1 <= rank <= TOP_LIMIT:
            raise ConfigurationError(
                f"rank is {rank}, but only ranks 1 to {TOP_LIMIT} are kept; choose one of these"
            )
        magnitudes = np.abs(np.asarray(absmax, dtype=np.float64).ravel())
        finite = magnitudes[np.isfinite(magnitudes)]
        if finite.size == 0:
            return None
        kept = min(TOP_LIMIT, finite.size)
        largest = np.partition(finite, finite.size - kept)[finite.size - kept :]
        top = tuple(float(one) for one in np.sort(largest)[::-1])
        place = min(rank, kept)
        above = magnitudes.size - finite.size
        return cls(value=top[place - 1], rank=place + above, units=magnitudes.size, top=top)

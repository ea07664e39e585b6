"""A sketch as piecewise-uniform mass: what every error formula integrates over."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import HALF, OVERFLOW, MagnitudeSketch, magnitude_bounds
from calidrift_analyzer.errors import NoDataError

__all__ = ["Mass", "SignedMass", "magnitude_mass", "require_values", "signed_mass"]

_POINT = 1e-7
"""Intervals narrower than this, relative to their upper end, count as one value: float32 cannot
tell their ends apart, and the difference of two integrals would lose its digits."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Mass:
    """Counts spread uniformly over intervals of magnitude, ascending and disjoint.

    Attributes:
        lower: float64 (n,), lower end of each interval, at least 0.
        upper: float64 (n,), upper end; equal to `lower` where all values are one value.
        count: float64 (n,), elements in the interval, above 0.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    count: NDArray[np.float64]

    @classmethod
    def of(
        cls, lower: NDArray[np.float64], upper: NDArray[np.float64], count: NDArray[np.float64]
    ) -> "Mass":
        """Build from any intervals: empty ones go, hair-thin ones become one value."""
        kept = count > 0
        lower, upper, count = lower[kept], upper[kept], count[kept]
        thin = upper - lower <= _POINT * upper
        return cls(np.where(thin, upper, lower), upper, count)

    @property
    def energy(self) -> float:
        """Sum of squares."""
        squares = self.upper * self.upper + self.upper * self.lower + self.lower * self.lower
        return float((self.count * squares).sum() / 3.0)

    def up_to(self, limit: float) -> "Mass":
        """The part of the mass with magnitude at most `limit`."""
        width = self.upper - self.lower
        inside = np.clip(limit - self.lower, 0.0, width)
        share = np.divide(inside, width, out=(self.lower <= limit) * 1.0, where=width > 0)
        return Mass.of(self.lower, np.minimum(self.upper, limit), self.count * share)

    def beyond(self, limit: float) -> float:
        """Elements with magnitude above `limit`."""
        width = self.upper - self.lower
        above = np.clip(self.upper - limit, 0.0, width)
        share = np.divide(above, width, out=(self.upper > limit) * 1.0, where=width > 0)
        return float((self.count * share).sum())


@final
@dataclass(frozen=True, slots=True, eq=False)
class SignedMass:
    """Positive and negative values as magnitudes, and the zeros between them.

    Attributes:
        positive: Mass of the values above 0.
        negative: Mass of the magnitudes of the values below 0.
        count: Finite elements in total, zeros included.
    """

    positive: Mass
    negative: Mass
    count: int

    @property
    def energy(self) -> float:
        """Sum of squares."""
        return self.positive.energy + self.negative.energy

    def up_to(self, limit: float) -> "SignedMass":
        """The part with magnitude at most `limit`; `count` stays that of the whole."""
        return SignedMass(self.positive.up_to(limit), self.negative.up_to(limit), self.count)


def require_values(sketch: MagnitudeSketch) -> None:
    """Refuse a sketch without a single finite value.

    Raises:
        NoDataError: there is nothing to estimate from.
    """
    if sketch.count == 0:
        raise NoDataError(
            f"the sketch holds no finite value ({sketch.nan_count} NaN, {sketch.inf_count} "
            "infinite), so it has no range: observe traffic at this point first"
        )


def signed_mass(sketch: MagnitudeSketch) -> SignedMass:
    """The finite values of a sketch by sign, outermost intervals cut at the exact extremes.

    Raises:
        NoDataError: the sketch holds no finite value.
    """
    require_values(sketch)
    low, high = sketch.minimum, sketch.maximum
    return SignedMass(
        positive=_half_mass(sketch.cells[:HALF], max(low, 0.0), max(high, 0.0)),
        negative=_half_mass(sketch.cells[HALF:], max(-high, 0.0), max(-low, 0.0)),
        count=sketch.count,
    )


def magnitude_mass(sketch: MagnitudeSketch) -> Mass:
    """|x| of the finite non-zero values, outermost intervals cut at the exact extremes.

    Raises:
        NoDataError: the sketch holds no finite value.
    """
    require_values(sketch)
    smallest = max(sketch.minimum, -sketch.maximum, 0.0)
    return _half_mass(sketch.cells[:HALF] + sketch.cells[HALF:], smallest, sketch.absmax)


def _half_mass(cells: NDArray[np.int64], smallest: float, largest: float) -> Mass:
    lower, upper = magnitude_bounds()
    counts = cells[1 : OVERFLOW + 1].astype(np.float64)
    return Mass.of(
        np.clip(lower[1:], smallest, largest), np.clip(upper[1:], smallest, largest), counts
    )

"""What a quantizer does to the values of a sketch: SQNR, clipping, wasted range."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calidrift_agent._profile import ClipBound
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_analyzer.errors import ConfigurationError
from calidrift_analyzer.ranges._error import error_sums
from calidrift_analyzer.ranges._mass import (
    Mass,
    SignedMass,
    require_values,
    signed_mass,
)

__all__ = ["Prediction", "excess_energy", "over_range_octaves", "overload", "predict"]

_BULK = 0.99
_TAIL = 0.9999


@final
@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted effect of a quantizer; all figures are means over the finite elements.

    Attributes:
        signal: Mean square of the values.
        granular: Mean squared error from rounding.
        overload: Mean squared error from clipping.
        sqnr_db: 10 log10(signal / (granular + overload)); +inf without any error, `None` where all
            values are 0.
        bulk_sqnr_db: The same over the values with |x| <= p99 of |x|: few huge values dominate the
            total, and only a task metric can say whether they matter.
        clip_low_rate: Share of elements below the range.
        clip_high_rate: Share of elements above the range.
        over_range_octaves: log2 of the quantizer's width over the width that holds all but 1e-4 of
            the values on either side: octaves of resolution given away; negative means too narrow;
            `None` where that width is 0.
    """

    signal: float
    granular: float
    overload: float
    sqnr_db: float | None
    bulk_sqnr_db: float | None
    clip_low_rate: float
    clip_high_rate: float
    over_range_octaves: float | None

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.granular + self.overload

    @property
    def clip_rate(self) -> float:
        """Share of elements outside the range."""
        return self.clip_low_rate + self.clip_high_rate

    @property
    def clipped_energy_share(self) -> float:
        """Squared distance to the range over the energy; 0 where all values are 0."""
        return self.overload / self.signal if self.signal > 0 else 0.0


def predict(sketch: MagnitudeSketch, bound: ClipBound) -> Prediction:
    """Predict what a quantizer does to the values of a sketch.

    Exact for values spread uniformly inside each bucket. Against quantizing the raw data, eight
    distributions of a million values: SQNR within 0.1 dB at 8 bits and at 4 bits (source:
    tests/analyzer/ranges/test_prediction.py).

    Args:
        sketch: The values, seen by the same instrument as `bound` is meant for.
        bound: The quantizer.

    Raises:
        ConfigurationError: 0 is not among the quantizer's values.
        NoDataError: the sketch holds no finite value.

    Cost: about 0.5 ms.
    """
    if not bound.qmin <= bound.zero_point <= bound.qmax:
        raise ConfigurationError(
            f"the clip range {bound.lo:g} ... {bound.hi:g} does not contain 0, which every "
            "activation quantizer must represent: read the range again from the model"
        )
    mass = signed_mass(sketch)
    granular, over = _errors(mass, bound)
    signal = mass.energy
    bulk = mass.up_to(sketch.magnitude_quantile(_BULK))
    bulk_error = sum(_errors(bulk, bound))
    total = mass.count
    return Prediction(
        signal=signal / total,
        granular=granular / total,
        overload=over / total,
        sqnr_db=_decibels(signal, granular + over),
        bulk_sqnr_db=_decibels(bulk.energy, bulk_error),
        clip_low_rate=mass.negative.beyond(max(-bound.lo, 0.0)) / total,
        clip_high_rate=mass.positive.beyond(max(bound.hi, 0.0)) / total,
        over_range_octaves=over_range_octaves(sketch, bound),
    )


def over_range_octaves(sketch: MagnitudeSketch, bound: ClipBound) -> float | None:
    """Octaves by which a quantizer's range is wider than what holds all but 1e-4 on either side.

    The needed width is that of [q(0.0001), q(0.9999)], extended to contain 0. One octave costs
    6.02 dB of SQNR.

    Returns:
        log2 of the ratio of widths; negative where the range is too narrow; `None` where the needed
        width is 0.

    Raises:
        NoDataError: the sketch holds no finite value.
    """
    require_values(sketch)
    low = min(sketch.quantile(1 - _TAIL), 0.0)
    high = max(sketch.quantile(_TAIL), 0.0)
    return math.log2((bound.hi - bound.lo) / (high - low)) if high > low else None


def overload(sketch: MagnitudeSketch, clips: ArrayLike) -> NDArray[np.float64]:
    """O(c): energy beyond a symmetric clip c over all energy, for many c at once.

        O(c) = E[max(|x| - c, 0)**2] / E[x**2]

    The share of clip-noise energy that a range c leaves: in the units of 1 / SQNR.

    Args:
        sketch: The values.
        clips: Clips of any shape, at least 0; +inf gives 0.

    Returns:
        float64 of the same shape, falling in c: O(0) = 1, O(absmax) = 0; all 0 where every value
        is 0.

    Raises:
        NoDataError: the sketch holds no finite value.

    Cost: O((cells + clips) log cells); 10,000 clips in about 1 ms.
    """
    mass = signed_mass(sketch)
    clip = np.asarray(clips, dtype=np.float64)
    energy = mass.energy
    if energy == 0.0:
        return np.zeros(clip.shape, dtype=np.float64)
    beyond = excess_energy(mass.positive, clip) + excess_energy(mass.negative, clip)
    return np.asarray(np.clip(beyond / energy, 0.0, 1.0), dtype=np.float64)


def excess_energy(mass: Mass, clips: ArrayLike) -> NDArray[np.float64]:
    """Sum of max(x - c, 0)**2 over the elements of a mass, for many c at once."""
    clip = np.asarray(clips, dtype=np.float64)
    if mass.count.size == 0:
        return np.zeros(clip.shape, dtype=np.float64)
    # Moments of all intervals from each one upward; intervals wholly above c contribute these.
    first = mass.count * (mass.upper + mass.lower) / 2.0
    squares = mass.upper * mass.upper + mass.upper * mass.lower + mass.lower * mass.lower
    tails = [
        np.append(np.cumsum(moment[::-1])[::-1], 0.0)
        for moment in (mass.count, first, mass.count * squares / 3.0)
    ]
    finite = np.minimum(clip, mass.upper[-1])
    place = np.searchsorted(mass.lower, finite, side="right")
    zeroth, linear, square = (tail[place] for tail in tails)
    beyond = square - 2.0 * finite * linear + finite * finite * zeroth
    # The interval that c cuts: `place - 1`, where there is one and c lies inside it.
    cut = np.maximum(place - 1, 0)
    width = mass.upper[cut] - mass.lower[cut]
    inside = (place > 0) & (width > 0)
    excess = np.where(inside, np.maximum(mass.upper[cut] - finite, 0.0), 0.0)
    density = np.divide(mass.count[cut], width, out=np.zeros_like(finite), where=inside)
    beyond = np.maximum(beyond, 0.0) + density * excess**3 / 3.0
    return np.asarray(beyond, dtype=np.float64)


def _errors(mass: SignedMass, bound: ClipBound) -> tuple[float, float]:
    granular, over = error_sums(
        mass,
        np.array([bound.scale]),
        np.array([float(bound.qmax - bound.zero_point)]),
        np.array([float(bound.zero_point - bound.qmin)]),
    )
    return float(granular[0]), float(over[0])


def _decibels(signal: float, error: float) -> float | None:
    if signal <= 0.0:
        return None
    return 10.0 * math.log10(signal / error) if error > 0.0 else math.inf

"""Distances between two sketches of one point.

Explanations only. They say *how* traffic moved, never whether it matters: one value in a thousand
multiplied by 20 costs 18 dB of SQNR and leaves every one of them at its level without drift, and a
fifth of the values set to zero costs nothing and drives all of them over their usual limits. What
decides stands in `_prediction` (predicted SQNR, clipped energy, over-range) and `tail_shift` here.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import HALF, OVERFLOW, UNDERFLOW, MagnitudeSketch
from calidrift_analyzer.ranges._mass import require_values

__all__ = ["Distances", "distances", "tail_shift"]

_PER_OCTAVE: Final = 16
_BINS: Final = 10
_LEAST_SHARE: Final = 1e-4
"""Share that an empty bin of the PSI counts as: the logarithm of 0 would make one value decide."""
_FINITE: Final = OVERFLOW + 1


@final
@dataclass(frozen=True, slots=True)
class Distances:
    """How two distributions of values differ. Explanations: no alarm is made of them.

    Attributes:
        w1_octaves: Wasserstein distance of log2|x|, octaves: how far the magnitudes moved on
            average. Zeros and values below 2^-24 stand at 2^-24. Within 1/16 octave of the distance
            of the values themselves.
        js_bits: Jensen-Shannon divergence of the signed cells, 0 to 1 bit.
        psi: Population stability index over ten bins of equal share in calibration, natural
            logarithm; bins that hold nothing count as 1e-4.
        ks: Largest difference of the distribution functions of the signed values, 0 to 1; low by
            at most the share of the fullest cell.
    """

    w1_octaves: float
    js_bits: float
    psi: float
    ks: float


def distances(calibration: MagnitudeSketch, production: MagnitudeSketch) -> Distances:
    """Compare two sketches of the same point.

    Raises:
        NoDataError: One of them holds no finite value.

    Cost: about 0.1 ms.

    Example:
        >>> sketch = MagnitudeSketch()
        >>> sketch.update(np.linspace(-1, 1, 50, dtype=np.float32))
        >>> distances(sketch, sketch)
        Distances(w1_octaves=0.0, js_bits=0.0, psi=0.0, ks=0.0)
    """
    require_values(calibration)
    require_values(production)
    before, after = _shares(calibration), _shares(production)
    below, above = np.cumsum(before), np.cumsum(after)
    magnitudes = np.abs(np.cumsum(_magnitudes(before) - _magnitudes(after))[:-1])
    return Distances(
        w1_octaves=float(magnitudes.sum()) / _PER_OCTAVE,
        js_bits=_jensen_shannon(before, after),
        psi=_stability(before, below, after),
        ks=float(np.abs(below - above).max()),
    )


def tail_shift(
    calibration: MagnitudeSketch, production: MagnitudeSketch, share: float = 0.999
) -> float | None:
    """Octaves by which a high quantile of |x| moved since calibration.

    Positive: the tail is longer now. Each octave outside a range that was tight costs resolution or
    clips; a decision figure, unlike the distances.

    Args:
        calibration: The values when the range was chosen.
        production: The values now.
        share: Which quantile, in (0, 1).

    Returns:
        log2 of the ratio of quantiles, within 1/16 octave (0.02 measured at p99.99 and a million
        values); None where one of them is 0.

    Raises:
        NoDataError: One sketch holds no finite value.
    """
    require_values(calibration)
    require_values(production)
    before, after = (one.magnitude_quantile(share) for one in (calibration, production))
    return math.log2(after / before) if before > 0.0 and after > 0.0 else None


def _shares(sketch: MagnitudeSketch) -> NDArray[np.float64]:
    """Shares of the 1,285 finite cells, ascending in value: 642 negative, zero, 642 positive."""
    positive, negative = sketch.cells[:HALF], sketch.cells[HALF:]
    zeros = positive[:UNDERFLOW] + negative[:UNDERFLOW]
    counts = np.concatenate(
        (negative[UNDERFLOW:_FINITE][::-1], zeros, positive[UNDERFLOW:_FINITE])
    ).astype(np.float64)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _magnitudes(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of |x| in 642 cells an equal step apart; zeros belong to the lowest."""
    middle = shares.size // 2
    found = shares[middle + 1 :] + shares[:middle][::-1]
    found[0] += shares[middle]
    return found


def _jensen_shannon(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    middle = (before + after) / 2.0
    terms = _relative(before, middle) + _relative(after, middle)
    return min(max(float(terms.sum()) / 2.0, 0.0), 1.0)


def _relative(shares: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    held = shares > 0.0
    ratio = np.divide(shares, middle, out=np.ones_like(shares), where=held)
    return np.asarray(shares * np.log2(ratio), dtype=np.float64)


def _stability(
    before: NDArray[np.float64], below: NDArray[np.float64], after: NDArray[np.float64]
) -> float:
    """PSI; a cell that holds more than a tenth is a bin of its own, so there may be fewer bins."""
    edges = np.searchsorted(below, np.arange(1, _BINS) / _BINS - 1e-12) + 1
    starts = np.unique(np.append(0, edges[edges < before.size]))
    expected = np.maximum(np.add.reduceat(before, starts), _LEAST_SHARE)
    found = np.maximum(np.add.reduceat(after, starts), _LEAST_SHARE)
    return float(((found - expected) * np.log(found / expected)).sum())

"""The absmax that one request in a million is expected to pass: a generalized Pareto tail.

Agents count, for every unit, in which of 11 intervals of absmax ÷ observed bound it fell. Of the
units above one of the bounds u, the excess over u follows, for u high enough, a generalized Pareto
law with shape xi and scale sigma (Pickands; Balkema and de Haan):

    P(excess > y) = (1 + xi y / sigma)^(-1/xi),    xi -> 0: exp(-y / sigma)

xi and sigma are those of the largest likelihood of the counts: interval-censored, so nothing but
counters is needed. With zeta the share of units above u, one in m passes

    z = u + sigma / xi · ((m zeta)^xi - 1),        xi -> 0: u + sigma ln(m zeta)

Uniform sampling of requests leaves xi, sigma and zeta as they are. u is the highest bound with at
least 50 units, and 1 % of all, above it in at least three intervals. The interval is a parametric
bootstrap: counts are drawn again from the fitted law (fixed seed, so two looks at the same data
agree) and fitted again.

**Advisory.** Maxima of *sampled* requests are extrapolated over four decades and more. Measured for
one in a million, 10,000 runs each (200,000 units: 100), units of 1,024 elements and a bound from
512 others; shares and medians are of the runs in which anything was said:

| units | law | nothing said | level ÷ truth, median (10 to 90 %) | 90 % interval holds the truth |
|---:|---|---:|---|---:|
| 512 | normal | 37 % | 0.92 (0.78 to 1.3) | 67 % |
| 512 | Student t4 | 36 % | 0.75 (0.26 to 3.0) | 86 % |
| 2,000 | normal | 11 % | 0.95 (0.82 to 1.2) | 71 % |
| 2,000 | Student t4 | 14 % | 0.81 (0.32 to 2.7) | 85 % |
| 20,000 | normal | 1 % | 0.98 (0.92 to 1.1) | 87 % |
| 20,000 | Student t4 | 2 % | 0.96 (0.59 to 1.7) | 88 % |
| 200,000 | normal | 0 % | 1.00 (0.97 to 1.03) | 86 % |
| 200,000 | Student t4 | 2 % | 1.01 (0.86 to 1.2) | 91 % |

So it is too low rather than too high while units are few, and its interval too narrow. With fewer
than 512 units nothing is said. No alarm and no range is made of it.

xi and sigma are looked up on a grid that is the same for every point, because counts are relative
to the observed bound: 31 shapes from -1 to 1, and 40 scales 17 % apart. What is found there is
looked up twice more on a finer grid around it.

**Where nothing is said.** A fit with xi of -0.5 or less: values end at a bound (uniform or clipped
ones, ReLU6), counters tell only in which interval, and the interval of such fits missed the truth
in all of 40 runs (beta 3, 2). A fit, or more than 5 of the 100 repeats, at an end of the grid:
tails near xi = 1 and beyond. An interval without width. Log-normal maxima are far from
a generalized Pareto law at these bounds: with sigma 1.5 and 50,000 units the level was 2.6 times
too high in the median.

Sources: Coles, "An introduction to statistical modeling of extreme values" (2001), chapter 4;
Siffer, Fouque, Termier and Largouet, KDD 2017.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._vocabulary import RATIO_BOUNDS, CountColumn
from calidrift_analyzer.records import PointTotals, ReturnLevel

__all__ = ["LEAST_UNITS", "return_level"]

LEAST_UNITS: Final = 512
REQUESTS: Final = 1_000_000
_LEAST_ABOVE: Final = 50
_LEAST_SHARE: Final = 0.01
_LEAST_INTERVALS: Final = 3
_REPEATS: Final = 100
_OUTSIDE: Final = 5
"""Repeats beyond either end of the interval."""
_PORTION: Final = 16
_SEED: Final = 20_260_101
_BOUNDS: Final = np.array(RATIO_BOUNDS)
_SHAPES: Final = np.concatenate(
    (np.linspace(-1.0, -0.6, 5), np.linspace(-0.5, 0.5, 21), np.linspace(0.6, 1.0, 5))
)
_SCALES: Final = np.geomspace(0.01, 4.0, 40)
_BOUNDED: Final = -0.5
"""Shapes up to here have no regular likelihood: the end of the law is told by one interval."""
_SHAPE_MARGIN: Final = 0.1
_SCALE_MARGIN: Final = 1.36
"""Two steps of the grid."""
_FINE: Final = 15
_ROUNDS: Final = 2
_EXPONENTIAL: Final = 1e-9
"""Shapes this near to 0 are the exponential law."""

_Floats = NDArray[np.float64]


def return_level(
    totals: PointTotals, observed_bound: float, requests: int = REQUESTS
) -> ReturnLevel | None:
    """Extrapolate the maxima of a point's units.

    Args:
        totals: Counts of the point.
        observed_bound: What the counted ratios are relative to, above 0.
        requests: How rare the level is, at least 1.

    Returns:
        The level and its 90 % interval; None with fewer than 512 units, where too few of them, or
        fewer than three intervals, are above every bound, and where the law is beyond what the fit
        can tell (see the module).

    Cost: 1 ms, once 10 ms for the grid.
    """
    first = int(CountColumn.RATIO_FIRST)
    counts = totals.counts[first : first + _BOUNDS.size + 1]
    units = int(counts.sum())
    place = _threshold(counts) if units >= LEAST_UNITS and observed_bound > 0.0 else None
    if place is None:
        return None
    excesses = counts[place + 1 :].astype(np.float64)
    above = int(excesses.sum())
    fitted = _fit(place, excesses[np.newaxis])
    drawn = np.random.default_rng(_SEED)
    repeats = drawn.binomial(units, above / units, _REPEATS)
    chances = _table(place, *fitted)[0]
    laws = _fit(place, drawn.multinomial(repeats, chances).astype(np.float64))
    beyond = _is_beyond(*fitted, outside=0) or _is_beyond(*laws, outside=_OUTSIDE)
    if beyond or fitted[0][0] <= _BOUNDED:
        return None
    shapes, scales = np.append(fitted[0], laws[0]), np.append(fitted[1], laws[1])
    expected = requests * np.append(above, repeats) / units
    levels = observed_bound * _levels(_BOUNDS[place], expected, shapes, scales)
    low, high = np.sort(levels[1:])[[_OUTSIDE, -1 - _OUTSIDE]]
    if not low < high:
        return None
    return ReturnLevel(
        requests=requests,
        level=float(levels[0]),
        low=min(float(low), float(levels[0])),
        high=max(float(high), float(levels[0])),
        shape=float(fitted[0][0]),
        threshold=float(_BOUNDS[place] * observed_bound),
        above=above,
        units=units,
    )


def _is_beyond(shapes: _Floats, scales: _Floats, *, outside: int) -> bool:
    """Whether more than so many laws stand at one end of what is looked up: the grid chose them."""
    ends = ((shapes, _SHAPES), (scales, _SCALES))
    return any(
        np.count_nonzero(np.isclose(found, end, rtol=1e-6)) > outside
        for found, grid in ends
        for end in (grid[0], grid[-1])
    )


def _threshold(counts: NDArray[np.int64]) -> int | None:
    """Highest bound that leaves enough above it; the last two leave too few intervals."""
    least = max(_LEAST_ABOVE, _LEAST_SHARE * int(counts.sum()))
    for place in range(_BOUNDS.size - _LEAST_INTERVALS, -1, -1):
        above = counts[place + 1 :]
        if above.sum() >= least and np.count_nonzero(above) >= _LEAST_INTERVALS:
            return place
    return None


def _table(place: int, shapes: _Floats, scales: _Floats) -> _Floats:
    """Chance of each interval above a bound, for every shape and scale; (laws, intervals)."""
    edges = np.append(_BOUNDS[place:] - _BOUNDS[place], np.inf)
    shape, scale = shapes[:, np.newaxis, np.newaxis], scales[np.newaxis, :, np.newaxis]
    flat = np.abs(shape) < _EXPONENTIAL
    safe = np.where(flat, 1.0, shape)
    ratio = np.where(np.isinf(edges), 1.0, edges) / scale
    heavy = np.maximum(1.0 + safe * ratio, 0.0)
    with np.errstate(divide="ignore"):
        tail = np.where(flat, np.exp(-ratio), np.where(heavy > 0.0, heavy ** (-1.0 / safe), 0.0))
    tail = np.where(np.isinf(edges), 0.0, tail)
    return np.asarray(-np.diff(tail, axis=-1).reshape(-1, edges.size - 1), dtype=np.float64)


def _log(table: _Floats) -> _Floats:
    return np.log(np.maximum(table, 1e-300))


@cache
def _log_law(place: int) -> _Floats:
    return _log(_table(place, _SHAPES, _SCALES))


def _fit(place: int, excesses: _Floats) -> tuple[_Floats, _Floats]:
    """Shape and scale of the largest likelihood for each row of counts.

    First on the grid of all points, then twice on a finer one around what was found there: with
    many units the law is known better than the grid is fine.
    """
    shapes, scales = _best(_log_law(place), excesses, _SHAPES, _SCALES)
    shape_margin, scale_margin = _SHAPE_MARGIN, _SCALE_MARGIN
    for _ in range(_ROUNDS):
        near = np.linspace(shapes.min() - shape_margin, shapes.max() + shape_margin, _FINE)
        narrow = np.geomspace(scales.min() / scale_margin, scales.max() * scale_margin, _FINE)
        near, narrow = _inside(near, _SHAPES), _inside(narrow, _SCALES)
        shapes, scales = _best(_log(_table(place, near, narrow)), excesses, near, narrow)
        shape_margin = 2.0 * (near[-1] - near[0]) / (_FINE - 1)
        scale_margin = (narrow[-1] / narrow[0]) ** (2.0 / (_FINE - 1))
    return shapes, scales


def _inside(values: _Floats, grid: _Floats) -> _Floats:
    return np.clip(values, grid[0], grid[-1])


def _best(
    log_law: _Floats, excesses: _Floats, shapes: _Floats, scales: _Floats
) -> tuple[_Floats, _Floats]:
    """In portions too small for BLAS to share among threads.

    On a busy machine waiting for them took 20 ms instead of 1 (measured).
    """
    found = [
        (excesses[first : first + _PORTION] @ log_law.T).argmax(axis=1)
        for first in range(0, len(excesses), _PORTION)
    ]
    shape, scale = np.divmod(np.concatenate(found), scales.size)
    return shapes[shape], scales[scale]


def _levels(threshold: float, expected: _Floats, shapes: _Floats, scales: _Floats) -> _Floats:
    """Levels that `expected` units above the threshold pass once."""
    ratio = np.maximum(expected, 1.0)
    flat = np.abs(shapes) < _EXPONENTIAL
    safe = np.where(flat, 1.0, shapes)
    grown = np.where(flat, np.log(ratio), (ratio**safe - 1.0) / safe)
    return np.asarray(threshold + scales * grown, dtype=np.float64)

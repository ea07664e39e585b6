"""Alarms to compare: Calidrift's, and the rules that others use or that suggest themselves.

Each takes a stream and returns the request (from 1) at which it first alarms, or None.
"""

import math
from collections.abc import Callable

import numpy as np
from ours import RULES, alarms_of, exceedances
from river.drift import ADWIN
from scipy import stats
from streams import POINTS, Stream

ALPHA = RULES.alpha
WINDOW = 500
ADWIN_POINTS = 10

Monitor = Callable[[Stream], int | None]


def calidrift(stream: Stream) -> int | None:
    """Whatever of Calidrift alarms first."""
    return alarms_of(stream).any


def always(stream: Stream) -> int | None:
    return 1


def never(stream: Stream) -> int | None:
    return None


def any_exceedance(stream: Stream) -> int | None:
    """Out of the calibrated range once: the default rule of range calculators."""
    requests, *_ = exceedances(stream)
    return int(requests.min()) if requests.size else None


def three_sigma(stream: Stream) -> int | None:
    """Mean of a window's maxima more than three standard errors from that of the reference."""
    mean, spread = stream.reference.mean(axis=0), stream.reference.std(axis=0)
    for end in range(WINDOW, len(stream.maxima) + 1, WINDOW):
        window = stream.maxima[end - WINDOW : end].mean(axis=0)
        if (np.abs(window - mean) > 3 * spread / math.sqrt(WINDOW)).any():
            return end
    return None


def repeated_binomial(stream: Stream) -> int | None:
    """A binomial test of the rate 1 / (n + 1), p < 5 % over all points, after every request."""
    requests, _, above, units = exceedances(stream)
    if not requests.size:
        return None
    tail = stats.binom.sf(above - 1, units, 1 / (len(stream.reference) + 1))
    crossed = requests[tail < ALPHA / POINTS]
    return int(crossed.min()) if crossed.size else None


def population_stability(stream: Stream) -> int | None:
    """PSI above 0.25 at any point, ten bins of the reference, windows of 500 requests."""
    edges = np.quantile(stream.reference_values, np.linspace(0, 1, 11)[1:-1], axis=0)
    expected = shares(stream.reference_values, edges)
    for end in range(WINDOW, len(stream.values) + 1, WINDOW):
        found = shares(stream.values[end - WINDOW : end], edges)
        if (((found - expected) * np.log(found / expected)).sum(axis=0) > 0.25).any():
            return end
    return None


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values of each point in each of its bins, (bins, L), never 0."""
    above = np.stack([(values > edge).sum(axis=0) for edge in edges])
    bounds = np.concatenate([np.full((1, values.shape[1]), len(values)), above, above[:1] * 0])
    return (-np.diff(bounds, axis=0) + 0.5) / (len(values) + 5.0)


def kolmogorov_smirnov(stream: Stream) -> int | None:
    """KS p < 5 % (Bonferroni over points), windows of 500 requests."""
    n, m = len(stream.reference), WINDOW
    # The distance from which on the asymptotic p-value of scipy's `ks_2samp` is that small.
    limit = stats.kstwo.isf(ALPHA / POINTS, round(n * m / (n + m)))
    step = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    for end in range(WINDOW, len(stream.values) + 1, WINDOW):
        both = np.concatenate([stream.reference_values, stream.values[end - WINDOW : end]])
        order = np.argsort(both, axis=0)
        ranked = np.take_along_axis(both, order, axis=0)
        distance = np.abs(np.cumsum(step[order], axis=0))
        last = np.ones(both.shape, np.bool_)  # of equal values
        last[:-1] = ranked[1:] != ranked[:-1]
        if np.where(last, distance, 0.0).max() > limit:
            return end
    return None


def adaptive_windowing(stream: Stream) -> int | None:
    """ADWIN of river with its defaults, on the maxima of ten of the points."""
    detectors = [ADWIN() for _ in range(ADWIN_POINTS)]
    rows = np.concatenate([stream.reference, stream.maxima])[:, :ADWIN_POINTS].tolist()
    for request, row in enumerate(rows, 1 - len(stream.reference)):
        found = False
        for detector, value in zip(detectors, row, strict=True):
            detector.update(value)
            found = found or detector.drift_detected
        if found and request > 0:
            return request
    return None


MONITORS: dict[str, Monitor] = {
    "Calidrift": calidrift,
    "always": always,
    "never": never,
    "any exceedance": any_exceedance,
    "3 sigma": three_sigma,
    "repeated binomial": repeated_binomial,
    "PSI 0.25": population_stability,
    "KS p < 5 %": kolmogorov_smirnov,
    "ADWIN": adaptive_windowing,
}

"""Alarms to compare: Calidrift's, and the rules that others use or that suggest themselves.

Each takes a stream and returns the request (from 1) at which it first alarms, or None.
"""

import math
from collections.abc import Callable

import numpy as np
from river.drift import ADWIN
from scipy import stats
from streams import POINTS, REFERENCE, Stream

from calidrift_analyzer.assess import log_evidence

ALPHA = 0.05
WINDOW = 500
ADWIN_POINTS = 10

Monitor = Callable[[Stream], int | None]


def exceedances(stream: Stream) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every exceedance: its request, its point, and the counts (S, t) of that point then."""
    bound = stream.reference.max(axis=0)
    counted = np.flatnonzero(stream.units)
    points, places = np.nonzero((stream.maxima[counted] > bound).T)
    first = np.searchsorted(points, points)  # points ascend: how many came before this one
    return counted[places] + 1, points, np.arange(points.size) - first + 1, places + 1


def calidrift(stream: Stream) -> int | None:
    """Finite-calibration evidence, joint over points: E >= L / alpha."""
    requests, _, above, units = exceedances(stream)
    if not requests.size:
        return None
    # The evidence of a point rises at its exceedances only, so a crossing happens at one of them.
    evidence = log_evidence(above, units, rank=1, reference_units=REFERENCE)
    crossed = requests[evidence >= math.log(POINTS / ALPHA)]
    return int(crossed.min()) if crossed.size else None


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
    tail = stats.binom.sf(above - 1, units, 1 / (REFERENCE + 1))
    crossed = requests[tail < ALPHA / POINTS]
    return int(crossed.min()) if crossed.size else None


def population_stability(stream: Stream) -> int | None:
    """PSI above 0.25 at any point, ten bins of the reference, windows of 500 requests."""
    edges = np.quantile(stream.reference_values, np.linspace(0, 1, 11)[1:-1], axis=0)
    for end in range(WINDOW, len(stream.values) + 1, WINDOW):
        window = stream.values[end - WINDOW : end]
        for point in range(POINTS):
            expected = shares(stream.reference_values[:, point], edges[:, point])
            found = shares(window[:, point], edges[:, point])
            if ((found - expected) * np.log(found / expected)).sum() > 0.25:
                return end
    return None


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.bincount(np.searchsorted(edges, values), minlength=10)
    return (counts + 0.5) / (counts.sum() + 5.0)


def kolmogorov_smirnov(stream: Stream) -> int | None:
    """KS p < 5 % (Bonferroni over points), windows of 500 requests."""
    for end in range(WINDOW, len(stream.values) + 1, WINDOW):
        window = stream.values[end - WINDOW : end]
        for point in range(POINTS):
            test = stats.ks_2samp(
                stream.reference_values[:, point], window[:, point], method="asymp"
            )
            if test.pvalue < ALPHA / POINTS:
                return end
    return None


def adaptive_windowing(stream: Stream) -> int | None:
    """ADWIN of river with its defaults, on the maxima of ten of the points."""
    detectors = [ADWIN() for _ in range(ADWIN_POINTS)]
    rows = np.concatenate([stream.reference, stream.maxima])[:, :ADWIN_POINTS].tolist()
    for request, row in enumerate(rows, 1 - REFERENCE):
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

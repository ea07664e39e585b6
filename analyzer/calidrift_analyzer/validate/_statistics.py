"""Intervals and error figures of a validation: numpy and scipy only."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from calidrift_analyzer.records import Accuracy, Figure, SegmentAccuracy

__all__ = [
    "accuracy_of",
    "agreement_of",
    "coverage_lower_bound",
    "median_ratio",
    "sqnr_of",
]

RESAMPLES: Final = 2000
_BULK: Final = 0.99
_LEVELS: Final = (0.025, 0.975)
_CHUNK: Final = 1 << 22

_Floats = NDArray[np.float64]


def accuracy_of(
    fp32: _Floats,
    int8: _Floats,
    segments: Sequence[str] | None,
    rng: np.random.Generator,
    *,
    groups: Sequence[Any] | None = None,
) -> Accuracy:
    """Compare two models on the same samples.

    Args:
        fp32: (samples,) scores in [0, 1].
        int8: (samples,) scores of the other model, same samples.
        segments: Segment of each sample.
        rng: Source of the resamples.
        groups: Group of each sample; without them, each sample is one.

    Returns:
        Means with percentile bootstrap intervals over groups (2000 resamples). The difference is
        resampled in pairs: on 400 samples with 1 % of the answers changed its interval is about
        +-1 point, where unpaired intervals of 95 % accuracy would be +-3. Groups of four samples
        that are right or wrong together make intervals twice as wide as the samples alone.

    Cost: 20 ms for 1000 samples.
    """
    columns = np.stack([fp32, int8, int8 - fp32], axis=1)
    means = _bootstrap_means(columns, groups, rng)
    figures = [
        _figure(float(columns[:, index].mean()), means[:, index])
        for index in range(columns.shape[1])
    ]
    return Accuracy(
        samples=int(fp32.size),
        fp32=figures[0],
        int8=figures[1],
        difference=figures[2],
        segments=_segments(fp32, int8, segments),
    )


def median_ratio(numerators: _Floats, denominators: _Floats, rng: np.random.Generator) -> Figure:
    """Median of the ratio of pairs, with its percentile bootstrap interval over pairs.

    Args:
        numerators: (pairs,) positive.
        denominators: (pairs,) positive.
        rng: Source of the resamples.
    """
    ratios = numerators / denominators
    picks = rng.integers(0, ratios.size, (RESAMPLES, ratios.size))
    return _figure(float(np.median(ratios)), np.median(ratios[picks], axis=1))


def coverage_lower_bound(covered: int, units: int, *, confidence: float = 0.95) -> float:
    """One-sided lower Clopper-Pearson bound of a proportion; 0 without units.

    The bound is below the true proportion with probability of at least `confidence`, for every
    proportion and number of units. 300 of 300 give 0.990, 95 of 100 give 0.898.

    >>> round(coverage_lower_bound(300, 300), 3), round(coverage_lower_bound(95, 100), 3)
    (0.99, 0.898)
    """
    if covered == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, covered, units - covered + 1))


def sqnr_of(reference: _Floats, given: _Floats) -> tuple[float | None, float | None]:
    """Signal to quantization noise of outputs in dB: total, and over the bulk.

    The bulk is what lies at or below the 99th percentile of |reference|: few huge outputs dominate
    the total, and only the task can say whether they matter.

    Args:
        reference: Outputs of FP32, any shape.
        given: Outputs of the other model, same shape.

    Returns:
        10 log10(sum x^2 / sum (x - y)^2), twice. `None` where it is not a finite number: outputs
        that are all 0, not finite, or equal bit for bit.
    """
    flat, other = reference.ravel(), given.ravel()
    if not flat.size:
        return None, None
    magnitudes = np.abs(flat)
    bulk = magnitudes <= np.quantile(magnitudes, _BULK)
    return _decibels(flat, other), _decibels(flat[bulk], other[bulk])


def agreement_of(reference: _Floats, given: _Floats) -> float | None:
    """Share of rows in which the largest class score is the same; `None` for other outputs.

    Args:
        reference: (rows, classes) scores.
        given: The same of the other model.
    """
    if reference.ndim != 2 or reference.shape[1] < 2 or not reference.shape[0]:
        return None
    return float((reference.argmax(axis=1) == given.argmax(axis=1)).mean())


def _decibels(reference: _Floats, given: _Floats) -> float | None:
    with np.errstate(invalid="ignore", over="ignore"):
        signal = float(np.square(reference).sum())
        noise = float(np.square(reference - given).sum())
    if not (np.isfinite(signal) and np.isfinite(noise)) or signal <= 0 or noise <= 0:
        return None
    return float(10 * np.log10(signal / noise))


def _bootstrap_means(
    columns: _Floats, groups: Sequence[Any] | None, rng: np.random.Generator
) -> _Floats:
    """Means over samples of (samples, k) columns, (resamples, k); groups are drawn whole."""
    sizes = np.ones(len(columns))
    if groups is not None:
        _, row = np.unique([str(one) for one in groups], return_inverse=True)
        sizes = np.bincount(row).astype(np.float64)
        sums = np.zeros((len(sizes), columns.shape[1]))
        np.add.at(sums, row, columns)
        columns = sums
    count = len(sizes)
    means = np.empty((RESAMPLES, columns.shape[1]))
    step = max(1, _CHUNK // count)
    for start in range(0, RESAMPLES, step):
        picks = rng.integers(0, count, (min(step, RESAMPLES - start), count))
        drawn = sizes[picks].sum(axis=1, keepdims=True)
        means[start : start + step] = columns[picks].sum(axis=1) / drawn
    return means


def _figure(estimate: float, resampled: _Floats) -> Figure:
    low, high = np.quantile(resampled, _LEVELS)
    return Figure(estimate, float(low), float(high))


def _segments(
    fp32: _Floats, int8: _Floats, segments: Sequence[str] | None
) -> tuple[SegmentAccuracy, ...]:
    if segments is None:
        return ()
    labels = np.asarray([str(one) for one in segments])
    found = [
        SegmentAccuracy(
            str(name),
            int((labels == name).sum()),
            float(fp32[labels == name].mean()),
            float(int8[labels == name].mean()),
        )
        for name in np.unique(labels)
    ]
    return tuple(sorted(found, key=lambda one: (one.int8 - one.fp32, one.name)))

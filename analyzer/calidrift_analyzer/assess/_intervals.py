"""Bounds for a proportion at a fixed look (Clopper-Pearson): never too narrow, at any n."""

from typing import Final

from scipy import special

from calidrift_analyzer.records import Interval

__all__ = ["interval", "lower_bound"]

_CONFIDENCE: Final = 0.95


def interval(successes: int, trials: int, confidence: float = _CONFIDENCE) -> Interval | None:
    """Give a proportion with its two-sided bounds; `None` without trials.

    Guarantee: at one look fixed in advance the interval misses the truth with probability at most
    1 - `confidence`, whatever n. Looking again and again until it looks good voids that; alarms use
    the evidence instead.

    Args:
        successes: 0 ... `trials`.
        trials: Number of units.
        confidence: Two-sided confidence, in (0, 1).

    Example:
        >>> found = interval(0, 100)
        >>> found.estimate, found.low, round(found.high, 4)
        (0.0, 0.0, 0.0362)
    """
    if trials == 0:
        return None
    tail = (1.0 - confidence) / 2.0
    failures = trials - successes
    low = float(special.betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, failures, 1.0 - tail)) if failures else 1.0
    return Interval(successes / trials, low, high)


def lower_bound(successes: int, trials: int, confidence: float = _CONFIDENCE) -> float | None:
    """Give the one-sided lower bound of a proportion; `None` without trials.

    Args:
        successes: 0 ... `trials`.
        trials: Number of units.
        confidence: One-sided confidence, in (0, 1).

    Example:
        >>> round(lower_bound(59, 59), 4)
        0.9505
    """
    if trials == 0:
        return None
    if successes == 0:
        return 0.0
    return float(special.betaincinv(successes, trials - successes + 1, 1.0 - confidence))

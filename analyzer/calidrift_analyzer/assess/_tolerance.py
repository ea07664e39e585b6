"""Evidence against "at most a share p0 of the units leave the range", and bounds for that share.

The null is an upper bound declared by somebody (a service level), not a law: whatever the units
depend on, as long as each of them exceeds with a chance of at most p0 given those before it. For a
single alternative p1 > p0 the product of likelihood ratios

    (p1/p0)^S · ((1-p1)/(1-p0))^(t-S)

is then a non-negative supermartingale that starts at 1, for its factor is 1 + lambda (X - p0) with
lambda = (p1-p0) / (p0 (1-p0)) >= 0. So is its mixture over all p1 in (p0, 1], equally likely:

    E(S, t) = B(1+S, 1+t-S) · I'(1+S, 1+t-S; p0) / ( (1-p0) · p0^S (1-p0)^(t-S) )

with B the beta function and I' the upper tail, from p0, of the regularized incomplete one. By
Ville's inequality it ever reaches 1/alpha with probability at most alpha, however often one looks.
It depends on (S, t) only, so counts of several processes simply add.

The same holds for losses between 0 and 1, with S the sum of losses. For one alternative p1 the
factor of a unit, f(x) = (p1/p0)^x ((1-p1)/(1-p0))^(1-x), is convex in its loss x, so it lies below
its chord 1 + lambda (x - p0), whose mean is at most 1 while the mean loss is at most p0. It is
equal to it at 0 and 1: for outcomes nothing is given away. Hence measured harm (`_measured_harm`)
and the confidence sequence below take sums of losses as they take counts.

Sources: Waudby-Smith and Ramdas, J. R. Stat. Soc. B 2024 (betting); Robbins 1970 and Howard,
Ramdas, McAuliffe and Sekhon, Ann. Statist. 49 (2021) (mixtures and confidence sequences).

Worked numbers, p0 = 1 %: with 50 points (threshold 50 / 5 % = 1,000) one exceedance in the first
unit is not enough (E = 50), two in the first two are (E = 3,367). One point at alpha = 5 %, with
exceedances that come evenly: a share of 2, 5 and 20 % alarms after 2,002, 148 and 10 units.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from calidrift_analyzer.assess._search import first_number
from calidrift_analyzer.records import Interval

__all__ = [
    "confidence_sequence",
    "log_tolerance_evidence",
    "lower_shares",
    "reference_tolerance",
    "units_to_breach",
]

_BISECTIONS: Final = 60


def log_tolerance_evidence(
    exceedances: ArrayLike, units: ArrayLike, tolerance: ArrayLike
) -> NDArray[np.float64]:
    """Natural logarithm of E(S, t).

    Where it is above 0 it falls as the tolerance grows: see `assess/README.md`, claim 9. So a
    tolerance may differ from look to look, as long as each of them is at least the true share.

    Args:
        exceedances: S, of any shape; a sum of losses in [0, 1] need not be whole.
        units: t, of the same shape; `0 <= S <= t`.
        tolerance: p0, in (0, 1): one for all, or of the same shape.

    Returns:
        Array of that shape; -inf where the evidence is below 1e-300.

    Raises:
        ValueError: The counts are not possible, or `tolerance` is no share.

    Cost: about 0.5 us per element.

    Example:
        >>> float(np.exp(log_tolerance_evidence(2, 2, 0.01)).round())
        3367.0
    """
    tolerated = np.asarray(tolerance, dtype=np.float64)
    if not bool(((tolerated > 0.0) & (tolerated < 1.0)).all()):
        raise ValueError(f"tolerance is {tolerated}, but must be a share above 0 and below 1")
    above = np.asarray(exceedances, dtype=np.float64)
    inside = np.asarray(units, dtype=np.float64) - above
    if bool((above < 0).any()) or bool((inside < 0).any()):
        raise ValueError("exceedances must lie between 0 and units; the counts are damaged")
    with np.errstate(divide="ignore"):
        tail = np.log(special.betaincc(1.0 + above, 1.0 + inside, tolerated))
    mixture = special.betaln(1.0 + above, 1.0 + inside) + tail - np.log1p(-tolerated)
    null = above * np.log(tolerated) + inside * np.log1p(-tolerated)
    return np.asarray(mixture - null, dtype=np.float64)


def confidence_sequence(exceedances: float, units: int, alpha: float = 0.05) -> Interval | None:
    """Bounds of a share or a mean loss that hold at all times together; `None` without units.

    They are the rates that the two-sided mixture (uniform over all rates) has not refuted. With
    probability at least 1 - `alpha` the true share is inside at *every* look; a dashboard may show
    them for ever. They are wider than bounds for one look fixed in advance, by 1.5 to 2 times.

    Args:
        exceedances: S; a sum of losses in [0, 1] need not be whole.
        units: t.
        alpha: Probability that the sequence ever misses, in (0, 1).

    Example:
        >>> found = confidence_sequence(0, 100)
        >>> found.estimate, found.low, round(found.high, 4)
        (0.0, 0.0, 0.0733)
    """
    if units == 0:
        return None
    inside = units - exceedances
    mixture = float(special.betaln(1.0 + exceedances, 1.0 + inside))
    limit = -math.log(alpha)

    def refuted(rate: float) -> bool:
        null = special.xlogy(exceedances, rate) + special.xlog1py(inside, -rate)
        return bool(mixture - null >= limit)

    estimate = exceedances / units
    low = _edge(estimate, 0.0, refuted) if exceedances else 0.0
    high = _edge(estimate, 1.0, refuted) if inside else 1.0
    return Interval(estimate, low, high)


def _edge(inner: float, outer: float, refuted: Callable[[float], bool]) -> float:
    """Bisect between a rate that stands and one that is refuted, down to the outer side."""
    for _ in range(_BISECTIONS):
        middle = (inner + outer) / 2.0
        inner, outer = (inner, middle) if refuted(middle) else (middle, outer)
    return outer


def reference_tolerance(blocks: int, reference_units: int, confidence: float = 0.95) -> float:
    """Smallest share of units outside *any* bound that a finite random reference can promise.

    Bound i is the k_i-th largest of the n reference units at its point. n ordered values leave
    n + 1 gaps, of which k_i lie above it, and a new exchangeable unit falls into each of them
    equally often: it exceeds the bound with a chance of k_i / (n + 1). Where only m of the n units
    reach a point, the others count as smaller than every value there, in the reference as in
    production: the bound is the k_i-th largest of all n all the same, and a unit that does not
    reach the point cannot exceed it. So the chance to reach *and* exceed it is at most
    k_i / (n + 1), however small m is.

    Take the points one after the other, each time the k_i largest of the units that are left:
    together they leave sum of k_i blocks of n + 1 outside (Tukey's equivalent blocks), and no bound
    is below the value at which its turn ended. So the share of exchangeable units outside is
    stochastically at most Beta(blocks, n + 1 - blocks) with `blocks` = sum of k_i, whatever the
    dependence between points. Below its upper quantile a tolerance would be broken by traffic in
    which nothing has changed.

    Args:
        blocks: Sum of the ranks k_i of all observed bounds.
        reference_units: n, the units of the reference, whether or not they reach every point.
        confidence: Probability, over reference sets, that the promise is kept.

    Returns:
        The share, in (0, 1]; 1.0 where the reference can promise nothing.

    Example:
        >>> round(reference_tolerance(1, 512), 4), round(reference_tolerance(50, 512), 3)
        (0.0058, 0.12)
    """
    if blocks >= reference_units + 1:
        return 1.0
    return float(special.betaincinv(blocks, reference_units + 1 - blocks, confidence))


def lower_shares(counts: ArrayLike, totals: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Lower ends of `confidence_sequence` at many looks; 0 where nothing is known.

    With probability at least 1 - `alpha` the true share is above all of them together.

    Args:
        counts: Units that count, of any shape.
        totals: All units, of the same shape.
        alpha: Probability that one of the ends is above the share.

    Cost: 2 us per element.

    Example:
        >>> lower_shares([0, 20, 200], [10, 1_000, 10_000], 0.01).round(4).tolist()
        [0.0, 0.0065, 0.0143]
    """
    some = np.asarray(counts, dtype=np.float64)
    rest = np.asarray(totals, dtype=np.float64) - some
    mixture = special.betaln(1.0 + some, 1.0 + rest)
    limit = -math.log(alpha)
    low, high = np.zeros(some.shape), some / np.maximum(some + rest, 1.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        null = special.xlogy(some, middle) + special.xlog1py(rest, -middle)
        refuted = mixture - null >= limit
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return np.asarray(low, np.float64)


def units_to_breach(rate: float, tolerance: float, log_threshold: float) -> int | None:
    """Units until the evidence passes a threshold when exceedances come at exactly this rate.

    Args:
        rate: Share of units that exceed, in (0, 1].
        tolerance: p0.
        log_threshold: Natural logarithm of the threshold.

    Returns:
        The number of units from a fresh start, `None` where `rate` is within the tolerance.

    Example:
        >>> units_to_breach(0.02, 0.01, np.log(20)), units_to_breach(0.2, 0.01, np.log(20))
        (2002, 10)
    """
    if rate <= tolerance:
        return None
    return first_number(
        lambda units: bool(log_tolerance_evidence(rate * units, units, tolerance) >= log_threshold)
    )

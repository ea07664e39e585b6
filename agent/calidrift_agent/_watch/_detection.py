"""How long it takes to tell an exceedance from the bad luck of a finite reference.

The observed bound of a point is the k-th largest of n reference units. Under "production looks
like the reference" exceedances follow a Pólya urn; the evidence against it after S of t units have
exceeded is the e-value that the analyzer computes:

    E(S, t) = [ B(1+S, 1+t-S) · I'(1+S, 1+t-S) / (1-m) ] / [ B(k+S, n+1-k+t-S) / B(k, n+1-k) ]

with m = (k-1)/(n-1), B the beta function and I' the upper tail of the regularized incomplete beta
function at m. The analyzer alarms when it reaches P / alpha for one of P points. This module says
beforehand when that will be, without scipy and without an analyzer: the beta functions come from
`math.lgamma`, the tail from its continued fraction (Press et al., Numerical Recipes 6.4).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from calidrift_agent.errors import ConfigurationError

ALPHA: Final = 0.05
"""False alarm probability over the whole life of a watch, all points together."""
_LONGEST: Final = 2**40
"""Units beyond which an alarm counts as never."""
_TERMS: Final = 100_000
_PRECISION: Final = 1e-15
_TINY: Final = 1e-300


@final
@dataclass(frozen=True, slots=True, order=True)
class ReferenceUnits:
    """What the observed bound of a point rests on.

    Attributes:
        rank: k, counted from 1: the bound is the k-th largest unit.
        units: n, all reference units.
    """

    rank: int
    units: int


def log_evidence(exceedances: float, units: float, reference: ReferenceUnits) -> float:
    """Natural logarithm of E(S, t); 0 for k = n, where nothing can be learned.

    Args:
        exceedances: S, may be a fraction (a rate times t).
        units: t, at least S.
        reference: k and n.

    Cost: about 2 us; for k > 1 more, the more the rate is like the reference's.

    Example:
        >>> round(math.exp(log_evidence(2, 2, ReferenceUnits(1, 512))))
        43947
    """
    rank, total = reference.rank, reference.units
    if rank == total:
        return 0.0
    inside = units - exceedances
    below = total + 1 - rank
    mode = (rank - 1) / (total - 1)
    null = _log_beta(rank + exceedances, below + inside) - _log_beta(rank, below)
    mixture = _log_beta(1.0 + exceedances, 1.0 + inside)
    if rank > 1:
        mixture += _log_upper_tail(1.0 + exceedances, 1.0 + inside, mode) - math.log1p(-mode)
    return mixture - null


def smallest_detectable(reference: ReferenceUnits, log_threshold: float) -> float | None:
    """Smallest exceedance rate that can ever drive the evidence over a threshold.

    With S/t fixed at p the evidence tends to the ratio of two densities of the rate at p.

    Args:
        reference: k and n.
        log_threshold: Natural logarithm of the threshold, above 0.

    Returns:
        The rate, or None where no rate suffices (k = n).

    Example:
        >>> round(smallest_detectable(ReferenceUnits(1, 512), math.log(1 / 0.05)), 4)
        0.0179
    """
    rank, total = reference.rank, reference.units
    if rank == total:
        return None
    mode, below = (rank - 1) / (total - 1), total + 1 - rank
    constant = _log_beta(rank, below) - math.log1p(-mode)
    low, high = mode, 1.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if not 0.0 < middle < 1.0:
            break
        logs = (rank - 1) * math.log(middle) + (below - 1) * math.log1p(-middle)
        if constant - logs < log_threshold:
            low = middle
        else:
            high = middle
    return high


def units_to_alarm(rate: float, reference: ReferenceUnits, log_threshold: float) -> int | None:
    """Units until the evidence reaches a threshold when exceedances come at exactly this rate.

    Args:
        rate: Exceedance rate, in (0, 1].
        reference: k and n.
        log_threshold: Natural logarithm of the threshold, above 0.

    Returns:
        The number of units, counted from a fresh start, or None where it never does.

    Example:
        >>> units_to_alarm(1.0, ReferenceUnits(1, 512), math.log(1000))
        2
        >>> units_to_alarm(0.01, ReferenceUnits(1, 512), math.log(1000)) is None
        True
    """
    limit = smallest_detectable(reference, log_threshold)
    if limit is None or rate < limit:
        return None
    return _first_number(
        lambda units: log_evidence(rate * units, units, reference) >= log_threshold
    )


def slowest_detection(
    references: Sequence[ReferenceUnits], rate: float, alpha: float = ALPHA
) -> int | None:
    """Units until an exceedance at any one of the points, the slowest to tell, raises an alarm.

    Args:
        references: One for each point that has an observed bound.
        rate: Share of units that exceed the bound of that point, in (0, 1].
        alpha: False alarm probability of all points together.

    Returns:
        The number of units; None without references, or where it never would.

    Raises:
        ConfigurationError: `rate` is no share.
    """
    if not 0.0 < rate <= 1.0:
        raise ConfigurationError(
            f"exceedance is {rate!r}, but is a share of the units above 0 and up to 1; 0.01 is 1 %"
        )
    log_threshold = log_joint_threshold(len(references), alpha)
    found = [units_to_alarm(rate, one, log_threshold) for one in sorted(set(references))]
    return None if None in found else max((one for one in found if one is not None), default=None)


def units_for(exceedance: float, points: int) -> int | None:
    """Fewest reference units with which an exceedance can be told from bad luck (k = 1).

    Args:
        exceedance: Share of units, in (0, 1).
        points: Number of points that are tested together.

    Example:
        >>> units_for(0.01, 50)
        1410
    """
    log_threshold = log_joint_threshold(points)

    def enough(units: int) -> bool:
        limit = smallest_detectable(ReferenceUnits(1, units), log_threshold)
        return limit is not None and limit <= exceedance

    return _first_number(enough)


def log_joint_threshold(points: int, alpha: float = ALPHA) -> float:
    """Natural logarithm of what the evidence at one of `points` points must reach."""
    return math.log(max(points, 1) / alpha)


def _first_number(reached: Callable[[int], bool]) -> int | None:
    high = 1
    while not reached(high):
        high *= 2
        if high > _LONGEST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_upper_tail(a: float, b: float, x: float) -> float:
    """Logarithm of the chance that a beta(a, b) variable is above x, 0 < x < 1."""
    if x < (a + 1.0) / (a + b + 2.0):
        lower = math.exp(_log_fraction(a, b, x))
        return math.log1p(-lower) if lower < 1.0 else -math.inf
    return _log_fraction(b, a, 1.0 - x)


def _log_fraction(a: float, b: float, x: float) -> float:
    """Logarithm of the regularized incomplete beta function, for x below its mean or so.

    Modified Lentz; the number of terms grows like the root of the larger argument.
    """
    front = a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b) - math.log(a)
    c, d = 1.0, 1.0 / _apart(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _apart(1.0 + even * d)
        c = _apart(1.0 + even / c)
        value *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _apart(1.0 + odd * d)
        c = _apart(1.0 + odd / c)
        step = c * d
        value *= step
        if abs(step - 1.0) < _PRECISION:
            break
    return front + math.log(value)


def _apart(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

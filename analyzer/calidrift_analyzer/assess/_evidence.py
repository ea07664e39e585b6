"""Evidence against "production looks like the reference", when the reference is finite.

The observed bound of a point is the k-th largest of n random reference units. If production units
are exchangeable with the reference, the chance that the next one exceeds the bound, after S of t
have, is exactly (k + S) / (n + 1 + t): a Pólya urn, whatever the distribution. The e-value

    E(S, t) = [ B(1+S, 1+t-S) · I'(1+S, 1+t-S) / (1-m) ] / [ B(k+S, n+1-k+t-S) / B(k, n+1-k) ]

is the likelihood of the exceedances under "some rate above m, all equally likely", divided by that
under the urn; m = (k-1)/(n-1) is the mode of the rate that the reference itself implies, B is the
beta function and I' the upper tail of the regularized incomplete beta function at m. For k = 1, the
default, m = 0 and I' = 1. It is a martingale of mean 1 under the urn, so the chance that it *ever*
reaches 1/alpha is at most alpha (Ville), however often one looks. It depends on (S, t) only: sums
over processes suffice. Proof, oracles and limits: `README.md` in this folder.

Worked numbers, alpha = 0.05, k = 1, n = 512: one point alarms when the first unit of all exceeds
(E = 256), 50 points together when the first two do (E = 43,947 against 1,000); the smallest
exceedance that can ever alarm is 1.8 % for one point and 2.5 % for 50.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from calidrift_analyzer.assess._search import first_number

__all__ = ["exceedances_to_alarm", "log_evidence", "smallest_detectable", "units_to_alarm"]


def _require_reference(rank: int, reference_units: int) -> None:
    if not 1 <= rank <= reference_units:
        raise ValueError(
            f"the observed bound must be the k-th largest of n reference units with 1 <= k <= n, "
            f"got k={rank}, n={reference_units}; calibrate again"
        )


def _mode(rank: int, reference_units: int) -> float:
    return (rank - 1) / (reference_units - 1)


def log_evidence(
    exceedances: ArrayLike, units: ArrayLike, *, rank: int, reference_units: int
) -> NDArray[np.float64]:
    """Natural logarithm of E(S, t).

    It grows with S at fixed t, so ties (which make exceedances rarer) only make it smaller, and
    fewer exceedances than expected never alarm. With k = n nothing can be learned: 0 everywhere.

    Args:
        exceedances: S, of any shape.
        units: t, of the same shape; `0 <= S <= t`.
        rank: k of the observed bound.
        reference_units: n of the observed bound.

    Returns:
        Array of that shape; -inf where the evidence is below 1e-300.

    Raises:
        ValueError: The counts are not possible.

    Cost: about 0.5 us per element.

    Example:
        >>> float(np.exp(log_evidence(2, 2, rank=1, reference_units=512)).round())
        43947.0
    """
    _require_reference(rank, reference_units)
    above = np.asarray(exceedances, dtype=np.float64)
    inside = np.asarray(units, dtype=np.float64) - above
    if bool((above < 0).any()) or bool((inside < 0).any()):
        raise ValueError("exceedances must lie between 0 and units; the counts are damaged")
    if rank == reference_units:
        return np.zeros(np.broadcast_shapes(above.shape, inside.shape))
    mode = _mode(rank, reference_units)
    below = reference_units + 1 - rank
    null = special.betaln(rank + above, below + inside) - special.betaln(rank, below)
    mixture = special.betaln(1.0 + above, 1.0 + inside)
    if rank > 1:
        with np.errstate(divide="ignore"):
            tail = np.log(special.betaincc(1.0 + above, 1.0 + inside, mode))
        mixture = mixture + tail - math.log1p(-mode)
    return np.asarray(mixture - null, dtype=np.float64)


@lru_cache(maxsize=256)
def smallest_detectable(rank: int, reference_units: int, log_threshold: float) -> float | None:
    """Smallest exceedance rate that can ever drive the evidence over a threshold.

    With S/t fixed at p the evidence tends to the ratio of the two densities of the rate at p. For
    k = 1 that is (1-p)^-(n-1) / n, so p = 1 - (n · threshold)^(-1/(n-1)).

    Args:
        rank: k of the observed bound.
        reference_units: n of the observed bound.
        log_threshold: Natural logarithm of the threshold, above 0.

    Returns:
        The rate, or `None` where no rate suffices (k = n).

    Example:
        >>> round(smallest_detectable(1, 512, np.log(1 / 0.05)), 4)
        0.0179
        >>> round(smallest_detectable(1, 128, np.log(1 / 0.05)), 3)
        0.06
    """
    _require_reference(rank, reference_units)
    if rank == reference_units:
        return None
    mode, below = _mode(rank, reference_units), reference_units + 1 - rank

    def log_density_ratio(rate: float) -> float:
        logs = special.xlogy(rank - 1, rate) + special.xlog1py(below - 1, -rate)
        return float(special.betaln(rank, below) - math.log1p(-mode) - logs)

    low, high = mode, 1.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if middle < 1.0 and log_density_ratio(middle) < log_threshold:
            low = middle
        else:
            high = middle
    return high


def units_to_alarm(
    rate: float, *, rank: int, reference_units: int, log_threshold: float
) -> int | None:
    """Units until the evidence passes a threshold when exceedances come at exactly this rate.

    Args:
        rate: Exceedance rate, in (0, 1].
        rank: k of the observed bound.
        reference_units: n of the observed bound.
        log_threshold: Natural logarithm of the threshold.

    Returns:
        The number of units, counted from a fresh start, or `None` where it never does.

    Example:
        >>> units_to_alarm(1.0, rank=1, reference_units=512, log_threshold=np.log(1000))
        2
    """

    def reached(units: int) -> bool:
        value = log_evidence(rate * units, units, rank=rank, reference_units=reference_units)
        return bool(value >= log_threshold)

    return first_number(reached)


@lru_cache(maxsize=4096)
def exceedances_to_alarm(
    exceedances: int, units: int, *, rank: int, reference_units: int, log_threshold: float
) -> int | None:
    """Further units, every one of them exceeding, until the evidence passes a threshold.

    Args:
        exceedances: S so far.
        units: t so far.
        rank: k of the observed bound.
        reference_units: n of the observed bound.
        log_threshold: Natural logarithm of the threshold, not yet reached.

    Returns:
        At least 1, or `None` where no number suffices (k = n).

    Example:
        >>> exceedances_to_alarm(1, 1, rank=1, reference_units=512, log_threshold=np.log(1000))
        1
    """

    def reached(more: int) -> bool:
        value = log_evidence(
            exceedances + more, units + more, rank=rank, reference_units=reference_units
        )
        return bool(value >= log_threshold)

    return first_number(reached)

"""Greedy maximisation of f(S) = sum over points of the largest benefit in S.

f is monotone and submodular (a sum of maxima of non-negative numbers), so greedy reaches at least
1 - 1/e = 0.632 of the best value of any set of the same size (Nemhauser, Wolsey, Fisher 1978), and
gains only shrink: a stale gain is an upper bound, which spares most evaluations (Minoux 1978).
"""

import heapq
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_picks", "greedy_picks", "marginal_gains", "upper_bound"]

_Floats = NDArray[np.float64]

_NEGLIGIBLE: Final = 1e-9
"""Gains below this share of the attainable value are rounding noise, not a reason to pick."""


def _gain(benefit: _Floats, reached: _Floats) -> float:
    # One expression for every evaluation: ties must not depend on how a sum was blocked.
    return float(np.maximum(benefit - reached, 0.0).sum())


def marginal_gains(benefit: _Floats, reached: _Floats) -> _Floats:
    """Gain of adding each request to a set that has reached `reached` at each point; (N,)."""
    return np.array([_gain(row, reached) for row in benefit], dtype=np.float64)


def greedy_picks(benefit: _Floats, ids: Sequence[str], budget: int) -> list[int]:
    """Pick the request with the largest gain, until the budget or the gains are used up.

    The result does not depend on the order of the rows: among equal gains the smaller id wins.

    Args:
        benefit: (N, P), at least 0.
        ids: N names.
        budget: Most picks.

    Returns:
        Row numbers in the order of picking.

    Cost: N evaluations of P points, then few per pick.
    """
    if benefit.size == 0:
        return []
    floor = _NEGLIGIBLE * float(benefit.max(axis=0).sum())
    reached = np.zeros(benefit.shape[1], dtype=np.float64)
    heap = [(-gain, ids[row], row, 0) for row, gain in enumerate(marginal_gains(benefit, reached))]
    heapq.heapify(heap)
    picks: list[int] = []
    while heap and len(picks) < budget:
        negative, name, row, stamp = heapq.heappop(heap)
        if -negative <= floor:
            break
        if stamp == len(picks):
            picks.append(row)
            reached = np.maximum(reached, benefit[row])
        else:
            heapq.heappush(heap, (-_gain(benefit[row], reached), name, row, len(picks)))
    return picks


def best_picks(benefit: _Floats, ids: Sequence[str], budget: int) -> list[int]:
    """Greedy picks, or the best request of each point where the budget has room for all of them.

    The best requests of all points attain everything, with at most P picks. Greedy may spend picks
    on compromises and miss that; it is only replaced where it attains less.

    Args:
        benefit: (N, P), at least 0.
        ids: N names.
        budget: Most picks.
    """
    picks = greedy_picks(benefit, ids, budget)
    if not picks or len(picks) < budget:
        return picks
    best = benefit.max(axis=0)
    if benefit[picks].max(axis=0).sum() >= best.sum() * (1.0 - _NEGLIGIBLE):
        return picks
    champions = sorted(
        {
            min(np.flatnonzero(column == top).tolist(), key=ids.__getitem__)
            for column, top in zip(benefit.T, best, strict=True)
            if top > 0
        }
    )
    if len(champions) > budget:
        return picks
    order = greedy_picks(benefit[champions], [ids[row] for row in champions], budget)
    return [champions[place] for place in order]


def upper_bound(benefit: _Floats, picks: Sequence[int], budget: int) -> tuple[float, float]:
    """Value of a set, and a bound on the value of any set of at most `budget` requests.

    Adding the best set to S gains at most the sum of its single gains, so
    OPT <= f(S) + the `budget` largest gains left; and OPT is at most f of all requests.

    Args:
        benefit: (N, P), at least 0.
        picks: Rows of the set S, chosen in any way.
        budget: Size of the sets that S is compared with.

    Returns:
        f(S), bound.
    """
    if benefit.size == 0:
        return 0.0, 0.0
    chosen = benefit[list(picks)]
    reached = chosen.max(axis=0) if len(chosen) else np.zeros(benefit.shape[1])
    value = float(reached.sum())
    left = np.sort(marginal_gains(benefit, reached))[::-1][:budget]
    return value, min(value + float(left.sum()), float(benefit.max(axis=0).sum()))

"""Canaries beside their peers: at most three looks, each fixed by units and not by the clock."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from calidrift_analyzer.records import (
    CanaryComparison,
    CanaryLook,
    CanaryMeasure,
    CanaryWindows,
)

__all__ = ["CANARY_RISK", "canary_units", "next_canary_look"]

CANARY_RISK: Final = 0.01
"""Most probability that canaries which are as good as their peers are called worse, ever."""
_SHARES: Final = (4, 2, 1)
"""A look is due where both sides have shown the wanted units divided by this."""
_TESTS: Final = len(_SHARES) * len(CanaryMeasure)


def canary_units(windows: CanaryWindows) -> tuple[int, int]:
    """Give the units that canaries have shown, and those of their peers in the same time.

    >>> nothing = np.zeros(0, np.int64)
    >>> table = np.zeros((0, 3), np.int64)
    >>> canary_units(CanaryWindows(nothing.astype(bool), nothing, nothing, table, table))
    (0, 0)
    """
    peers = _beside(windows)
    return int(windows.units[windows.canary].sum()), int(windows.units[peers].sum())


def next_canary_look(windows: CanaryWindows, units: int, taken: int) -> CanaryLook | None:
    """Take the next look at a canary, where both sides have shown enough for it.

    There are three looks: after a quarter, half, and all of `units`, counted on the side that has
    shown fewer. A look is made at the first windows, in the order of arrival, with which both
    sides have reached its mark. So what is looked at is settled by how many units there were and
    never by how they were, and it does not matter how often, or when, somebody asks.

    Each of the three measures is held against a one-sided Fisher test. Nine tests share the risk
    (Bonferroni): canaries that are as good as their peers, on the same mix of traffic, are called
    worse at any look by any measure with a probability of at most 1 %. Worked figures: with 1,000
    units on each side, 40 units outside beside 10 have p = 1e-5; the level is 0.0011.

    Args:
        windows: What both sides showed since the canary began.
        units: Units that each side must show in the end.
        taken: Looks that were taken before.

    Returns:
        The look; `None` where it is not due yet, or all were taken.
    """
    marks = sorted({-(-units // share) for share in _SHARES})
    if taken >= len(marks):
        return None
    mark, peers = marks[taken], _beside(windows)
    shown = [np.cumsum(np.where(side, windows.units, 0)) for side in (windows.canary, peers)]
    reached = np.flatnonzero(np.minimum(*shown) >= mark)
    if not reached.size:
        return None
    end = int(reached[0]) + 1
    canary, peers = windows.canary[:end], peers[:end]
    sums = [
        (table[:end][canary].sum(axis=0), table[:end][peers].sum(axis=0))
        for table in (windows.bad, windows.of)
    ]
    return CanaryLook(
        look=taken + 1,
        looks=len(marks),
        mark=mark,
        units=int(shown[0][end - 1]),
        peers=int(shown[1][end - 1]),
        comparisons=tuple(
            _compared(measure, *(int(side[place]) for table in sums for side in table))
            for place, measure in enumerate(CanaryMeasure)
        ),
        level=CANARY_RISK / _TESTS,
    )


def _beside(windows: CanaryWindows) -> NDArray[np.bool_]:
    """Windows of peers that began no earlier than the first one of a canary: the same time."""
    if not windows.canary.any():
        return np.zeros_like(windows.canary)
    begun_ns = windows.started_ns[windows.canary].min()
    beside: NDArray[np.bool_] = ~windows.canary & (windows.started_ns >= begun_ns)
    return beside


def _compared(
    measure: CanaryMeasure, canary_bad: int, peers_bad: int, canary_of: int, peers_of: int
) -> CanaryComparison:
    p: float | None = None
    if canary_of and peers_of:
        from scipy.stats import hypergeom

        # Fisher's exact test, "greater": the tail of the hypergeometric distribution itself.
        p = float(
            hypergeom.sf(canary_bad - 1, canary_of + peers_of, canary_bad + peers_bad, canary_of)
        )
    return CanaryComparison(
        measure=measure,
        canary_bad=canary_bad,
        canary_of=canary_of,
        peers_bad=peers_bad,
        peers_of=peers_of,
        p=p,
    )

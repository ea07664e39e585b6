"""Which points of a large model appear one by one in an exposition."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._export._families import ExportSnapshot
from calidrift_agent._vocabulary import CountColumn

OUTSIDE: Final = 1.25
"""Largest recent magnitude ÷ observed bound from which on a point is clearly outside: a unit that
passes its bound by a little is what chance brings once in every n + 1 units."""


@final
class ShownPoints:
    """Chooses at most `limit` points of one watch: the worst, and the same ones ever after.

    Worst is the largest recent magnitude ÷ observed bound, then the largest share of clipped
    elements. A point that was shown once stays, so that no series comes and goes. Hence not all
    places are given away at once: half of them go to the worst points of the first scrape that
    finds any observed, the others stay free for points that later pass their bound by a quarter
    (`OUTSIDE`), the worst first. A model with no more than `limit` points, or without observed
    bounds, needs no free places.

    Not safe for several threads at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[str] = set()

    def rows(self, snapshot: ExportSnapshot) -> list[int]:
        """Rows to show of this snapshot, ascending.

        Cost: 0.13 ms for 400 points.
        """
        points = snapshot.meta.points
        if len(points) <= self._limit:
            return list(range(len(points)))
        ratio, clipped = _badness(snapshot)
        bounded = any(point.observed_bound is not None for point in points)
        at_once = self._limit - self._limit // 2 if bounded else self._limit
        fired = snapshot.total.counts[:, CountColumn.ROWS] > 0
        for row in np.lexsort((-clipped, -ratio)).tolist():
            name = points[row].name
            room = self._limit if ratio[row] > OUTSIDE else at_once
            if fired[row] and len(self._names) < room:
                self._names.add(name)
        return [row for row, point in enumerate(points) if point.name in self._names]


def _badness(snapshot: ExportSnapshot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recent magnitude ÷ observed bound (0 where not known), and clipped share, per point (P,)."""
    bounds = [point.observed_bound for point in snapshot.meta.points]
    bound = np.array([np.inf if one is None else one for one in bounds], np.float64)
    recent = np.maximum(snapshot.recent_absmax, 0.0)
    # Beyond a bound of 0 (a point that was always 0) everything is infinitely far outside.
    ratio = np.where(recent > bound, np.inf, 0.0)
    np.divide(recent, bound, out=ratio, where=bound > 0)
    counts = snapshot.total.counts.astype(np.float64)
    clipped = counts[:, CountColumn.CLIP_LOW] + counts[:, CountColumn.CLIP_HIGH]
    return ratio, clipped / np.maximum(counts[:, CountColumn.CLIP_ELEMENTS], 1.0)

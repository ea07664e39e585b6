"""Sums over processes of one model, whose points need not be the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS
from calidrift_agent._state._buffer import MAX_SEGMENTS, OVERFLOW_SEGMENT
from calidrift_agent._state._meta import PointMeta, StateMeta
from calidrift_agent._state._window import (
    NO_WINDOW,
    SegmentCount,
    Window,
    empty_values,
    merge_extremes,
)
from calidrift_agent._vocabulary import COUNT_COLUMNS, ValueColumn

_ADDED: Final = (ValueColumn.RATIO_SUM, ValueColumn.CLIPPED_ENERGY, ValueColumn.ENERGY)


@final
class FleetSum:
    """The sum of what several processes of one model counted; points are matched by name.

    Workers of two versions of a model may run side by side, and the dead ones may have had other
    points than the living. Counts of equal names add. The bounds of a point are those of the
    first process that has any, in the order: `first`, then the one that started last; one without
    a profile hides nobody's. Of a point that a living process has, only the living are asked.

    Args:
        first: The process whose identity and points come first.
        others: The other processes, in any order.
        living: Those of them that live, `first` too if it does.

    Example:
        >>> from calidrift_agent._vocabulary import Instrument, Strategy
        >>> old, new = (StateMeta("0" * 32, "", 1, at, "net", "", Instrument.RANGE,
        ...                       Strategy.INSTEAD, "0.1.0", 10.0,
        ...                       tuple(map(PointMeta, names))) for at, names in ((1, "ab"),
        ...                                                                       (2, "bc")))
        >>> fleet = FleetSum(new, [old])
        >>> [point.name for point in fleet.meta.points]
        ['b', 'c', 'a']
    """

    def __init__(
        self, first: StateMeta, others: Sequence[StateMeta], living: Sequence[StateMeta] = ()
    ) -> None:
        newest_first = [first, *sorted(others, key=_started_ns, reverse=True)]
        points = _bounded(newest_first)
        alive = {meta.process for meta in living}
        points.update(_bounded([meta for meta in newest_first if meta.process in alive]))
        self.meta = replace(first, points=tuple(points.values()))
        self._rows = {name: row for row, name in enumerate(points)}
        self._total = Window.empty(len(points))

    def rows(self, meta: StateMeta) -> NDArray[np.intp]:
        """Row in the sum of each point of one process, shape (points of `meta`,)."""
        return np.array([self._rows[point.name] for point in meta.points], np.intp)

    def add(self, meta: StateMeta, window: Window) -> None:
        """Add what one process counted, at the cost of one pass over its sketches.

        Args:
            meta: One of the processes that the constructor was told of.
            window: Its sum.
        """
        names = [point.name for point in meta.points]
        aligned = window if names == list(self._rows) else self._aligned(meta, window)
        total = self._total
        requests = total.requests
        requests += aligned.requests
        counts = total.counts
        counts += aligned.counts
        cells = total.cells
        cells += aligned.cells
        total.values[:, _ADDED] += aligned.values[:, _ADDED]
        merge_extremes(total.values, total.values, aligned.values)
        began = [w.start_ns for w in (total, window) if w.end_ns]
        self._total = replace(
            total,
            start_ns=min(began, default=0),
            end_ns=max(total.end_ns, window.end_ns),
            flags=total.flags | window.flags,
            segments=_add_segments(total.segments, window.segments),
        )

    def total(self, sampling_ratio: float = 0.0) -> Window:
        """The sum, numbered `NO_WINDOW`: it is nobody's window.

        Args:
            sampling_ratio: What it is to say about the share of requests being sampled.
        """
        return replace(self._total, number=NO_WINDOW, sampling_ratio=sampling_ratio)

    def _aligned(self, meta: StateMeta, window: Window) -> Window:
        """The window of one process with the points of the sum."""
        points, rows = len(self._rows), self.rows(meta)
        counts = np.zeros((points, COUNT_COLUMNS), np.int64)
        values = empty_values(points)
        cells = np.zeros((points, CELLS), np.int64)
        counts[rows], values[rows], cells[rows] = window.counts, window.values, window.cells
        return replace(window, counts=counts, values=values, cells=cells)


def _started_ns(meta: StateMeta) -> int:
    return meta.started_ns


def _bounded(metas: Sequence[StateMeta]) -> dict[str, PointMeta]:
    """All points by name, each with the first bounds that one of these has for it."""
    points: dict[str, PointMeta] = {}
    for meta in metas:
        for point in meta.points:
            known = points.setdefault(point.name, point)
            if known.observed_bound is None and point.observed_bound is not None:
                known = replace(known, observed_bound=point.observed_bound)
            if known.clip_lo is None and point.clip_lo is not None:
                known = replace(known, clip_lo=point.clip_lo, clip_hi=point.clip_hi)
            points[point.name] = known
    return points


def _add_segments(
    first: tuple[SegmentCount, ...], second: tuple[SegmentCount, ...]
) -> tuple[SegmentCount, ...]:
    """Segments of both; as many names as one process may have, the rest under `(other)`."""
    sums = {segment.name: (segment.units, segment.covered) for segment in first}
    for segment in second:
        full = len(sums.keys() - {OVERFLOW_SEGMENT}) >= MAX_SEGMENTS
        name = OVERFLOW_SEGMENT if full and segment.name not in sums else segment.name
        units, covered = sums.get(name, (0, 0))
        sums[name] = (units + segment.units, covered + segment.covered)
    return tuple(SegmentCount(name, *pair) for name, pair in sums.items())

"""The drain: readings of one call, all points at once, added into the open window."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import count_rows
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps._framed import Padding
from calidrift_agent._taps._native import NATIVE
from calidrift_agent._taps._rails import RailFolder
from calidrift_agent._taps._reading import Seen, SeenColumn
from calidrift_agent._taps._recorder import Recorder
from calidrift_agent._taps._table import PointTable
from calidrift_agent._vocabulary import (
    RATIO_BOUNDS,
    CountColumn,
    RequestColumn,
    ValueColumn,
)

_BOUNDS: Final = np.array(RATIO_BOUNDS)
_NUMEL: Final = SeenColumn.NUMEL
_ELEMENT_COLUMNS: Final = np.array([CountColumn.ELEMENTS, CountColumn.NAN, CountColumn.INF])
_CLIP_COLUMNS: Final = np.array(
    [CountColumn.CLIP_ELEMENTS, CountColumn.CLIP_LOW, CountColumn.CLIP_HIGH]
)
_ENERGY_COLUMNS: Final = np.array([ValueColumn.CLIPPED_ENERGY, ValueColumn.ENERGY])
_GROUP: Final = 16
"""Samples put together at a time. One copy of all samples of 200 points holds the interpreter lock
for so long that another thread waited 0.43 ms; with groups it waited 0.29 ms (measured)."""


@final
@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known about an observed call beside its tensors.

    Attributes:
        rows: Rows of the request that are not padding.
        unit: The row that stands for the request, chosen at random; None where the call is not a
            unit of its own (a later request of a session, or a step that is folded into one).
        segment: Name of the request's segment, or None.
    """

    rows: int
    unit: int | None
    segment: str | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class RowMaxima:
    """Largest magnitude of each row at each point that fired.

    Attributes:
        points: int64 (n,), rows of the point table, ascending.
        absmax: float64 (n, rows); inf where a row holds a NaN or an infinity, NaN where it holds
            nothing but padding.
        exceeding: bool (rows,): the row is outside the observed bound of at least one point.
    """

    points: NDArray[np.int64]
    absmax: NDArray[np.float64]
    exceeding: NDArray[np.bool_]


@final
class Folder:
    """Adds readings into window buffers; used under the owner's lock.

    Args:
        table: Points and bounds.
        native: Let the native tap add up what it saw itself, where there is one.
    """

    __slots__ = ("_limited", "_native", "_rails", "_table")

    def __init__(self, table: PointTable, *, native: bool = True) -> None:
        self._table = table
        self._native = NATIVE if native else None
        self._limited = np.array([clip is not None for clip in table.clips], np.bool_)
        self._rails = RailFolder(table)

    def fold_ranges(
        self, recorder: Recorder, call: CallFacts, buffer: WindowBuffer
    ) -> RowMaxima | None:
        """Add sketches, extremes, units and coverage of a call.

        Returns:
            The maxima of its rows; None where no point fired.

        Cost: 2 us and 4 ns per sampled element for each tensor; a third of it where the native
        tap saw everything.
        """
        strip = recorder.harvest.sole_strip
        if strip is not None and self._native is not None and recorder.rows == call.rows:
            if not strip.marks:
                return None
            buffer.additions += 1
            fired, maxima = strip.add_ranges(buffer.cells, buffer.counts, buffer.values)
            points = np.frombuffer(fired, np.int64)
            absmax = np.frombuffer(maxima).reshape(-1, call.rows)
        else:
            seen = recorder.harvest.seen()
            if not len(seen.counts):
                return None
            _add_cells(recorder, buffer)
            points, absmax = _add_ranges(seen, call.rows, buffer)
        observed = self._table.observed[points]
        exceeding = np.any(absmax > observed[:, None], axis=0)
        if call.unit is not None:
            self.fold_unit(points, absmax[:, call.unit], call.segment, buffer)
        return RowMaxima(points, absmax, np.asarray(exceeding))

    def fold_unit(
        self,
        points: NDArray[np.int64],
        absmax: NDArray[np.float64],
        segment: str | None,
        buffer: WindowBuffer,
    ) -> None:
        """Add one unit of inference: its magnitudes, its coverage, its ratios to observed bounds.

        Args:
            points: int64 (n,), points at which it was seen, ascending.
            absmax: float64 (n,), its largest magnitudes; NaN where it was not seen after all.
            segment: Name of its segment, or None.
            buffer: The open window.
        """
        observed = self._table.observed
        if self._native is None:
            covered = _add_unit(points, absmax, observed[points], buffer)
        else:
            row = np.ascontiguousarray(absmax)
            counts, values = buffer.counts, buffer.values
            covered = self._native.add_unit(points, row, observed, _BOUNDS, counts, values)
        if covered is None:
            return
        buffer.requests[RequestColumn.UNITS] += 1
        buffer.requests[RequestColumn.UNITS_COVERED] += covered
        if segment is not None:
            buffer.add_segment(segment, 1, int(covered))

    def fold_clips(self, recorder: Recorder, buffer: WindowBuffer) -> None:
        """Add what the clip ranges of a call cut off, exactly, and the energy they saw."""
        strip = recorder.harvest.sole_strip
        if strip is not None and self._native is not None:
            strip.add_clips(buffer.counts, buffer.values)
            self._rails.fold(recorder.codes, buffer)
            return
        seen = recorder.harvest.seen()
        limited = self._limited[seen.points]
        points = seen.points[limited, None]
        counts = seen.counts[limited][:, (_NUMEL, SeenColumn.CLIP_LOW, SeenColumn.CLIP_HIGH)]
        np.add.at(buffer.counts, (points, _CLIP_COLUMNS), counts)
        np.add.at(buffer.values, (points, _ENERGY_COLUMNS), seen.energies[limited])
        self._rails.fold(recorder.codes, buffer)

    def fold_presence(
        self, recorder: Recorder, rows: int, ranged: Container[int], buffer: WindowBuffer
    ) -> None:
        """Add what was there at points of which only clipping is measured: rows and elements.

        Args:
            recorder: What was seen in the served model.
            rows: Rows of the call.
            ranged: Points whose ranges were measured in this call: counted there already.
            buffer: The open window.
        """
        seen = recorder.harvest.seen()
        clips = enumerate(self._table.clips)
        wanted = np.array([clip is not None and point not in ranged for point, clip in clips])
        counts = seen.counts[wanted[seen.points]]
        _add_elements(counts, buffer)
        fired = set(counts[:, SeenColumn.POINT].tolist())
        for padded, padding in seen.padded:
            for point in padded:
                if wanted[point]:
                    buffer.counts[point, CountColumn.PADDED_ELEMENTS] += padding.elements
        for codes in recorder.codes:
            if codes.point not in ranged:
                fired.add(codes.point)
                counts = buffer.counts[codes.point]
                counts[CountColumn.ELEMENTS] += codes.numel
                counts[CountColumn.PADDED_ELEMENTS] += codes.padded
        buffer.counts[sorted(fired), CountColumn.ROWS] += rows


def _add_elements(counts: NDArray[np.int64], buffer: WindowBuffer) -> None:
    """Add the elements of each point, and those that are not finite; rows as in `Seen.counts`."""
    rows = (counts[:, SeenColumn.POINT, None], _ELEMENT_COLUMNS)
    np.add.at(buffer.counts, rows, counts[:, (_NUMEL, SeenColumn.NAN, SeenColumn.INF)])


def _add_cells(recorder: Recorder, buffer: WindowBuffer) -> None:
    """Bucket all samples, straight into the rows of their points."""
    cells = buffer.cells
    buffer.additions += 1
    harvest = recorder.harvest
    if harvest.strip is not None:
        harvest.strip.fold(cells)
    readings = harvest.samples()
    for start in range(0, len(readings), _GROUP):
        group = readings[start : start + _GROUP]
        sizes = np.array([reading.sample.size for reading in group], np.int64)
        counts = count_rows(np.concatenate([reading.sample for reading in group]), sizes)
        counts *= np.array([reading.weight for reading in group])[:, None]
        for reading, counted in zip(group, counts, strict=True):
            for point in reading.points:
                row = cells[point]
                row += counted


def _by_point(
    seen: Seen,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Merge what was seen of one point (a module may run several times in a call).

    Returns:
        Points (n,), ascending; largest and smallest finite value (n, rows) of each; and largest
        magnitude (n, rows), inf where a row holds a value that is not finite.
    """
    points = seen.points
    order = np.argsort(points, kind="stable")
    points, highs, lows = points[order], seen.highs[order], seen.lows[order]
    absmax = seen.absmax[order]
    first = np.flatnonzero(np.diff(points, prepend=-1))
    if first.size == points.size:
        return points, highs, lows, absmax
    return (
        points[first],
        np.maximum.reduceat(highs, first, axis=0),
        np.minimum.reduceat(lows, first, axis=0),
        np.fmax.reduceat(absmax, first, axis=0),
    )


def _add_ranges(
    seen: Seen, rows: int, buffer: WindowBuffer
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Add rows, elements and extremes; return the points that fired, and `RowMaxima.absmax`."""
    points, highs, lows, absmax = _by_point(seen)
    counts, values = buffer.counts, buffer.values
    low, high = ValueColumn.LOWEST, ValueColumn.HIGHEST
    values[points, low] = np.minimum(values[points, low], lows.min(axis=1))
    values[points, high] = np.maximum(values[points, high], highs.max(axis=1))
    present = np.count_nonzero(~np.isnan(absmax), axis=1)
    counts[points, CountColumn.ROWS] += np.minimum(present, rows)
    _add_elements(seen.counts, buffer)
    for padded, padding in seen.padded:
        _add_padding(padded, padding, buffer)
    return points, absmax


def _add_unit(
    points: NDArray[np.int64],
    absmax: NDArray[np.float64],
    observed: NDArray[np.float64],
    buffer: WindowBuffer,
) -> bool | None:
    """Add a unit to its points; None where no bound is known, else whether it was covered."""
    seen = ~np.isnan(absmax)
    broken = np.isinf(absmax)
    buffer.counts[points[seen], CountColumn.UNITS_MEASURED] += 1
    buffer.counts[points[broken], CountColumn.UNITS_NOT_FINITE] += 1
    whole = seen & ~broken
    highest = points[whole], ValueColumn.UNIT_HIGHEST
    buffer.values[highest] = np.maximum(buffer.values[highest], absmax[whole])
    known = np.isfinite(observed) & seen
    if not known.any():
        return None
    points, absmax, observed = points[known], absmax[known], observed[known]
    exceeds = absmax > observed
    # A bound of 0 (a point that was always 0): inside means 0, and any other value is outside.
    ratio = np.where(exceeds, np.inf, 0.0)
    np.divide(absmax, observed, out=ratio, where=observed > 0)
    counts = buffer.counts
    counts[points, CountColumn.UNITS] += 1
    counts[points, CountColumn.EXCEEDANCES] += exceeds
    counts[points, CountColumn.RATIO_FIRST + np.searchsorted(_BOUNDS, ratio)] += 1
    finite = np.isfinite(ratio)
    buffer.values[points[finite], ValueColumn.RATIO_SUM] += ratio[finite]
    return not bool(exceeds.any())


def _add_padding(points: Sequence[int], padding: Padding, buffer: WindowBuffer) -> None:
    low, high = ValueColumn.PADDED_LOWEST, ValueColumn.PADDED_HIGHEST
    for point in points:
        buffer.counts[point, CountColumn.PADDED_ELEMENTS] += padding.elements
        values = buffer.values[point]
        values[low] = min(values[low], padding.lowest)
        values[high] = max(values[high], padding.highest)

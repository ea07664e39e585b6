"""Windows as Arrow tables: one bulk insert per table, never row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._state import StateMeta, Window
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import CaptureEntry
from calidrift_analyzer.store._columns import COUNT_NAMES, REQUEST_NAMES, VALUE_NAMES

__all__ = ["WindowRows", "capture_rows", "point_rows"]

_TIME: Final = pa.timestamp("ns")
_CELL: Final = pa.struct([("cell", pa.uint16()), ("count", pa.int64())])
_MOST: Final = 2**31 - 1
"""Cells that the offsets of one Arrow list array reach."""


def point_rows(process_id: int, meta: StateMeta) -> pa.Table:
    """Give the rows of `process_points`."""
    points = meta.points
    return pa.table(
        {
            "process_id": pa.array([process_id] * len(points), pa.int32()),
            "position": pa.array(range(len(points)), pa.int32()),
            "point": pa.array([point.name for point in points], pa.string()),
            "observed_bound": pa.array([point.observed_bound for point in points], pa.float64()),
            "clip_lo": pa.array([point.clip_lo for point in points], pa.float64()),
            "clip_hi": pa.array([point.clip_hi for point in points], pa.float64()),
            "aliases": pa.array([list(point.aliases) for point in points], pa.list_(pa.string())),
        }
    )


@final
class WindowRows:
    """Collects windows of one process in sparse form, and gives each table as one Arrow batch.

    A dense window of 200 points takes 2 MB, its rows about 0.2 MB, so windows are added one by one
    and let go. One batch per table: DuckDB takes a batch of 200 rows at a time four times as long
    as their whole.

    Args:
        process_id: Key of the process.
        batch: Number of the collect run.
    """

    def __init__(self, process_id: int, batch: int) -> None:
        self._process_id = process_id
        self._batch = batch
        self._heads: list[tuple[int, int, int, int, float]] = []
        self._requests: list[NDArray[np.int64]] = []
        self._segments: list[tuple[int, str, int, int]] = []
        self._points: list[_PointRows] = []

    def add(self, window: Window) -> None:
        """Take over one window."""
        self._heads.append(
            (
                window.number,
                window.start_ns,
                window.end_ns,
                int(window.flags),
                window.sampling_ratio,
            )
        )
        self._requests.append(window.requests.copy())
        self._segments.extend(
            (window.number, segment.name, segment.units, segment.covered)
            for segment in window.segments
        )
        rows = _point_rows(window)
        if rows.active.size:
            self._points.append(rows)

    def tables(self) -> dict[str, pa.Table]:
        """Give the rows by table name."""
        tables = {"windows": self._window_table()}
        if self._segments:
            numbers, names, units, covered = zip(*self._segments, strict=True)
            tables["segment_counts"] = pa.table(
                {
                    "process_id": self._same(len(names)),
                    "number": pa.array(numbers, pa.int64()),
                    "segment": pa.array(names, pa.string()),
                    "units": pa.array(units, pa.int64()),
                    "covered": pa.array(covered, pa.int64()),
                }
            )
        if self._points:
            tables["point_windows"] = self._point_table()
        return tables

    def _same(self, length: int) -> pa.Array:
        return pa.array(np.full(length, self._process_id, np.int32))

    def _window_table(self) -> pa.Table:
        numbers, starts, ends, flags, ratios = zip(*self._heads, strict=True)
        columns: dict[str, Any] = {
            "process_id": self._same(len(numbers)),
            "number": pa.array(numbers, pa.int64()),
            "batch": pa.array(np.full(len(numbers), self._batch, np.int64)),
            "started": pa.array(starts, _TIME),
            "ended": pa.array(ends, _TIME),
            "flags": pa.array(flags, pa.int32()),
            "sampling_ratio": pa.array(ratios, pa.float64()),
        }
        requests = np.stack(self._requests)
        columns |= {name: pa.array(requests[:, i]) for i, name in enumerate(REQUEST_NAMES)}
        return pa.table(columns)

    def _point_table(self) -> pa.Table:
        rows = self._points
        sizes = [one.active.size for one in rows]
        columns: dict[str, Any] = {
            "process_id": self._same(sum(sizes)),
            "number": pa.array(np.repeat(np.array([one.number for one in rows]), sizes)),
            "position": pa.array(np.concatenate([one.active for one in rows]).astype(np.int32)),
        }
        # Columns one behind the other, as Arrow holds them: nothing is copied again.
        counts = np.ascontiguousarray(np.concatenate([one.counts for one in rows]).T)
        values = np.ascontiguousarray(np.concatenate([one.values for one in rows]).T)
        columns |= {name: pa.array(counts[i]) for i, name in enumerate(COUNT_NAMES)}
        columns |= {name: pa.array(values[i]) for i, name in enumerate(VALUE_NAMES)}
        columns["cells"] = _lists(rows)
        return pa.table(columns)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _PointRows:
    """The points of one window at which anything happened.

    Attributes:
        number: Number of the window.
        active: `(A,)` rows of these points.
        counts: `(A, COUNT_COLUMNS)` int64.
        values: `(A, VALUE_COLUMNS)` float64.
        lengths: `(A,)` int64, how many cells of each are occupied.
        cells: uint16, the occupied cells, point by point, ascending.
        found: int64, what is in each of them.
    """

    number: int
    active: NDArray[np.intp]
    counts: NDArray[np.int64]
    values: NDArray[np.float64]
    lengths: NDArray[np.int64]
    cells: NDArray[np.uint16]
    found: NDArray[np.int64]


def _point_rows(window: Window) -> _PointRows:
    flat = window.cells.ravel()
    # Where a flat array of booleans is true is found ten times as fast as where a matrix is not 0.
    where = np.flatnonzero(flat != 0)
    points, width = window.cells.shape
    ends = np.searchsorted(where, np.arange(points + 1) * width)
    lengths = np.diff(ends)
    active = np.flatnonzero(window.counts.any(axis=1) | (lengths > 0))
    return _PointRows(
        number=window.number,
        active=active,
        counts=window.counts[active],
        values=window.values[active],
        lengths=lengths[active],
        cells=(where - np.repeat(np.arange(points) * width, lengths)).astype(np.uint16),
        found=flat[where],
    )


def _lists(rows: Sequence[_PointRows]) -> pa.Array:
    """Lists of (cell, count), one per row; points without cells have none in `cells` either."""
    ends = np.cumsum(np.concatenate([one.lengths for one in rows]))
    if ends[-1] > _MOST:
        raise StoreError(
            f"{ends[-1]:,} occupied cells in one call, but a table can hold {_MOST:,}; hand in "
            "fewer windows at a time"
        )
    pairs = pa.StructArray.from_arrays(
        [
            pa.array(np.concatenate([one.cells for one in rows])),
            pa.array(np.concatenate([one.found for one in rows])),
        ],
        fields=list(_CELL),
    )
    return pa.ListArray.from_arrays(np.concatenate(([0], ends)).astype(np.int32), pairs)


def capture_rows(rows: Sequence[CaptureEntry]) -> pa.Table:
    """Give the rows of `captures`."""
    return pa.table(
        {
            "path": pa.array([row.path for row in rows], pa.string()),
            "process": pa.array([row.process for row in rows], pa.string()),
            "model": pa.array([row.model for row in rows], pa.string()),
            "profile": pa.array([row.profile for row in rows], pa.string()),
            "kind": pa.array([row.kind.value for row in rows], pa.string()),
            "captured": pa.array([row.captured_ns for row in rows], _TIME),
            "segment": pa.array([row.segment for row in rows], pa.string()),
            "size": pa.array([row.size for row in rows], pa.int64()),
        }
    )

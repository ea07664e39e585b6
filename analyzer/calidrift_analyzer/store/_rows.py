"""Windows as Arrow tables: one bulk insert per table, never row by row."""

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._state import StateMeta, Window
from calidrift_analyzer.records import CaptureEntry
from calidrift_analyzer.store._columns import COUNT_NAMES, REQUEST_NAMES, VALUE_NAMES

__all__ = ["WindowRows", "capture_rows", "point_rows"]

_TIME: Final = pa.timestamp("ns")
_CELL: Final = pa.struct([("cell", pa.uint16()), ("count", pa.int64())])


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
    """Collects windows of one process in sparse form.

    A dense window of 200 points takes 2 MB, its rows about 0.2 MB, so windows are added one by one
    and let go.

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
        self._points: list[pa.Table] = []

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
        active = np.flatnonzero(window.counts.any(axis=1) | window.cells.any(axis=1))
        if active.size:
            self._points.append(self._point_table(window, active))

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
            tables["point_windows"] = pa.concat_tables(self._points)
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

    def _point_table(self, window: Window, active: NDArray[np.intp]) -> pa.Table:
        columns: dict[str, Any] = {
            "process_id": self._same(active.size),
            "number": pa.array(np.full(active.size, window.number, np.int64)),
            "position": pa.array(active.astype(np.int32)),
        }
        counts, values = window.counts[active], window.values[active]
        columns |= {name: pa.array(counts[:, i]) for i, name in enumerate(COUNT_NAMES)}
        columns |= {name: pa.array(values[:, i]) for i, name in enumerate(VALUE_NAMES)}
        columns["cells"] = _sparse(window.cells[active])
        return pa.table(columns)


def _sparse(cells: NDArray[np.int64]) -> pa.Array:
    rows, found = np.nonzero(cells)
    ends = np.cumsum(np.bincount(rows, minlength=cells.shape[0]))
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    pairs = pa.StructArray.from_arrays(
        [pa.array(found.astype(np.uint16)), pa.array(cells[rows, found])], fields=list(_CELL)
    )
    return pa.ListArray.from_arrays(offsets, pairs)


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

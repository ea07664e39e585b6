"""Sums and histories out of the database, as the arrays that the rest of the analyzer uses."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import SegmentCount, StateMeta, Window, empty_values
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    Instrument,
    WindowFlag,
)
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import (
    ComparedHistory,
    ModelHistory,
    ModelTotals,
    PointTotals,
    SegmentHistory,
    SegmentTotals,
)
from calidrift_analyzer.store._columns import COUNT_NAMES, REQUEST_NAMES, VALUE_NAMES
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["read_history", "read_sums", "read_totals"]

_Arguments = dict[str, Any]


@final
class _Sums:
    """Dense arrays of P points, filled from sparse query results.

    Args:
        index: Row of each point.
    """

    def __init__(self, index: Mapping[str, int]) -> None:
        points = len(index)
        self._index = index
        self.counts: NDArray[np.int64] = np.zeros((points, COUNT_COLUMNS), np.int64)
        self.values: NDArray[np.float64] = empty_values(points)
        self.cells: NDArray[np.int64] = np.zeros((points, CELLS), np.int64)

    def read(self, connection: Connection, arguments: _Arguments) -> None:
        """Fill all arrays."""
        found = connection.table(query("point_totals"), arguments)
        rows = _rows(found, self._index)
        for column, name in enumerate(COUNT_NAMES):
            self.counts[rows, column] = found.column(name).to_numpy()
        for column, name in enumerate(VALUE_NAMES):
            self.values[rows, column] = found.column(name).to_numpy()
        found = connection.table(query("cell_totals"), arguments)
        where = _rows(found, self._index), found.column("cell").to_numpy()
        self.cells[where] = found.column("count").to_numpy()


def read_totals(
    connection: Connection,
    model: str,
    profile: str,
    instrument: Instrument | None,
    since_ns: int,
) -> ModelTotals:
    """Sum all windows of a model; see `Store.totals`."""
    chosen = _instrument(connection, model, profile, instrument)
    if chosen is None:
        return ModelTotals(model, profile, None, (), np.zeros(REQUEST_COLUMNS, np.int64))
    arguments = _arguments(model, profile, chosen)
    names, index = _names(connection, arguments)
    arguments |= {"since": since_ns, "process": None, "through": None}
    sums = _Sums(index)
    sums.read(connection, arguments)
    head, requests = _requests(connection, arguments)
    segments = connection.rows(query("segment_totals"), arguments)
    return ModelTotals(
        model=model,
        profile=profile,
        instrument=chosen,
        points=tuple(
            PointTotals(name, sums.counts[row], sums.values[row], sums.cells[row])
            for row, name in enumerate(names)
        ),
        requests=requests,
        segments=tuple(SegmentTotals(str(name), int(u), int(c)) for name, u, c in segments),
        processes=head["processes"],
        windows=head["windows"],
        coarse_windows=head["coarse_windows"],
        first_ns=head["first_ns"],
        last_ns=head["last_ns"],
    )


def read_history(
    connection: Connection, model: str, profile: str, instrument: Instrument | None
) -> ModelHistory:
    """List all windows of a model in the order of looks; see `Store.history`."""
    chosen = _instrument(connection, model, profile, instrument)
    names: tuple[str, ...] = ()
    looks = np.zeros((4, 0), np.int64)
    segments: tuple[SegmentHistory, ...] = ()
    compared: ComparedHistory | None = None
    units = exceedances = np.zeros((0, 0), np.int64)
    if chosen is not None:
        arguments = _arguments(model, profile, chosen)
        names, index = _names(connection, arguments)
        found = connection.table(query("history_windows"), arguments)
        looks = np.stack(
            [
                found.column(name).to_numpy().astype(np.int64)
                for name in ("end_ns", "seen", "units", "covered")
            ]
        )
        units = np.zeros((looks.shape[1], len(names)), np.int64)
        exceedances = np.zeros_like(units)
        found = connection.table(query("history_points"), arguments)
        where = found.column("look").to_numpy(), _rows(found, index)
        units[where] = found.column("units").to_numpy()
        exceedances[where] = found.column("exceedances").to_numpy()
        counted = connection.rows(query("reference_segments_of"), {"profile": profile})
        segments = _segments(
            connection.table(query("history_segments"), arguments),
            {str(name): int(units) for name, units in counted},
        )
        compared = _compared(connection.table(query("history_compared"), arguments))
    return ModelHistory(
        model=model,
        profile=profile,
        points=names,
        end_ns=looks[0],
        seen=looks[1],
        request_units=looks[2],
        request_covered=looks[3],
        units=units,
        exceedances=exceedances,
        segments=segments,
        compared=compared,
    )


def _compared(found: pa.Table) -> ComparedHistory | None:
    """Comparisons with the reference model, in the order of looks."""
    if not found.num_rows:
        return None
    return ComparedHistory(
        *(
            found.column(name).to_numpy().astype(np.int64)
            for name in ("look", "compared", "ranked", "agreed", "noise_ppb")
        )
    )


def _segments(found: pa.Table, counted: Mapping[str, int]) -> tuple[SegmentHistory, ...]:
    """Cut rows in the order of looks into one history per segment, the first to appear first.

    Args:
        found: The rows.
        counted: Units of the reference by segment; empty where nobody counted them.
    """
    names = np.array(found.column("segment").to_pylist(), dtype=object)
    looks, units, covered = (
        found.column(name).to_numpy().astype(np.int64) for name in ("look", "units", "covered")
    )
    return tuple(
        SegmentHistory(
            name, looks[rows], units[rows], covered[rows], counted.get(name, 0) if counted else None
        )
        for name in dict.fromkeys(names.tolist())
        if (rows := np.flatnonzero(names == name)).size
    )


def read_sums(connection: Connection, meta: StateMeta, through: int | None = None) -> Window:
    """Sum what is stored of one process; see `Store.sums`.

    Args:
        connection: The open database.
        meta: The process.
        through: Number of the last window to sum; all of them where left out.
    """
    arguments = _arguments(meta.model, meta.profile, meta.instrument)
    arguments |= {"since": -1, "process": meta.process, "through": through}
    # Points are told apart by name, which is what profiles know them by.
    sums = _Sums({point.name: row for row, point in enumerate(meta.points)})
    sums.read(connection, arguments)
    head, requests = _requests(connection, arguments)
    segments = connection.rows(query("segment_totals"), arguments)
    return Window(
        number=head["last_number"],
        start_ns=head["first_ns"],
        end_ns=head["last_ns"],
        flags=WindowFlag(head["flags"]),
        sampling_ratio=0.0,
        requests=requests,
        segments=tuple(SegmentCount(str(name), int(u), int(c)) for name, u, c in segments),
        counts=sums.counts,
        values=sums.values,
        cells=sums.cells,
    )


def _arguments(model: str, profile: str, instrument: Instrument) -> _Arguments:
    return {"model": model, "profile": profile, "instrument": instrument.value}


def _requests(
    connection: Connection, arguments: _Arguments
) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Sum the request counters; the other figures of the row by name."""
    found = connection.table(query("request_totals"), arguments)
    head = {name: int(value) for name, value in found.to_pylist()[0].items()}
    return head, np.array([head.pop(name) for name in REQUEST_NAMES], np.int64)


def _instrument(
    connection: Connection, model: str, profile: str, wanted: Instrument | None
) -> Instrument | None:
    rows = connection.rows(query("instruments"), {"model": model, "profile": profile})
    found = [Instrument(name) for (name,) in rows]
    if wanted is not None:
        return wanted if wanted in found else None
    if len(found) > 1:
        listed = " and ".join(found)
        raise StoreError(
            f"model {model!r} was recorded with two instruments ({listed}) under one profile; "
            "their figures are never added: ask for one of them"
        )
    return found[0] if found else None


def _names(connection: Connection, arguments: _Arguments) -> tuple[tuple[str, ...], dict[str, int]]:
    names = tuple(str(name) for (name,) in connection.rows(query("point_names"), arguments))
    return names, {name: row for row, name in enumerate(names)}


def _rows(found: pa.Table, index: Mapping[str, int]) -> NDArray[np.intp]:
    points: Sequence[str] = found.column("point").to_pylist()
    return np.fromiter((index[point] for point in points), np.intp, count=len(points))

"""Sums and histories out of the database, as the arrays that the rest of the analyzer uses."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS
from calidrift_agent._state import SegmentCount, Window, empty_values
from calidrift_agent._vocabulary import (
    COUNT_COLUMNS,
    REQUEST_COLUMNS,
    Instrument,
    WindowFlag,
)
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.records import ModelHistory, ModelTotals, PointTotals, SegmentTotals
from calidrift_analyzer.store._columns import COUNT_NAMES, VALUE_NAMES
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["read_history", "read_sums", "read_totals"]

_Arguments = dict[str, Any]


@final
class _Sums:
    """Dense arrays of P points, filled from sparse query results."""

    def __init__(self, points: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((points, COUNT_COLUMNS), np.int64)
        self.values: NDArray[np.float64] = empty_values(points)
        self.cells: NDArray[np.int64] = np.zeros((points, CELLS), np.int64)

    def fill(self, sums: pa.Table, rows: NDArray[np.intp]) -> None:
        for column, name in enumerate(COUNT_NAMES):
            self.counts[rows, column] = sums.column(name).to_numpy()
        for column, name in enumerate(VALUE_NAMES):
            self.values[rows, column] = sums.column(name).to_numpy()

    def fill_cells(self, sums: pa.Table, rows: NDArray[np.intp]) -> None:
        self.cells[rows, sums.column("cell").to_numpy()] = sums.column("count").to_numpy()


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
    arguments["since"] = since_ns
    sums = _Sums(len(names))
    found = connection.table(query("point_totals"), arguments)
    sums.fill(found, _rows(found, index))
    found = connection.table(query("cell_totals"), arguments)
    sums.fill_cells(found, _rows(found, index))
    head = connection.rows(
        query("request_totals"), {**arguments, "coarse": int(WindowFlag.COARSE)}
    )[0]
    windows, coarse, processes, first_ns, last_ns, *requests = (int(value) for value in head)
    segments = connection.rows(query("segment_totals"), arguments)
    return ModelTotals(
        model=model,
        profile=profile,
        instrument=chosen,
        points=tuple(
            PointTotals(name, sums.counts[row], sums.values[row], sums.cells[row])
            for row, name in enumerate(names)
        ),
        requests=np.array(requests, np.int64),
        segments=tuple(SegmentTotals(str(name), int(u), int(c)) for name, u, c in segments),
        processes=processes,
        windows=windows,
        coarse_windows=coarse,
        first_ns=first_ns,
        last_ns=last_ns,
    )


def read_history(
    connection: Connection, model: str, profile: str, instrument: Instrument | None
) -> ModelHistory:
    """List all windows of a model in the order of looks; see `Store.history`."""
    chosen = _instrument(connection, model, profile, instrument)
    names: tuple[str, ...] = ()
    looks = np.zeros((3, 0), np.int64)
    units = exceedances = np.zeros((0, 0), np.int64)
    if chosen is not None:
        arguments = _arguments(model, profile, chosen)
        names, index = _names(connection, arguments)
        found = connection.table(query("history_windows"), arguments)
        looks = np.stack(
            [found.column(name).to_numpy().astype(np.int64) for name in ("end_ns", "seen", "units")]
        )
        units = np.zeros((looks.shape[1], len(names)), np.int64)
        exceedances = np.zeros_like(units)
        found = connection.table(query("history_points"), arguments)
        where = found.column("look").to_numpy(), _rows(found, index)
        units[where] = found.column("units").to_numpy()
        exceedances[where] = found.column("exceedances").to_numpy()
    return ModelHistory(
        model=model,
        profile=profile,
        points=names,
        end_ns=looks[0],
        seen=looks[1],
        request_units=looks[2],
        units=units,
        exceedances=exceedances,
    )


def read_sums(connection: Connection, process_id: int, points: int) -> Window:
    """Sum what is stored of one process; see `Store.sums`."""
    arguments: _Arguments = {"process_id": process_id}
    head = connection.rows(query("process_sums"), arguments)[0]
    number, start_ns, end_ns, flags, *requests = (int(value) for value in head)
    sums = _Sums(points)
    found = connection.table(query("process_point_sums"), arguments)
    sums.fill(found, found.column("position").to_numpy())
    found = connection.table(query("process_cell_sums"), arguments)
    sums.fill_cells(found, found.column("position").to_numpy())
    segments = connection.rows(query("process_segment_sums"), arguments)
    return Window(
        number=number,
        start_ns=start_ns,
        end_ns=end_ns,
        flags=WindowFlag(flags),
        sampling_ratio=0.0,
        requests=np.array(requests, np.int64),
        segments=tuple(SegmentCount(str(name), int(u), int(c)) for name, u, c in segments),
        counts=sums.counts,
        values=sums.values,
        cells=sums.cells,
    )


def _arguments(model: str, profile: str, instrument: Instrument) -> _Arguments:
    return {"model": model, "profile": profile, "instrument": instrument.value}


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

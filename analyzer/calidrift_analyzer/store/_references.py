"""Random units of production out of the database, for a reference that is learned from them."""

from collections import defaultdict
from typing import final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from calidrift_agent._sketch import CELLS, MagnitudeSketch
from calidrift_agent._vocabulary import Instrument
from calidrift_analyzer.records import ObservedUnits, PointUnits
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["References"]


@final
class References:
    """Reads what a reference can be learned from. Got from `Store.references`.

    Args:
        connection: The open database.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def first_units(
        self, model: str, profile: str, instrument: Instrument, wanted: int
    ) -> ObservedUnits:
        """Give the first random units that were observed under a profile.

        As many whole windows as hold `wanted` units, in the order in which they arrived; all there
        are where these hold fewer. Where retention has folded windows, the folded record is taken
        whole.

        Args:
            model: Name of the model.
            profile: Digest of the profile.
            instrument: What they were measured on.
            wanted: How many units, at least 1.

        Returns:
            The units; none where agents of an older version wrote the windows.

        Cost: one pass over the records of the profile, without their sketches; then as `totals`
        over those that were taken.
        """
        arguments = {"model": model, "profile": profile, "instrument": instrument.value}
        self._connection.rows(query("reference_choose"), {**arguments, "units": wanted})
        head = self._connection.table(query("reference_heads"), {}).to_pylist()[0]
        return ObservedUnits(
            model=model,
            profile=profile,
            instrument=instrument,
            wanted=wanted,
            units=int(head["units"]),
            measured=int(head["measured"]),
            began_ns=int(head["began_ns"]),
            until_ns=int(head["seen_until_ns"]),
            first_ns=int(head["first_ns"]),
            last_ns=int(head["last_ns"]),
            windows=int(head["windows"]),
            coarse_windows=int(head["coarse_windows"]),
            points=self._points(),
        )

    def _points(self) -> tuple[PointUnits, ...]:
        cells = _cells(self._connection.table(query("reference_cells"), {}))
        found = self._connection.table(query("reference_points"), {}).to_pylist()
        return tuple(
            PointUnits(
                name=str(row["point"]),
                units=int(row["units"]),
                not_finite=int(row["not_finite"]),
                highest=float(row["unit_highest"]) if row["unit_highest"] >= 0.0 else None,
                sketch=MagnitudeSketch.from_cells(
                    cells[str(row["point"])], float(row["lowest"]), float(row["highest"])
                ),
            )
            for row in found
        )


def _cells(found: pa.Table) -> defaultdict[str, NDArray[np.int64]]:
    merged: defaultdict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(CELLS, np.int64))
    columns = (found.column(name).to_pylist() for name in ("point", "cell", "count"))
    for point, cell, count in zip(*columns, strict=True):
        merged[point][cell] = count
    return merged

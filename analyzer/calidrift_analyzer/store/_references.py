"""Random units of production out of the database, for a reference that is learned from them."""

from collections import defaultdict
from collections.abc import Mapping
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
            segments=self._segments(int(head["units"]), int(head["compared"])),
        )

    def put_segments(self, profile: str, segments: Mapping[str, int]) -> None:
        """Keep how many units of a learned reference were of which segment; once for a profile.

        Args:
            profile: Digest of the profile with the reference.
            segments: Units by segment; an empty name for those of none.
        """
        with self._connection.transaction():
            for name, units in segments.items():
                self._connection.rows(
                    query("reference_segments_add"),
                    {"profile": profile, "segment": name, "units": units},
                )

    def _segments(self, units: int, compared: int) -> dict[str, int] | None:
        """Units by segment; None where agents did not count all of them.

        They count a unit where it can be compared with a bound. One that they passed over would be
        missing in its segment.
        """
        if not units or compared < units:
            return None
        found = {
            str(name): int(n) for name, n in self._connection.rows(query("reference_segments"))
        }
        rest = compared - sum(count for name, count in found.items() if name)
        return {**found, "": max(0, rest)}

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

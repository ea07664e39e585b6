"""What the store says about the windows of one model: sums per point, and their order in time."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._vocabulary import CountColumn, Instrument, RequestColumn, ValueColumn

__all__ = [
    "ComparedHistory",
    "ModelHistory",
    "ModelTotals",
    "ObservedModel",
    "PointTotals",
    "SegmentHistory",
    "SegmentTotals",
]

_RUNNING: Final = 10
"""Sampled requests that may be under way at any moment."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class PointTotals:
    """Everything recorded about one point, merged over all windows of all processes.

    Attributes:
        name: Name of the point.
        counts: `(COUNT_COLUMNS,)` int64, the sums, in the order of `CountColumn`.
        values: `(VALUE_COLUMNS,)` float64, in the order of `ValueColumn`: extremes of extremes,
            sums of sums. Sums of floats may differ in the last bits between two reads.
        cells: `(CELLS,)` int64, the merged sketch; the same integers as a merge in numpy gives.
    """

    name: str
    counts: NDArray[np.int64]
    values: NDArray[np.float64]
    cells: NDArray[np.int64]

    @property
    def units(self) -> int:
        """Units of inference observed at this point."""
        return int(self.counts[CountColumn.UNITS])

    @property
    def rows(self) -> int:
        """Rows of requests that were read at this point; it fired where there are any.

        Units are counted only where there is a bound to compare them with, rows everywhere.
        """
        return int(self.counts[CountColumn.ROWS])

    @property
    def exceedances(self) -> int:
        """Units whose absmax was above the observed bound."""
        return int(self.counts[CountColumn.EXCEEDANCES])

    def sketch(self) -> MagnitudeSketch:
        """Give the merged sketch with the exact extremes."""
        return MagnitudeSketch.from_cells(
            self.cells,
            float(self.values[ValueColumn.LOWEST]),
            float(self.values[ValueColumn.HIGHEST]),
        )


@final
@dataclass(frozen=True, slots=True)
class SegmentTotals:
    """Units of one segment of the traffic, and how many of them were covered."""

    name: str
    units: int
    covered: int


@final
@dataclass(frozen=True, slots=True, eq=False)
class ModelTotals:
    """Everything recorded about one model under one profile with one instrument.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile that the agents compared with; empty without one.
        instrument: What the figures were measured on; `None` where nothing is recorded.
        points: In the order in which the agents list them.
        requests: `(REQUEST_COLUMNS,)` int64, the sums, in the order of `RequestColumn`.
        segments: By name.
        processes: How many processes contributed.
        windows: How many window records were summed.
        coarse_windows: How many of them stand for several overwritten ones.
        first_ns: Start of the earliest window, UTC nanoseconds; 0 where nothing is recorded.
        last_ns: End of the latest window, UTC nanoseconds; 0 where nothing is recorded.
    """

    model: str
    profile: str
    instrument: Instrument | None
    points: tuple[PointTotals, ...]
    requests: NDArray[np.int64]
    segments: tuple[SegmentTotals, ...] = ()
    processes: int = 0
    windows: int = 0
    coarse_windows: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def units(self) -> int:
        """Units of inference that were compared with an observed bound (of any point)."""
        return int(self.requests[RequestColumn.UNITS])

    @property
    def observed(self) -> int:
        """Requests in which at least one point was read."""
        return int(self.requests[RequestColumn.OBSERVED])

    @property
    def unread(self) -> bool:
        """Whether requests were sampled, but no point was ever read in one.

        A few may still be running, or wait to be counted, when a service has just started.
        """
        return not self.observed and int(self.requests[RequestColumn.SAMPLED]) > _RUNNING

    @property
    def units_covered(self) -> int:
        """Units that stayed inside the observed bound of every point."""
        return int(self.requests[RequestColumn.UNITS_COVERED])


@final
@dataclass(frozen=True, slots=True, eq=False)
class SegmentHistory:
    """The windows in which one segment of the traffic was observed.

    Attributes:
        name: The segment.
        looks: `(V,)` int64, rows of the model's history, ascending.
        units: `(V,)` int64, its units in each of them.
        covered: `(V,)` int64, those of them inside the observed bound of every point.
        reference_units: Units of this segment among those that the reference was learned from;
            None where nobody counted them.
    """

    name: str
    looks: NDArray[np.int64]
    units: NDArray[np.int64]
    covered: NDArray[np.int64]
    reference_units: int | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class ComparedHistory:
    """The looks in which served outputs were compared with those of the FP32 reference.

    A window counts by classes where all its compared outputs have them, else by noise; of a look
    that several windows were joined into, each window counts as it did. All figures are whole
    numbers, so sums over looks do not depend on how windows were joined.

    Attributes:
        looks: `(V,)` int64, rows of the model's history, ascending.
        compared: `(V,)` int64, units compared.
        ranked: `(V,)` int64, those of them in windows that count by classes.
        agreed: `(V,)` int64, those of `ranked` with the same most likely class.
        noise_ppb: `(V,)` int64, sum of min(1, noise energy ÷ signal energy) over the outputs of the
            other windows, in billionths.
    """

    looks: NDArray[np.int64]
    compared: NDArray[np.int64]
    ranked: NDArray[np.int64]
    agreed: NDArray[np.int64]
    noise_ppb: NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, eq=False)
class ModelHistory:
    """The same windows one by one, in the order in which sequential tests must look at them.

    The order is that of arrival (collect runs), inside one run that of time. A window that arrives
    late is appended, never inserted, so what has been looked at once stays as it was: the running
    maximum of evidence only grows, and an alarm is never taken back. Whether a window is late must
    not depend on its values; then the order costs no validity.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile.
        points: Names, the columns of `units` and `exceedances`.
        end_ns: `(W,)` int64, end of each window, UTC nanoseconds.
        seen: `(W,)` int64, requests served in each window, sampled or not.
        request_units: `(W,)` int64, units observed in each window.
        request_covered: `(W,)` int64, those of them inside the observed bound of every point.
        units: `(W, P)` int64, units per point.
        exceedances: `(W, P)` int64, units above the observed bound per point.
        segments: In the order in which they first appeared.
        compared: Comparisons with the FP32 reference; None where there were none.
    """

    model: str
    profile: str
    points: tuple[str, ...]
    end_ns: NDArray[np.int64]
    seen: NDArray[np.int64]
    request_units: NDArray[np.int64]
    request_covered: NDArray[np.int64]
    units: NDArray[np.int64]
    exceedances: NDArray[np.int64]
    segments: tuple[SegmentHistory, ...] = ()
    compared: ComparedHistory | None = None


@final
@dataclass(frozen=True, slots=True)
class ObservedModel:
    """That a model was recorded at all: under which profile, with which instrument, until when.

    Attributes:
        model: Name of the model.
        profile: Digest of the profile; empty without one.
        instrument: What was measured with.
        processes: How many processes.
        last_ns: End of the last window by the clock of its process, UTC nanoseconds.
        arrived_ns: When the last window came, by the analyzer's clock, UTC nanoseconds.
    """

    model: str
    profile: str
    instrument: Instrument
    processes: int
    last_ns: int
    arrived_ns: int

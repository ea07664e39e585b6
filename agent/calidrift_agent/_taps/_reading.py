"""One observed tensor, measured, and all of them in columns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._taps._framed import Padding
from calidrift_agent._taps._measure import Extremes, energy_of

if TYPE_CHECKING:
    from calidrift_agent._taps._native._tap import Strip


@final
@dataclass(slots=True)
class Reading:
    """One observed tensor, measured.

    Attributes:
        points: Rows of the points that it feeds.
        numel: Its elements.
        weight: Elements that each sampled value stands for.
        extremes: Extremes of its rows, and exact counts.
        sample: Sampled values, float32, flat.
        padding: What was left out of all of these; None where nothing was.
        energy: Sum of squares of its finite values, estimated from the sample; None where it
            was not needed yet.
    """

    points: list[int]
    numel: int
    weight: int
    extremes: Extremes
    sample: NDArray[np.float32]
    padding: Padding | None = None
    energy: float | None = None


@final
class SeenColumn(IntEnum):
    """Columns of `Seen.counts`."""

    POINT = 0
    ENTRY = 1
    NUMEL = 2
    WEIGHT = 3
    SAMPLES = 4
    NAN = 5
    INF = 6
    CLIP_LOW = 7
    CLIP_HIGH = 8


@final
@dataclass(slots=True, eq=False)
class Seen:
    """What the points of one call saw, a row for each: a tensor that feeds three has three rows.

    Attributes:
        counts: int64 (n, len(SeenColumn)).
        energies: float64 (n, 2): clipped energy, and energy as far as it was asked for.
        highs: float64 (n, rows), largest finite value of each row; -inf without one.
        lows: float64 (n, rows), smallest finite value of each row; +inf without one.
        absmax: float64 (n, rows), largest magnitude of each row: inf where it holds a value that
            is not finite, NaN where it holds nothing but padding.
        padded: What was left out, with the points that it concerns.
    """

    counts: NDArray[np.int64]
    energies: NDArray[np.float64]
    highs: NDArray[np.float64]
    lows: NDArray[np.float64]
    absmax: NDArray[np.float64]
    padded: list[tuple[list[int], Padding]] = field(default_factory=list)

    @property
    def points(self) -> NDArray[np.int64]:
        """Point of each row."""
        return self.counts[:, SeenColumn.POINT]


def seen_by_strip(strip: "Strip", rows: int) -> Seen:
    """Return what the native tap saw; in one call of C, so that nothing is counted by Python."""
    counts, energies, extremes = strip.figures()
    figures = np.frombuffer(extremes).reshape(-1, 3, rows)
    # Adding zero makes a zero of -0: which of the two is the larger one no program agrees upon.
    highs, lows, broken = figures[:, 0] + 0.0, figures[:, 1] + 0.0, figures[:, 2]
    absmax = np.maximum(np.abs(highs), np.abs(lows))
    if broken.any():
        absmax[broken > 0.0] = np.inf
    return Seen(
        np.frombuffer(counts, np.int64).reshape(-1, len(SeenColumn)),
        np.frombuffer(energies).reshape(-1, 2),
        highs,
        lows,
        absmax,
    )


def strip_readings(strip: "Strip", rows: int) -> list[Reading]:
    """Return what the native tap saw as objects; to look at, not to count."""
    seen = seen_by_strip(strip, rows)
    found: dict[int, Reading] = {}
    for row, counts in enumerate(seen.counts.tolist()):
        one = dict(zip(SeenColumn, counts, strict=True))
        point, entry = one[SeenColumn.POINT], one[SeenColumn.ENTRY]
        if entry in found:
            found[entry].points.append(point)
            continue
        extremes = Extremes(
            highs=seen.highs[row].tolist(),
            lows=seen.lows[row].tolist(),
            broken=tuple(np.flatnonzero(np.isinf(seen.absmax[row])).tolist()),
            nan=one[SeenColumn.NAN],
            inf=one[SeenColumn.INF],
            clip_low=one[SeenColumn.CLIP_LOW],
            clip_high=one[SeenColumn.CLIP_HIGH],
            clipped_energy=float(seen.energies[row, 0]),
        )
        found[entry] = Reading(
            [point],
            one[SeenColumn.NUMEL],
            one[SeenColumn.WEIGHT],
            extremes,
            np.frombuffer(strip.sample(entry), np.float32),
            energy=float(seen.energies[row, 1]),
        )
    return list(found.values())


def seen_in_readings(readings: Sequence[Reading], rows: int, *, energy: bool) -> Seen:
    """Return readings in columns.

    Args:
        readings: The readings.
        rows: Rows of the call.
        energy: Whether the energy of those that have none yet is needed.
    """
    counts: list[tuple[int, ...]] = []
    energies: list[tuple[float, float]] = []
    source: list[int] = []
    for index, reading in enumerate(readings):
        found = reading.extremes
        if energy and reading.energy is None:
            reading.energy = energy_of(reading.sample) * reading.weight
        figures = (reading.numel, reading.weight, reading.sample.size, found.nan, found.inf)
        for point in reading.points:
            counts.append((point, index, *figures, found.clip_low, found.clip_high))
            energies.append((found.clipped_energy, reading.energy or 0.0))
            source.append(index)
    highs = np.array([one.extremes.highs for one in readings], np.float64).reshape(-1, rows) + 0.0
    lows = np.array([one.extremes.lows for one in readings], np.float64).reshape(-1, rows) + 0.0
    absmax = np.maximum(np.abs(highs), np.abs(lows))
    for index, reading in enumerate(readings):
        if reading.extremes.broken:
            absmax[index, list(reading.extremes.broken)] = np.inf
        if reading.extremes.absent:
            absmax[index, list(reading.extremes.absent)] = np.nan
    return Seen(
        np.array(counts, np.int64).reshape(-1, len(SeenColumn)),
        np.array(energies, np.float64).reshape(-1, 2),
        highs[source],
        lows[source],
        absmax[source],
        [(one.points, one.padding) for one in readings if one.padding is not None],
    )


def joined(first: Seen, second: Seen) -> Seen:
    """Return both, the first one's rows first."""
    if not len(first.counts):
        return second
    if not len(second.counts):
        return first
    return Seen(
        np.concatenate([first.counts, second.counts]),
        np.concatenate([first.energies, second.energies]),
        np.concatenate([first.highs, second.highs]),
        np.concatenate([first.lows, second.lows]),
        np.concatenate([first.absmax, second.absmax]),
        [*first.padded, *second.padded],
    )

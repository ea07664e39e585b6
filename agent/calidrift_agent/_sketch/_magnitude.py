"""A mergeable histogram of activation values: `MagnitudeSketch`."""

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from math import isfinite
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._sketch import _quantiles
from calidrift_agent._sketch._grid import (
    CELLS,
    FIRST_BUCKET,
    HALF,
    INFINITY,
    LOWEST_INDEX,
    NOT_A_NUMBER,
    OVERFLOW,
    SCALE,
    ZERO,
    add_cells,
)
from calidrift_agent.errors import SketchError

_BUCKETS = slice(FIRST_BUCKET, OVERFLOW)
_LOWEST_SCALE = -10
_COUNT_LIMIT = 2.0**63


class Side(StrEnum):
    """Which values of a sketch are meant."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    MAGNITUDE = "magnitude"
    """Both signs, by absolute value."""


@final
class MagnitudeSketch:
    """Counts of float32 values on the fixed absolute grid, with their exact extremes.

    16 buckets per octave from 2**-24 to 2**16 for each sign, plus zero, underflow, overflow,
    infinity and NaN. Two sketches merge by integer addition, so the result does not depend on
    order, batch size or partition of the data. All counts are int64.

    Values outside the grid are kept: smaller ones count as underflow, larger ones as overflow, and
    the extremes stay exact. NaN and infinity are counted and otherwise ignored.

    Attributes:
        cells: int64 array of shape (`CELLS`,), layout as in the module `_grid`. Owned by the
            sketch; add to it only together with the extremes.
        minimum: smallest finite value, +inf where none.
        maximum: largest finite value, -inf where none.

    Memory: 10 KB. Cost of `update`: about 3 ns per value.

    Examples:
        >>> import numpy as np
        >>> sketch = MagnitudeSketch()
        >>> sketch.update(np.linspace(-1, 1, 2001, dtype=np.float32))
        >>> sketch.count, sketch.absmax
        (2001, 1.0)
        >>> round(sketch.quantile(0.75), 2), round(sketch.magnitude_quantile(0.99), 2)
        (0.5, 0.99)
    """

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("cells", "maximum", "minimum")

    cells: NDArray[np.int64]
    minimum: float
    maximum: float

    def __init__(self) -> None:
        self.cells = np.zeros(CELLS, dtype=np.int64)
        self.minimum = np.inf
        self.maximum = -np.inf

    @classmethod
    def from_cells(
        cls, cells: NDArray[np.int64], minimum: float = np.inf, maximum: float = -np.inf
    ) -> Self:
        """Build a sketch from counted cells; the cells are copied.

        Extremes may be wider than the cells (the cells of a sampled tensor, the extremes of the
        full one). Where they are narrower than the cells allow, or missing, the outer ends of the
        outermost occupied cells take their place.

        Args:
            cells: integers of shape (`CELLS`,), none negative.
            minimum: smallest finite value; infinite where unknown.
            maximum: largest finite value; infinite where unknown.

        Raises:
            SketchError: wrong shape or type, negative counts or too large ones, or NaN extremes.
        """
        given = np.asarray(cells)
        if given.shape != (CELLS,) or given.dtype.kind not in "iu":
            raise SketchError(
                f"sketch cells must be {CELLS} integers, got {given.dtype} of shape {given.shape}"
            )
        if bool((given < 0).any()):
            raise SketchError("sketch cells are counts and must not be negative")
        if given.sum(dtype=np.float64) >= _COUNT_LIMIT:
            raise SketchError("sketch cells count more than 2**63 values together; are they whole?")
        if np.isnan(minimum) or np.isnan(maximum):
            raise SketchError(
                f"the extremes of a sketch are finite values, got {minimum} and {maximum}: "
                "leave NaN out when computing them"
            )
        sketch = cls()
        sketch.cells[:] = given
        inner_low, inner_high = _quantiles.inner_extremes(sketch.cells)
        outer_low, outer_high = _quantiles.occupied_extremes(sketch.cells)
        known_low, known_high = np.isfinite(minimum), np.isfinite(maximum)
        sketch.minimum = float(minimum) if known_low and minimum <= inner_low else outer_low
        sketch.maximum = float(maximum) if known_high and maximum >= inner_high else outer_high
        return sketch

    def update(self, values: NDArray[np.float32], weight: int = 1) -> None:
        """Count values.

        Args:
            values: float32 array of any shape; empty is allowed. Convert other types first
                (float16 and bfloat16 convert without loss).
            weight: how many elements each value stands for, at least 1.

        Raises:
            SketchError: not a float32 array, or a weight below 1.
        """
        add_cells(self.cells, values, weight)
        if values.size == 0:
            return
        with np.errstate(invalid="ignore"):  # signalling NaN
            low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            if finite.size == 0:
                return
            low, high = float(finite.min()), float(finite.max())
        self.minimum = min(self.minimum, low)
        self.maximum = max(self.maximum, high)

    def merge(self, other: "MagnitudeSketch") -> None:
        """Add another sketch to this one, in place: the same as having counted its values here.

        Raises:
            SketchError: `other` is not a sketch.
        """
        if not isinstance(other, MagnitudeSketch):
            raise SketchError(
                f"only a MagnitudeSketch can be merged, got {type(other).__name__}: "
                "use update(values) for arrays"
            )
        self.cells += other.cells
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def __add__(self, other: "MagnitudeSketch") -> "MagnitudeSketch":
        if not isinstance(other, MagnitudeSketch):
            return NotImplemented
        result = self.copy()
        result.merge(other)
        return result

    def copy(self) -> "MagnitudeSketch":
        """An independent copy."""
        result = MagnitudeSketch()
        result.cells[:] = self.cells
        result.minimum, result.maximum = self.minimum, self.maximum
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MagnitudeSketch):
            return NotImplemented
        return (
            self.minimum == other.minimum
            and self.maximum == other.maximum
            and bool(np.array_equal(self.cells, other.cells))
        )

    def __repr__(self) -> str:
        return f"MagnitudeSketch(count={self.count}, min={self.minimum:g}, max={self.maximum:g})"

    @property
    def count(self) -> int:
        """Finite values counted."""
        return int(self.cells.sum()) - self.inf_count - self.nan_count

    @property
    def zero_count(self) -> int:
        """Values equal to 0, of either sign of zero."""
        return _both_signs(self.cells, ZERO)

    @property
    def nan_count(self) -> int:
        """NaN values."""
        return _both_signs(self.cells, NOT_A_NUMBER)

    @property
    def inf_count(self) -> int:
        """Infinite values of either sign."""
        return _both_signs(self.cells, INFINITY)

    @property
    def absmax(self) -> float:
        """Largest finite magnitude, exact; 0.0 where no finite value was counted."""
        return max(-self.minimum, self.maximum, 0.0)

    def quantile(self, q: float) -> float:
        """Signed quantile of the finite values.

        Interpolates log-linearly inside a bucket and clamps by the exact extremes, which are
        returned for q = 0 and q = 1. On eight distributions of a million values the error was at
        most 0.5 % at p99 and 1 % at p99.99 (source: tests/agent/sketch/test_quantiles.py); any
        quantile is within one bucket (4.4 %) of an exact one.

        Raises:
            SketchError: `q` outside 0 ... 1, or no finite value was counted.
        """
        _require_quantile(self, q)
        if q in (0.0, 1.0):
            return self.maximum if q else self.minimum
        intervals = _quantiles.signed_intervals(self.cells, self.minimum, self.maximum)
        return _quantiles.quantile_of(*intervals, q)

    def magnitude_quantile(self, q: float) -> float:
        """Quantile of |x| over the finite values; accuracy as `quantile`.

        Raises:
            SketchError: `q` outside 0 ... 1, or no finite value was counted.
        """
        _require_quantile(self, q)
        if q == 1.0:
            return self.absmax
        smallest = max(self.minimum, -self.maximum, 0.0)
        intervals = _quantiles.magnitude_intervals(self.cells, smallest, self.absmax)
        return _quantiles.quantile_of(*intervals, q)

    def magnitude_cells(self) -> NDArray[np.int64]:
        """Counts of |x| in the 640 buckets (shape (640,)), lowest first."""
        negative = self.cells[HALF:]
        return np.asarray(self.cells[_BUCKETS] + negative[_BUCKETS], dtype=np.int64)

    def downscale(
        self, scale: int, side: Side = Side.MAGNITUDE
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The buckets on a coarser OpenTelemetry scale, exactly.

        Halving the resolution maps index `i` to `i >> 1` (arithmetic shift); the result equals a
        histogram that was counted at that scale. Zero, underflow, overflow, infinity and NaN are
        not buckets and not included.

        Args:
            scale: -10 ... 4 (4 returns the grid itself).
            side: which values.

        Returns:
            indices: int64 (n,), ascending, only occupied buckets; bucket `i` is
                `(2**(i / 2**scale), 2**((i + 1) / 2**scale)]`.
            counts: int64 (n,).

        Raises:
            SketchError: `scale` outside -10 ... 4.
        """
        if not _LOWEST_SCALE <= scale <= SCALE:
            raise SketchError(
                f"a sketch of scale {SCALE} can be downscaled to {_LOWEST_SCALE} ... {SCALE}, "
                f"got {scale}"
            )
        match side:
            case Side.POSITIVE:
                buckets = self.cells[_BUCKETS]
            case Side.NEGATIVE:
                buckets = self.cells[HALF:][_BUCKETS]
            case _:
                buckets = self.magnitude_cells()
        occupied = np.flatnonzero(buckets)
        coarse = (occupied + LOWEST_INDEX) >> (SCALE - scale)
        indices, place = np.unique(coarse, return_inverse=True)
        counts = np.zeros(indices.shape, dtype=np.int64)
        np.add.at(counts, place, buckets[occupied])
        return indices.astype(np.int64), counts

    def to_mapping(self) -> dict[str, Any]:
        """A JSON-ready mapping: `{"cells": [[cell, count], ...], "min": ..., "max": ...}`.

        Cells ascend and only occupied ones are listed; `min` and `max` are null where no finite
        value was counted. `from_mapping` restores an equal sketch.
        """
        occupied = np.flatnonzero(self.cells)
        return {
            "cells": [[int(cell), int(self.cells[cell])] for cell in occupied],
            "min": self.minimum if np.isfinite(self.minimum) else None,
            "max": self.maximum if np.isfinite(self.maximum) else None,
        }

    @classmethod
    def from_mapping(cls, mapping: object) -> Self:
        """Restore a sketch from `to_mapping`.

        Raises:
            SketchError: a key is missing, a cell is outside the grid or listed twice, or a count is
                not a whole number of at least 1.
        """
        if not isinstance(mapping, Mapping) or not {"cells", "min", "max"} <= mapping.keys():
            raise SketchError('a stored sketch is an object with the keys "cells", "min" and "max"')
        cells = np.zeros(CELLS, dtype=np.int64)
        pairs = mapping["cells"]
        if not isinstance(pairs, list):
            raise SketchError('"cells" of a stored sketch must be a list of [cell, count] pairs')
        for pair in pairs:
            cell, count = _pair(pair)
            if cells[cell]:
                raise SketchError(f"cell {cell} of a stored sketch is listed twice")
            cells[cell] = count
        low, high = _extreme(mapping["min"], np.inf), _extreme(mapping["max"], -np.inf)
        return cls.from_cells(cells, low, high)


def _both_signs(cells: NDArray[np.int64], offset: int) -> int:
    return int(cells[offset]) + int(cells[HALF + offset])


def _require_quantile(sketch: MagnitudeSketch, q: float) -> None:
    if not 0.0 <= q <= 1.0:
        raise SketchError(f"a quantile lies between 0 and 1, got {q!r}")
    if sketch.count == 0:
        raise SketchError(
            "an empty sketch has no quantiles: it counted no finite value; check `count` first"
        )


def _pair(pair: object) -> tuple[int, int]:
    match pair:
        case [int(cell), int(count)] if not isinstance(cell, bool) and not isinstance(count, bool):
            if 0 <= cell < CELLS and 1 <= count < 1 << 63:
                return cell, count
    raise SketchError(
        f"a stored sketch lists pairs of a cell (0 ... {CELLS - 1}) and a count of at least 1, "
        f"got {pair!r}"
    )


def _extreme(value: object, missing: float) -> float:
    if value is None:
        return missing
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer of four hundred digits
            if isfinite(number := float(value)):
                return number
    raise SketchError(f"an extreme of a stored sketch is a finite number or null, got {value!r}")

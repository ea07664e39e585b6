"""Measures batches at every point and writes down what a window of production would say."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calidrift_agent._points import Frame, row_absmax
from calidrift_agent._profile import CalibrationProfile, ClipBound, PointProfile
from calidrift_agent._sketch import MagnitudeSketch
from calidrift_agent._state import SegmentCount, Window
from calidrift_agent._vocabulary import CountColumn, RequestColumn, ValueColumn

__all__ = ["UnitWindow"]

_Floats = NDArray[np.float64]


@final
class UnitWindow:
    """One batch; every row of it is a unit.

    Args:
        names: Points, in the order of the indices that they are observed with.
        profile: Bounds and clip ranges.
        frame: Where rows and padded positions are.

    Attributes:
        absmax: float64 (P, rows): largest magnitude of each unit; NaN where it was not seen.
    """

    def __init__(self, names: Sequence[str], profile: CalibrationProfile, frame: Frame) -> None:
        found = [profile.find(name) for name in names]
        self._points = [
            one or PointProfile(name=name) for one, name in zip(found, names, strict=True)
        ]
        self._frame = frame
        self._sketches = [MagnitudeSketch() for _ in names]
        self._window = Window.empty(len(names))
        self.absmax: _Floats = np.full((len(names), frame.rows), np.nan)

    def observe(self, index: int, tensor: Tensor) -> None:
        """Note the tensor of a point, without quantization; not a word where it has no range."""
        values = self._read(index, tensor)
        if values is None:
            return
        array = values.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        self._sketches[index].update(array)
        self._window.counts[index, CountColumn.ELEMENTS] += values.numel()

    def observe_clip(self, index: int, tensor: Tensor) -> None:
        """Note what the clip range of a point cuts off from a tensor."""
        clip = self._points[index].clip_bound
        if clip is None or not _is_observable(tensor):
            return
        grid, kept = self._frame.grid(tensor)
        values = grid if kept is None else grid[torch.from_numpy(kept)]
        self._add_clips(index, values.detach().double(), clip)

    def window(self, number: int, times: tuple[int, int], segments: Sequence[str | None]) -> Window:
        """Close the window.

        Args:
            number: Its number.
            times: Its start and end, UTC nanoseconds.
            segments: Segment of each row.
        """
        bounds = self.bounds
        seen = ~np.isnan(self.absmax)
        known = seen & ~np.isnan(bounds)[:, None]
        above = known & ~(self.absmax <= bounds[:, None])
        real = self._frame.real
        compared = known.any(axis=0) & real
        covered = compared & ~above.any(axis=0)
        window = self._window
        counts, values = window.counts, window.values
        counts[:, CountColumn.UNITS] = known[:, real].sum(axis=1)
        counts[:, CountColumn.EXCEEDANCES] = above[:, real].sum(axis=1)
        counts[:, CountColumn.ROWS] = seen[:, real].sum(axis=1)
        for index, sketch in enumerate(self._sketches):
            window.cells[index] = sketch.cells
            counts[index, CountColumn.NAN] = sketch.nan_count
            counts[index, CountColumn.INF] = sketch.inf_count
            values[index, ValueColumn.LOWEST] = sketch.minimum
            values[index, ValueColumn.HIGHEST] = sketch.maximum
        requests = window.requests
        for column in (RequestColumn.SEEN, RequestColumn.SAMPLED, RequestColumn.OBSERVED):
            requests[column] = real.sum()
        requests[RequestColumn.UNITS] = compared.sum()
        requests[RequestColumn.UNITS_COVERED] = covered.sum()
        return replace(
            window,
            number=number,
            start_ns=times[0],
            end_ns=times[1],
            sampling_ratio=1.0,
            segments=_segments(segments, compared, covered),
        )

    @property
    def bounds(self) -> _Floats:
        """float64 (P,): the observed bound of each point; NaN without one."""
        found = [point.observed_bound for point in self._points]
        return np.array([math.nan if one is None else one.value for one in found])

    def _read(self, index: int, tensor: Tensor) -> Tensor | None:
        """Add the maxima of the rows; give the values that are no padding."""
        if not _is_observable(tensor):
            return None
        grid, kept = self._frame.grid(tensor)
        if kept is None:
            values = grid
            absmax = row_absmax(grid.flatten(1)).cpu().numpy().astype(np.float64)
        else:
            values = grid[torch.from_numpy(kept)]
            each = np.full(kept.shape, np.nan)
            each[kept] = row_absmax(values).cpu().numpy()
            absmax = np.fmax.reduce(each, axis=1)
        row = self.absmax[index]
        np.fmax(row, np.broadcast_to(absmax, row.shape), out=row)
        return values

    def _add_clips(self, index: int, values: Tensor, clip: ClipBound) -> None:
        finite = values[torch.isfinite(values)]
        half = clip.scale / 2  # up to there a value has no more error than any other one
        counts, sums = self._window.counts[index], self._window.values[index]
        counts[CountColumn.CLIP_ELEMENTS] += finite.numel()
        counts[CountColumn.CLIP_LOW] += int((finite < clip.lo - half).sum())
        counts[CountColumn.CLIP_HIGH] += int((finite > clip.hi + half).sum())
        beyond = finite - finite.clamp(clip.lo, clip.hi)
        sums[ValueColumn.CLIPPED_ENERGY] += float(beyond.square().sum())
        sums[ValueColumn.ENERGY] += float(finite.square().sum())


def _is_observable(tensor: Any) -> bool:
    return bool(
        tensor.is_floating_point()
        and tensor.numel() > 0
        and tensor.layout is torch.strided
        and not tensor.is_nested
    )


def _segments(
    names: Sequence[str | None], compared: NDArray[np.bool_], covered: NDArray[np.bool_]
) -> tuple[SegmentCount, ...]:
    units: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for name, is_unit, is_covered in zip(names, compared, covered, strict=True):
        if name is not None and is_unit:
            units[name] += 1
            inside[name] += bool(is_covered)
    return tuple(SegmentCount(name, count, inside[name]) for name, count in units.items())

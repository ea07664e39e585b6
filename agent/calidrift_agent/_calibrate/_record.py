"""What is noted about every point while the calibration batches run."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._points import Frame, rail_counts, row_absmax
from calidrift_agent._profile import ClipBound, ObservedBound
from calidrift_agent._sketch import MagnitudeSketch


@final
class UnitRecorder:
    """Per-unit maxima and full sketches of a number of points.

    Every row of a batch is one unit. A point that fires more than once in one forward (a shared
    layer) has the largest of its maxima as that unit's. Nothing is subsampled: each element is in
    the sketch, at about 3 ns per element beside two passes for the maxima. Positions that an
    attention mask calls padding count nowhere, and a row of nothing else is no unit.
    """

    def __init__(self, points: int) -> None:
        self._absmax: list[list[NDArray[np.float32]]] = [[] for _ in range(points)]
        self._sketches: list[MagnitudeSketch | None] = [None] * points
        self._open: dict[int, NDArray[np.float32]] = {}
        self._frame = Frame(1)
        self._last: _Measured | None = None

    def begin(self, frame: Frame) -> None:
        """Start a forward over a batch."""
        self._frame = frame
        self._open.clear()
        self._last = None

    def observe(self, index: int, tensor: torch.Tensor) -> None:
        """Note the tensor of a point; one that production passes over is left alone here too."""
        if not _is_observable(tensor):
            return
        if self._last is None or not self._last.holds(tensor):
            self._last = _Measured(tensor.detach(), self._frame)
        absmax, sketch = self._last.absmax, self._last.sketch
        earlier = self._open.get(index)
        self._open[index] = absmax if earlier is None else np.fmax(earlier, absmax)
        known = self._sketches[index]
        if known is None:
            self._sketches[index] = sketch.copy()
        else:
            known.merge(sketch)

    def end(self) -> None:
        """Close the forward: its units count from now on."""
        real = self._frame.real
        for index, absmax in self._open.items():
            self._absmax[index].append(absmax[real & ~np.isnan(absmax)])
        self._open.clear()
        self._last = None

    def bound(self, index: int, rank: int) -> ObservedBound | None:
        """Return the observed bound of a point, None without a finite unit."""
        units = self._absmax[index]
        if not any(one.size for one in units):
            return None
        return ObservedBound.from_absmax(np.concatenate(units), rank=rank)

    def sketch(self, index: int) -> MagnitudeSketch | None:
        """Return the sketch of a point, None where it never fired."""
        return self._sketches[index]


@final
class RailRecorder:
    """Share of values on the lowest and highest code of each quantizer."""

    def __init__(self, bounds: Sequence[ClipBound]) -> None:
        self._bounds = tuple(bounds)
        self._counts = np.zeros((len(self._bounds), 3), dtype=np.int64)
        self._frame = Frame(1)

    def begin(self, frame: Frame) -> None:
        """Start a forward over a batch."""
        self._frame = frame

    def observe(self, index: int, tensor: torch.Tensor) -> None:
        """Count the values that enter a quantizer."""
        values = tensor.detach()
        if self._frame.masks and values.numel():
            values = _real(*self._frame.grid(values))
        low, high = rail_counts(values, self._bounds[index])
        self._counts[index] += (low, high, values.numel())

    def rates(self, index: int) -> tuple[float, float] | tuple[None, None]:
        """Return low and high rate of a quantizer, None where it saw no value."""
        low, high, total = self._counts[index].tolist()
        return (low / total, high / total) if total else (None, None)


@final
class _Measured:
    """Maxima and sketch of one tensor, kept for the next point: q, k and v read the same one."""

    def __init__(self, tensor: torch.Tensor, frame: Frame) -> None:
        self._tensor = tensor
        self._version = _version(tensor)
        grid, kept = frame.grid(tensor)
        if kept is None:
            absmax = row_absmax(grid.flatten(1)).cpu().numpy()
            values = tensor
        else:
            values = _real(grid, kept)
            each = np.full(kept.shape, np.nan, np.float32)
            each[kept] = row_absmax(values).cpu().numpy()
            absmax = np.fmax.reduce(each, axis=1)
        self.absmax: NDArray[np.float32] = np.broadcast_to(absmax, (frame.rows,))
        self.sketch = MagnitudeSketch()
        self.sketch.update(values.to(device="cpu", dtype=torch.float32).contiguous().numpy())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is the measured one, unchanged since."""
        return (
            self._version is not None
            and self._version == _version(tensor)
            and self._tensor.data_ptr() == tensor.data_ptr()
            and self._tensor.shape == tensor.shape
            and self._tensor.stride() == tensor.stride()
            and self._tensor.dtype == tensor.dtype
        )


def _is_observable(tensor: torch.Tensor) -> bool:
    """Whether it is a dense floating-point tensor with elements (a ragged one has no rows)."""
    return (
        tensor.is_floating_point()
        and tensor.numel() > 0
        and tensor.layout is torch.strided
        and not tensor.is_nested
    )


def _real(grid: torch.Tensor, kept: NDArray[np.bool_] | None) -> torch.Tensor:
    return grid if kept is None else grid[torch.from_numpy(kept).to(grid.device)]


def _version(tensor: torch.Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version

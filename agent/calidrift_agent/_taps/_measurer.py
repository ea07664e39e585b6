"""From tensors and copies of them to readings, for one call."""

from collections.abc import Sequence
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._points import Frame
from calidrift_agent._taps._codes import CodeReading, read_codes
from calidrift_agent._taps._framed import measure_framed
from calidrift_agent._taps._measure import dense, extremes_of, strided_sample
from calidrift_agent._taps._memory import Shelf
from calidrift_agent._taps._reading import Reading
from calidrift_agent._taps._reduce import reduce_array, reduce_stack
from calidrift_agent._taps._stride import sample_plan
from calidrift_agent._taps._table import PointTable

Raw = tuple[int, torch.Tensor | Reading | None]
"""Point, and what was kept: a copy, a reading, or None for the tensor of the entry before."""
_SINGLE_LIMIT: Final = 1 << 20
"""Elements up to which numpy reduces a tensor: its calls cost a fifth of torch's, but run on one
thread and hold the interpreter lock (0.1 ms)."""

_STACK_LIMIT: Final = 1 << 18
"""Elements that are reduced in one call: 0.05 ms."""


@final
class Measurer:
    """Measures the tensors of one call.

    Args:
        table: Points and bounds.
        rows: Rows of the request.
        repeat: Copies of one row that the batch consists of; only the first is read.
        frame: Where rows and padded positions are; None where rows alone say it all.
        phase: Where all samples of the call begin, in [0, 1). One for all of them, so that a
            tensor that is read twice gives the same figures twice.
    """

    __slots__ = ("_frame", "_phase", "_repeat", "_rows", "_table")

    def __init__(
        self, table: PointTable, rows: int, repeat: int, frame: Frame | None, phase: float
    ) -> None:
        self._table = table
        self._rows = rows
        self._repeat = repeat
        self._frame = frame
        self._phase = phase

    def measure(self, point: int, tensor: torch.Tensor, shelf: Shelf) -> Reading:
        """Measure a tensor that is too large to be copied, in the request."""
        tensor = self._first_copy(tensor)
        framed = self._measure_framed(point, tensor)
        if framed is not None:
            return framed
        if (
            tensor.numel() <= _SINGLE_LIMIT
            and tensor.dtype is torch.float32
            and tensor.is_cpu
            and tensor.is_contiguous()
        ):
            array = tensor.numpy().reshape(-1)
            shape = tensor.shape
            reading = reduce_array(point, array, shape, self._table, self._rows, self._phase)
            reading.sample = reading.sample.copy()  # the host goes on writing to its memory
            return reading
        table = self._table
        extremes = extremes_of(tensor, self._rows, table.clips[point], table.limits[point])
        plan = sample_plan(tensor.shape)
        begin = int(self._phase * plan.stride)
        target, sample = shelf.room(plan.count)
        target.copy_(strided_sample(dense(tensor), begin, plan.stride, plan.count))
        return Reading([point], tensor.numel(), plan.weight, extremes, sample)

    def measure_copies(self, raw: Sequence[Raw], shelf: Shelf) -> list[Reading]:
        """Measure all copies, and put them in line with what was measured before."""
        found: list[Reading | None] = [
            kept if isinstance(kept, Reading) else None for _, kept in raw
        ]
        if self._frame is not None:
            # In the order of the call, from which a frame learns.
            for position, (point, kept) in enumerate(raw):
                if isinstance(kept, torch.Tensor):
                    one = self._first_copy(kept).float()
                    found[position] = self._measure_framed(point, one)
        if self._repeat == 1:
            self._measure_stacks(raw, shelf, found)
        readings: list[Reading] = []
        origin = -1  # position of the copy that an entry without one refers to
        for position, (point, kept) in enumerate(raw):
            reading = found[position]
            if reading is None and kept is None and self._shares(point, readings):
                readings[-1].points.append(point)
                continue
            if kept is not None:
                origin = position if isinstance(kept, torch.Tensor) else -1
            if reading is None and origin >= 0:
                reading = self._measure_copy(point, shelf, origin)
            if reading is not None:
                readings.append(reading)
        return readings

    def codes(self, point: int, tensor: torch.Tensor) -> CodeReading | None:
        """Copy the codes of a quantized tensor; see `read_codes`."""
        return read_codes(point, self._first_copy(tensor), self._table.clips[point], self._frame)

    def _measure_stacks(
        self, raw: Sequence[Raw], shelf: Shelf, found: list[Reading | None]
    ) -> None:
        """Measure copies that lie side by side, where all of them are of this call."""
        for stack, positions in shelf.stacks:
            if positions[-1] >= len(raw) or any(
                found[position] is not None or raw[position][1] is not shelf.buffers[position]
                for position in positions
            ):
                continue
            shape = shelf.shapes[positions[0]]
            # In parts, so that no call of numpy holds the interpreter lock for long.
            size = max(1, _STACK_LIMIT // stack.shape[1])
            for start in range(0, len(positions), size):
                part = positions[start : start + size]
                points = [raw[position][0] for position in part]
                rows = stack[start : start + size]
                readings = reduce_stack(points, rows, shape, self._table, self._rows, self._phase)
                for position, reading in zip(part, readings, strict=True):
                    found[position] = reading

    def _measure_copy(self, point: int, shelf: Shelf, position: int) -> Reading:
        whole, array = shelf.buffers[position], shelf.arrays[position]
        if array is None or self._repeat > 1:
            whole = self._first_copy(whole)
            array = _flat(whole)
        if self._frame is not None:
            framed = self._measure_framed(point, torch.from_numpy(array).view(whole.shape))
            if framed is not None:
                return framed
        return reduce_array(point, array, whole.shape, self._table, self._rows, self._phase)

    def _measure_framed(self, point: int, tensor: torch.Tensor) -> Reading | None:
        """Measure a tensor with padding or with alternating rows; None for an ordinary one."""
        if self._frame is None:
            return None
        clip, limits = self._table.clips[point], self._table.limits[point]
        found = measure_framed(tensor, self._frame, clip, limits)
        if found is None:
            return None
        values, weight = found.sample(self._phase)
        sample = values.float().cpu().numpy().copy()
        numel = found.values.numel()
        return Reading([point], numel, weight, found.extremes, sample, found.padding)

    def _shares(self, point: int, readings: Sequence[Reading]) -> bool:
        """Whether a point may count what was read for the one before."""
        clips = self._table.clips
        return bool(readings) and clips[point] == clips[readings[-1].points[0]]

    def _first_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a batch of copies of one row: that row."""
        if self._repeat == 1 or tensor.dim() == 0 or tensor.shape[0] % self._repeat:
            return tensor
        return tensor.narrow(0, 0, tensor.shape[0] // self._repeat)


def _flat(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().numpy().reshape(-1)
    return array

"""What one sampled call leaves behind: one reading per observed tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from time import perf_counter_ns
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._taps._ledger import Ledger
from calidrift_agent._taps._measure import (
    Extremes,
    dense,
    extremes_of,
    extremes_of_array,
    is_observable,
    strided_sample,
)
from calidrift_agent._taps._memory import Shelf, ShelfPool
from calidrift_agent._taps._stride import sample_plan
from calidrift_agent._taps._table import PointTable
from calidrift_agent._vocabulary import Stage

WHOLE_LIMIT: Final = 1 << 16
"""Tensors up to this many elements are copied whole in the request and reduced in the drain."""

_random = Random()


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
    """

    points: list[int]
    numel: int
    weight: int
    extremes: Extremes
    sample: NDArray[np.float32]


Raw = tuple[int, torch.Tensor | Reading | None]
"""Point, and what was kept: a copy, a reading, or None for the tensor of the entry before."""


@final
class Recorder:
    """Collects what the taps of one call see; used by the thread of the call only.

    Args:
        table: Points and bounds.
        ledger: Where errors go; `observe` never raises.
        shelves: Memory.
        rows: Rows of the request, at least 1.
        repeat: Copies of one row that the batch consists of (a shadow pass of a graph that
            refuses a batch of one); only the first is read.

    Attributes:
        rows: Rows of the request.
        own_ns: Time that observing took.
        failed: Whether a tap failed.
    """

    __slots__ = (
        "_arrays",
        "_buffers",
        "_elements",
        "_last",
        "_ledger",
        "_origin",
        "_raw",
        "_readings",
        "_repeat",
        "_shelf",
        "_shelves",
        "_table",
        "_version",
        "_versioned",
        "failed",
        "own_ns",
        "rows",
    )

    def __init__(
        self, table: PointTable, ledger: Ledger, shelves: ShelfPool, *, rows: int, repeat: int = 1
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._shelves = shelves
        shelf = shelves.take()
        self._shelf: Shelf | None = shelf
        self._buffers = shelf.buffers
        self._arrays = shelf.arrays
        self._repeat = repeat
        self._raw: list[Raw] = []
        self._readings: list[Reading] | None = None
        self._elements = 0
        self._last: torch.Tensor | None = None
        self._origin = -1
        self._version = -1
        self._versioned = not torch.is_inference_mode_enabled()
        self.rows = rows
        self.own_ns = 0
        self.failed = False

    def observe_input(self, point: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Observe the tensor that a module was called with."""
        self.observe(
            point, args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
        )

    def observe(self, point: int, value: object) -> None:
        """Observe one tensor; anything that is not a dense floating-point tensor is passed over.

        A tensor that was observed just before and was not written to since is not read again.
        (Inference tensors do not count writes: they are compared with the copy, which costs what
        another copy would, and spares the drain a tensor.)
        """
        started = perf_counter_ns()
        try:
            # Python that runs between two layers finds its caches cold: 0.3 us per step. So the
            # ordinary case is short, and what can be looked at later is.
            if (
                type(value) is torch.Tensor
                and (numel := value.numel()) <= WHOLE_LIMIT
                and value.is_cpu
            ):
                if value is self._last and self._is_unchanged(value):
                    self._raw.append((point, None))
                    return
                self._last = value
                if self._versioned:
                    self._version = -1 if value.is_inference() else value._version
                if value.requires_grad:
                    value = value.detach()
                position = self._origin = len(self._raw)
                buffers = self._buffers
                if (
                    position < len(buffers)
                    and buffers[position].shape == value.shape
                    and buffers[position].dtype is value.dtype
                ):
                    self._raw.append((point, buffers[position].copy_(value)))
                    self._elements += numel
                else:
                    self._keep(point, value)
            elif isinstance(value, torch.Tensor) and is_observable(value):
                self._observe_large(point, value)
        except Exception as error:
            if _is_transformed(value):
                self.failed = True  # no error of anybody's: there is no plain memory to read
            else:
                self.fail(error)
        finally:
            self.own_ns += perf_counter_ns() - started

    def fail(self, error: Exception) -> None:
        """Count an error of the taps; the request goes on."""
        self.failed = True
        self._ledger.failed(Stage.TAP, error)

    @property
    def size(self) -> int:
        """Memory in use, in bytes; copies are counted as float32."""
        return 4 * self._elements

    def finish(self) -> None:
        """Let go of the host's tensors."""
        self._last = None

    def readings(self) -> list[Reading]:
        """Return what was observed, measured; in the drain.

        Cost: 10 us for each tensor that was copied whole.
        """
        if self._readings is None:
            self._readings = []
            with torch.inference_mode():
                self._reduce_all(self._readings)
            self._raw = []
        return self._readings

    def release(self) -> None:
        """Give the memory back; readings are void from now on."""
        self._readings = []
        self._raw = []
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            self._shelves.give(shelf)

    def _is_unchanged(self, value: torch.Tensor) -> bool:
        """Whether the tensor observed just before still holds the same values."""
        if not value.is_inference():
            return value._version == self._version
        return self._origin >= 0 and torch.equal(self._buffers[self._origin], value)

    def _reduce_all(self, readings: list[Reading]) -> None:
        origin = -1  # position of the copy that an entry without one refers to
        for position, (point, kept) in enumerate(self._raw):
            if isinstance(kept, Reading):
                readings.append(kept)
                origin = -1
            elif kept is None and readings and self._same_clip(point, readings[-1]):
                readings[-1].points.append(point)
            else:
                origin = origin if kept is None else position
                if origin >= 0:
                    readings.append(self._reduce(point, origin))

    def _same_clip(self, point: int, reading: Reading) -> bool:
        return self._table.clips[point] == self._table.clips[reading.points[0]]

    def _reduce(self, point: int, position: int) -> Reading:
        whole, array = self._buffers[position], self._arrays[position]
        if array is None or self._repeat > 1:
            whole = self._first_copy(whole)
            array = whole.float().numpy().reshape(-1)
        shape = whole.shape
        extremes = extremes_of_array(
            array,
            shape[0] if shape else 1,
            self.rows,
            self._table.clips[point],
            self._table.limits[point],
        )
        plan = sample_plan(shape)
        phase = int(_random.random() * plan.stride)
        # A copy now, while the tensor is in the cache, and not when all are put together.
        sample = array[phase :: plan.stride][: plan.count].copy()
        return Reading([point], array.size, plan.weight, extremes, sample)

    def _observe_large(self, point: int, tensor: torch.Tensor) -> None:
        shelf = self._shelf
        if shelf is None:
            return
        clips = self._table.clips
        if (
            tensor is self._last
            and not tensor.is_inference()
            and tensor._version == self._version
            and clips[point] == clips[self._raw[-1][0]]
        ):
            self._raw.append((point, None))
            return
        self._last, self._origin = tensor, -1
        self._version = -1 if tensor.is_inference() else tensor._version
        if tensor.requires_grad:
            tensor = tensor.detach()
        tensor = self._first_copy(tensor)
        extremes = extremes_of(
            tensor, self.rows, self._table.clips[point], self._table.limits[point]
        )
        plan = sample_plan(tensor.shape)
        phase = int(_random.random() * plan.stride)
        target, sample = shelf.room(plan.count)
        target.copy_(strided_sample(dense(tensor), phase, plan.stride, plan.count))
        self._elements += plan.count
        self._raw.append((point, Reading([point], tensor.numel(), plan.weight, extremes, sample)))

    def _first_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a batch of copies of one row: that row."""
        if self._repeat == 1 or tensor.dim() == 0 or tensor.shape[0] % self._repeat:
            return tensor
        return tensor.narrow(0, 0, tensor.shape[0] // self._repeat)

    def _keep(self, point: int, tensor: torch.Tensor) -> None:
        """Copy a tensor for which there is no buffer yet, if it can be observed at all."""
        if self._shelf is None or not is_observable(tensor):
            self._last = None
            return
        self._raw.append((point, self._shelf.keep(len(self._raw), tensor)))
        self._elements += tensor.numel()


def reseed() -> None:
    """Choose other elements than the process that this one was forked from."""
    _random.seed()


def _is_transformed(value: object) -> bool:
    """Whether a tensor stands for others: inside `torch.func` transforms, or nested."""
    return isinstance(value, torch.Tensor) and (
        value.is_nested or torch._C._functorch.is_functorch_wrapped_tensor(value)
    )

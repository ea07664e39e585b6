"""Memory for what taps keep, handed from a request to the drain and back.

Kept for reuse, because fresh memory costs a page fault per 4 KiB, in the taps and, by what they
take away from the allocator, in the model (measured: 2 % of a call of 12 ms that keeps 2 MB).
"""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._taps._native import NATIVE
from calidrift_agent._taps._table import PointTable

if TYPE_CHECKING:
    from calidrift_agent._taps._native._tap import Strip

PAGE_ELEMENTS: Final = 1 << 16
"""Elements of a page: 16 full samples, 256 KiB."""
_KEPT_BYTES: Final = 64 * 1024 * 1024
_KEPT_SHELVES: Final = 16
_CHANGED: Final = 0
"""There was a new shape in the last call."""
_UNCHANGED: Final = 1
"""There was none."""
_STACKED: Final = 2
"""Nor in the one before: the buffers lie side by side."""


@final
class Page:
    """A block of float32 memory, seen by torch (to copy into) and by numpy (to count)."""

    __slots__ = ("array", "tensor", "used")

    def __init__(self) -> None:
        self.tensor = _fresh((PAGE_ELEMENTS,), torch.float32)
        self.array: NDArray[np.float32] = self.tensor.numpy()
        self.used = 0


@final
class Shelf:
    """What one call needs: a buffer for each tensor that is copied whole, pages for samples.

    Buffers of one shape come to lie side by side once the same shapes were seen in two calls, so
    that they are reduced together.

    Attributes:
        buffers: Buffer of the n-th observed tensor; of no use where shape or type do not fit.
        shapes: Their shapes.
        arrays: The same memory, flat, where it is float32; None where it must be converted.
        stacks: Buffers that lie side by side: float32 (k, elements), and their k positions.
        strip: What the native tap writes to, where there is one.
    """

    __slots__ = (
        "_bytes",
        "_page",
        "_pages",
        "_settled",
        "_table",
        "arrays",
        "buffers",
        "shapes",
        "stacks",
        "strip",
    )

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.float32] | None] = []
        self.buffers: list[torch.Tensor] = []
        self.shapes: list[torch.Size] = []
        self.stacks: list[tuple[NDArray[np.float32], tuple[int, ...]]] = []
        self.strip: Strip | None = None
        self._pages: list[Page] = []
        self._page = -1
        self._bytes = 0
        self._settled = _CHANGED
        self._table: PointTable | None = None

    @property
    def size(self) -> int:
        """Bytes of all buffers and pages."""
        native = 0 if self.strip is None else self.strip.size
        return self._bytes + len(self._pages) * PAGE_ELEMENTS * 4 + native

    def strip_for(self, table: PointTable) -> "Strip":
        """Return what the native tap writes to, for points of this table."""
        if self.strip is None or self._table is not table:
            assert NATIVE is not None
            self.strip = NATIVE.Strip(table.edges)
            self._table = table
        return self.strip

    def keep(self, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor, in a buffer that fits it from now on."""
        buffer = _fresh(tensor.shape, tensor.dtype)
        while len(self.buffers) <= position:
            self.buffers.append(_NOTHING)
            self.shapes.append(_NOTHING.shape)
            self.arrays.append(None)
        self._bytes += buffer.nbytes - self.buffers[position].nbytes
        self.buffers[position] = buffer
        self.shapes[position] = buffer.shape
        plain = buffer.dtype is torch.float32
        self.arrays[position] = buffer.numpy().reshape(-1) if plain else None
        self.stacks = [stack for stack in self.stacks if position not in stack[1]]
        self._settled = _CHANGED
        return buffer.copy_(tensor)

    def room(self, count: int) -> tuple[torch.Tensor, NDArray[np.float32]]:
        """Return the same `count` elements, at most `PAGE_ELEMENTS`, as tensor and as array."""
        if self._page < 0 or self._pages[self._page].used + count > PAGE_ELEMENTS:
            self._page += 1
            if self._page == len(self._pages):
                self._pages.append(Page())
            self._pages[self._page].used = 0
        page = self._pages[self._page]
        start, page.used = page.used, page.used + count
        return page.tensor[start : page.used], page.array[start : page.used]

    def clear(self) -> None:
        """Make everything free again; the content may be overwritten from now on."""
        self._page = -1
        if self._settled == _CHANGED:
            self._settled = _UNCHANGED
        elif self._settled == _UNCHANGED:
            self._settled = _STACKED
            self._stack()

    def _stack(self) -> None:
        """Lay buffers of one shape side by side."""
        alike: dict[torch.Size, list[int]] = {}
        for position, array in enumerate(self.arrays):
            if array is not None:
                alike.setdefault(self.shapes[position], []).append(position)
        self.stacks = []
        for shape, positions in alike.items():
            block = _fresh((len(positions), *shape), torch.float32)
            stack = block.numpy().reshape(len(positions), -1)
            for row, position in enumerate(positions):
                self.buffers[position] = block[row]
                self.arrays[position] = stack[row]
            self.stacks.append((stack, tuple(positions)))


class CopyKeeper(Protocol):
    """Keeps memory for copies of tensors; the report of a watch adds up what all of them keep."""

    @property
    def copy_bytes(self) -> int:
        """Bytes that are kept, and not in use at this moment."""


@final
class ShelfPool:
    """Shelves that are not in use, at most 64 MiB of them; any thread may take and give.

    Args:
        native: Let the native tap write, where there is one.

    Attributes:
        native: Whether it does.
    """

    __slots__ = ("_bytes", "_free", "native")

    def __init__(self, *, native: bool = True) -> None:
        self.native = native and NATIVE is not None
        self._free: deque[tuple[Shelf, int]] = deque()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes of the shelves that are not in use."""
        return self._bytes

    def take(self) -> Shelf:
        """Return an empty shelf, the one that was given last."""
        try:
            shelf, size = self._free.pop()
        except IndexError:
            return Shelf()
        self._bytes -= size
        return shelf

    def give(self, shelf: Shelf) -> None:
        """Take a shelf back, or let it go where there are enough."""
        shelf.clear()
        size = shelf.size
        # Racing threads may pass the limit by a shelf each, or count one too many: a bound on
        # memory that is good to that is good enough.
        if len(self._free) < _KEPT_SHELVES and self._bytes + size <= _KEPT_BYTES:
            self._bytes += size
            self._free.append((shelf, size))


def _fresh(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    # An inference tensor could not be written outside of inference mode.
    with torch.inference_mode(False), torch.no_grad():
        return torch.empty(shape, dtype=dtype, device="cpu")


_NOTHING: Final = _fresh((0,), torch.float32)

"""Memory for what taps keep, handed from a request to the drain and back.

Kept for reuse, because fresh memory costs a page fault per 4 KiB, in the taps and, by what they
take away from the allocator, in the model (measured: 2 % of a call of 12 ms that keeps 2 MB).
"""

from collections import deque
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

PAGE_ELEMENTS: Final = 1 << 16
"""Elements of a page: 16 full samples, 256 KiB."""
_KEPT_BYTES: Final = 64 * 1024 * 1024
_KEPT_SHELVES: Final = 16


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

    Attributes:
        buffers: Buffer of the n-th observed tensor; of no use where shape or type do not fit.
        arrays: The same memory, flat, where it is float32; None where it must be converted.
    """

    __slots__ = ("_page", "_pages", "arrays", "buffers")

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.float32] | None] = []
        self.buffers: list[torch.Tensor] = []
        self._pages: list[Page] = []
        self._page = -1

    @property
    def size(self) -> int:
        """Bytes of all buffers and pages."""
        pages = len(self._pages) * PAGE_ELEMENTS * 4
        return pages + sum(buffer.nbytes for buffer in self.buffers)

    def keep(self, position: int, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor, in a buffer that fits it from now on."""
        buffer = _fresh(tensor.shape, tensor.dtype)
        while len(self.buffers) <= position:
            self.buffers.append(_NOTHING)
            self.arrays.append(None)
        self.buffers[position] = buffer
        plain = buffer.dtype is torch.float32
        self.arrays[position] = buffer.numpy().reshape(-1) if plain else None
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


@final
class ShelfPool:
    """Shelves that are not in use, at most 64 MiB of them; any thread may take and give."""

    __slots__ = ("_bytes", "_free")

    def __init__(self) -> None:
        self._free: deque[tuple[Shelf, int]] = deque()
        self._bytes = 0

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

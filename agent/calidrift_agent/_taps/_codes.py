"""What is kept of a quantized tensor: how often each of its codes occurs.

A quantized operation requantizes inside its kernel, so the value before its quantizer is never
there to be seen. Its codes are: 256 of them, counted exactly.
"""

import math
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._points import Frame
from calidrift_agent._profile import ClipBound
from calidrift_agent._taps._measure import dense, strided_sample
from calidrift_agent.errors import CalidriftError

KEPT_CODES: Final = 1 << 18
"""Tensors up to this many codes (256 KiB) are copied and counted in the drain, others at once."""
CODES: Final = 256
_LOWEST: Final = {torch.quint8: 0, torch.qint8: -128}
_TOLERANCE: Final = 1e-6


class RangeChangedError(CalidriftError, RuntimeError):
    """A quantizer is not the one that the watch was attached to; counted, never raised."""


@final
class CodeReading:
    """The codes of one quantized tensor.

    Attributes:
        point: Row of its point.
        numel: Its elements that are not padding.
        padded: Its elements that are, which are not among the codes.
        lowest: Code that stands first in the histogram: 0 for quint8, -128 for qint8.
    """

    __slots__ = ("_codes", "_counts", "lowest", "numel", "padded", "point")

    def __init__(self, point: int, codes: torch.Tensor, lowest: int, padded: int = 0) -> None:
        self.point = point
        self.numel = codes.numel()
        self.padded = padded
        self.lowest = lowest
        self._counts: NDArray[np.int64] | None = None
        self._codes: torch.Tensor | None = codes
        if self.numel > KEPT_CODES:
            self.histogram()

    @property
    def size(self) -> int:
        """Bytes held."""
        return CODES * 8 if self._codes is None else self.numel

    def histogram(self) -> NDArray[np.int64]:
        """Return how often each code occurs, int64 (256,), the lowest code first.

        Cost: one pass, 1.8 ns per code, once.
        """
        counts = self._counts
        if counts is None:
            codes, self._codes = self._codes, None
            assert codes is not None  # either the codes or their counts are there
            counted = torch.bincount(codes.view(torch.uint8), minlength=CODES).numpy()
            # As unsigned bytes, -128 to -1 come behind 127.
            counts = self._counts = np.roll(counted, CODES + self.lowest)
        return counts


def read_codes(
    point: int, tensor: torch.Tensor, clip: ClipBound | None, frame: Frame | None = None
) -> CodeReading | None:
    """Copy the codes of a tensor; None where there are none of 8 bits on the CPU, or no range.

    Args:
        point: Row of its point.
        tensor: Any tensor.
        clip: The range that its quantizer had when the watch was attached; None without one.
        frame: Where padded positions are; None for none.

    Raises:
        RangeChangedError: It was quantized with another range.

    Cost: a copy of one byte per element; above `KEPT_CODES` elements the counting too.
    """
    lowest = _LOWEST.get(tensor.dtype)
    if clip is None or lowest is None or not tensor.is_cpu:
        return None
    if tensor.qscheme() is not torch.per_tensor_affine:
        return None
    if tensor.numel() == 0:
        return None
    same = math.isclose(tensor.q_scale(), clip.scale, rel_tol=_TOLERANCE)
    if not same or tensor.q_zero_point() != clip.zero_point:
        raise RangeChangedError(
            f"a quantizer has scale {tensor.q_scale()!r} and zero point {tensor.q_zero_point()}, "
            f"but had {clip.scale!r} and {clip.zero_point} when the watch was attached; watch the "
            "model again"
        )
    codes = tensor.int_repr()
    grid, kept = (codes, None) if frame is None else frame.grid(codes)
    if kept is not None:
        real = grid[torch.from_numpy(kept)].reshape(-1)
        return CodeReading(point, real, lowest, codes.numel() - real.numel())
    codes = dense(codes)
    return CodeReading(point, strided_sample(codes, 0, 1, codes.numel()), lowest)

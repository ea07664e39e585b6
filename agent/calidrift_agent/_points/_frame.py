"""Positions: what the inputs of a call say about where its rows are, and which are padding.

So that each value is charged to its own request, and positions that an attention mask calls
padding to none. The same in calibration and in production.
"""

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from calidrift_agent._points._layout import Layout, grid_of, layout_of
from calidrift_agent._points._rows import batch_input
from calidrift_agent._points._signature import MASK, ForwardSignature

_SEQUENCE_DIMENSIONS: Final = (2, 3)
"""Dimensions of an input that holds sequences: (B, T) or (B, T, features)."""
_DECODER: Final = ("decoder_input_ids", "decoder_inputs_embeds")
_NOT_INTERPRETED: Final = (
    "an attention mask was not interpreted ({}): padded positions count as any others; give one of "
    "shape (rows, tokens) with 1 for tokens and 0 for padding"
)
_AMBIGUOUS: Final = (
    "an attention mask was not interpreted (encoder and decoder read equally many tokens, and "
    "nothing tells their tensors apart): padded positions count as any others"
)
_MASK_TYPES: Final = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@final
class Frame:
    """Rows and positions of one call.

    Args:
        rows: Rows of the batch.
        length: Positions of each row in the inputs, 0 where that is unknown.
        masks: Length to mask, bool (rows, length), True where a position is real; empty where
            nothing is padded.

    Attributes:
        rows: Rows of the batch.
        masks: As given.
        remark: Why a mask that was given is not interpreted; "" where it is.
    """

    __slots__ = ("_length", "_time_major", "masks", "remark", "rows")

    def __init__(
        self, rows: int, length: int = 0, masks: Mapping[int, NDArray[np.bool_]] | None = None
    ) -> None:
        self.rows = rows
        self.masks = masks or {}
        self.remark = ""
        self._length = length
        self._time_major = False

    @classmethod
    def of(
        cls,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        rows: int,
        signature: ForwardSignature,
    ) -> "Frame":
        """Read the inputs of a call.

        An attention mask counts if it has shape (rows, T) and holds truth values or 0 and 1.
        Where it is longer than the inputs and the call carries a cache, its end belongs to the
        inputs. Additive and four-dimensional masks are not interpreted, nor is one that might
        belong to the encoder or to the decoder.

        Cost: 2 us; 10 us more where there is a mask.
        """
        batch = batch_input(args, kwargs)
        length = 0
        if batch is not None and batch.dim() in _SEQUENCE_DIMENSIONS:
            length = int(batch.shape[1])
        mask = signature.argument(MASK, args, kwargs)
        if mask is None:
            return cls(rows, length)
        if not (isinstance(mask, torch.Tensor) and is_padding_mask(mask, rows)):
            frame = cls(rows, length)
            frame.remark = _NOT_INTERPRETED.format(_described(mask))
            return frame
        masks = _masks(mask, length, args, kwargs, signature)
        frame = cls(rows, length, masks)
        frame.remark = "" if masks is not None else _AMBIGUOUS
        return frame

    @property
    def is_plain(self) -> bool:
        """Whether rows alone say it all: one row, and nothing padded."""
        return self.rows == 1 and not self.masks

    @property
    def real(self) -> NDArray[np.bool_]:
        """Rows that hold anything but padding, bool (rows,)."""
        found = np.full(self.rows, not self.masks, np.bool_)
        for mask in self.masks.values():
            found |= mask.any(axis=1)
        return found

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Return where the rows are in a tensor of this call; tensors in the order of the call."""
        found = layout_of(shape, self.rows, self._length, self._time_major)
        self._time_major = self._time_major or found.time_major
        return found

    def grid(self, tensor: torch.Tensor) -> tuple[torch.Tensor, NDArray[np.bool_] | None]:
        """Return a tensor by rows and positions, and which of them are real.

        Args:
            tensor: Of this call, with at least one element; in the order of the call.

        Returns:
            Shape (rows, positions, elements), (1, 1, elements) for a tensor that all rows share;
            and bool (rows, positions), None where all are real. A tensor without the positions of
            a mask (a pooled one) loses the rows that are nothing but padding.
        """
        shape = tuple(tensor.shape)
        layout = self.layout(shape)
        if not self.masks or layout.is_shared:
            return grid_of(tensor, layout, self.rows), None
        positions = shape[1] if layout.groups == 1 and len(shape) > 2 else layout.groups
        kept = self.masks.get(positions)
        if kept is None:
            positions = layout.groups
            kept = np.repeat(self.real[:, None], positions, axis=1)
        return grid_of(tensor, layout, self.rows, positions), None if kept.all() else kept

    def unmasked(self) -> "Frame":
        """Return the frame of the same call with padding that counts, before any tensor of it."""
        return Frame(self.rows, self._length)

    def row(self, row: int) -> "Frame":
        """Return the frame of one row alone."""
        masks = {length: mask[row : row + 1] for length, mask in self.masks.items()}
        return Frame(1, self._length, masks)


def _described(mask: object) -> str:
    if isinstance(mask, torch.Tensor):
        return f"{mask.dim()} dimensions, {mask.dtype}"
    return f"a {type(mask).__name__}"


def is_padding_mask(mask: torch.Tensor, rows: int) -> bool:
    """Whether a tensor is a mask of shape (rows, T) of truth values or integers."""
    return mask.dim() == 2 and mask.shape[0] == rows and mask.dtype in _MASK_TYPES


def _masks(
    mask: torch.Tensor,
    length: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    signature: ForwardSignature,
) -> Mapping[int, NDArray[np.bool_]] | None:
    """Masks by length; None where nothing tells whose positions they are."""
    whole = mask.detach().cpu().numpy() != 0
    if whole.all():
        return {}
    size = int(whole.shape[1])
    decoders = [signature.argument(name, args, kwargs) for name in _DECODER]
    if any(isinstance(one, torch.Tensor) for one in decoders):
        # The mask is the encoder's. Where the decoder has as many positions, nothing tells which
        # of the two a tensor belongs to.
        same = any(isinstance(one, torch.Tensor) and one.shape[1] == size for one in decoders)
        return None if same else {size: whole}
    masks = {size: whole}
    if 0 < length < size and signature.cache_of(args, kwargs) is not None:
        masks[length] = whole[:, size - length :]
    return masks

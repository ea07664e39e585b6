"""Rows: which part of a tensor belongs to which request of a batch.

A batch holds several requests, one per row of its first tensor. Every observed tensor is folded
to that many rows, in calibration and in production alike, so that both speak of the same unit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.utils._pytree import tree_leaves

from calidrift_agent._points._layout import grid_of, layout_of
from calidrift_agent._profile import ClipBound

_NOT_THE_BATCH: Final = frozenset(
    {
        "attention_mask",
        "cache_params",
        "cache_position",
        "encoder_attention_mask",
        "encoder_hidden_states",
        "encoder_outputs",
        "past_key_value",
        "past_key_values",
        "position_ids",
    }
)


def batch_rows(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of rows of a batch: the first dimension of `batch_input`.

    Args:
        args: Positional inputs of the model; containers are looked through.
        kwargs: Keyword inputs of the model.

    Returns:
        The number of rows, or None where no input is a tensor with a dimension.

    Example:
        >>> batch_rows((), {"ids": torch.zeros(8, 128, dtype=torch.long)})
        8
    """
    found = batch_input(args, kwargs)
    return None if found is None else int(found.size(0))


def batch_input(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Return the input that holds the batch: the first tensor with a dimension.

    Keyword inputs that Hugging Face's models share among rows or keep from earlier calls
    (positions, masks, caches) are looked at last: their order says nothing.
    """
    later = [value for name, value in kwargs.items() if name in _NOT_THE_BATCH]
    first = [value for name, value in kwargs.items() if name not in _NOT_THE_BATCH]
    for value in (*args, *first, *later):
        leaves = (value,) if isinstance(value, torch.Tensor) else tree_leaves(value)
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and leaf.dim() > 0:
                return leaf
    return None


def fold_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the tensor as `rows` rows; a view where its memory allows it, else a copy.

    A first dimension of B * T (windows or time steps folded into the batch) becomes B rows, and
    so does (T, B, ...) where T is no multiple of B; see `layout_of`. A tensor that no whole number
    of rows fits into belongs to all requests together: it becomes one row, and every request is
    charged with its extremes.

    Args:
        tensor: Any shape.
        rows: Rows of the batch, above 0.

    Returns:
        Shape (rows, elements per row) or (1, elements); (1, 0) for a tensor without elements.

    Example:
        >>> fold_rows(torch.zeros(6, 4, 3), 2).shape, fold_rows(torch.zeros(5, 3), 2).shape
        (torch.Size([2, 36]), torch.Size([1, 15]))
    """
    if tensor.numel() == 0:
        return tensor.reshape(1, 0)
    return grid_of(tensor, layout_of(tensor.shape, rows), rows).flatten(1)


def row_absmax(folded: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each row, infinite for a row with a NaN or an infinity.

    So a row whose values are not all finite exceeds every bound, in calibration and in
    production alike.

    Two full passes (`amax`, `amin`); `aminmax(dim=1)` is 6 to 24 times slower on CPU.

    Args:
        folded: Shape (rows, elements), floating point.

    Returns:
        Shape (rows,), float32 on the tensor's device; NaN for rows without elements.

    Example:
        >>> row_absmax(torch.tensor([[1.0, -3.0], [float("nan"), 2.0]])).tolist()
        [3.0, inf]
    """
    if folded.size(1) == 0:
        return torch.full((folded.size(0),), float("nan"), device=folded.device)
    absmax = torch.maximum(folded.amax(1), folded.amin(1).neg()).float()
    return torch.where(absmax.isnan(), float("inf"), absmax)


def rail_counts(values: torch.Tensor, bound: ClipBound) -> tuple[int, int]:
    """Return how many values are quantized to the lowest and to the highest code.

    The code is the quantizer's own: ``round(x * (1 / scale)) + zero_point``, clamped. A rail hit
    is not yet clipping: min-max calibration maps its own maximum to a rail, and behind a ReLU the
    lowest code is the real zero. Compare with the rate at calibration. NaN counts for neither.

    Args:
        values: What enters the quantizer, any shape.
        bound: The quantizer's range.

    Returns:
        Elements at the low rail, elements at the high rail.

    Example:
        >>> bound = ClipBound.of_quantizer(1.0, 0, 0, 255, "uint8")
        >>> rail_counts(torch.tensor([-4.0, 0.0, 7.0, 254.6, 999.0]), bound)
        (2, 2)
    """
    codes = torch.round(values.float() * (1.0 / bound.scale)) + bound.zero_point
    low = int(torch.count_nonzero(codes <= bound.qmin))
    return low, int(torch.count_nonzero(codes >= bound.qmax))

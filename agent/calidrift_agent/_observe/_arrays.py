"""Calls that carry numpy arrays, as engines of other runtimes take them."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch.utils._pytree import tree_map


@final
class ArrayReader:
    """Shows the arrays of a call as tensors over the same memory; see `CallReader`.

    Example:
        >>> args, _ = ArrayReader().inputs((np.ones((2, 3), np.float32), "text"), {})
        >>> args[0].shape, args[1]
        (torch.Size([2, 3]), 'text')
    """

    def inputs(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """See `CallReader`."""
        return tree_map(_tensor, args), tree_map(_tensor, dict(kwargs))

    def output(self, value: Any) -> Any:
        """See `CallReader`."""
        return tree_map(_tensor, value)


def _tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.writeable or not value.dtype.isnative or min(value.strides, default=0) < 0:
        # Memory of which torch would warn, or which it cannot describe.
        value = np.array(value, value.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(value)
    except TypeError:  # texts, objects, numbers that torch has not
        return value

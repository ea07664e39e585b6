"""From what `session.run` was called with to tensors that can be cut into rows and copied."""

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import torch

_TYPES: Final = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(uint8)": np.uint8,
}
"""ONNX Runtime's names of the types that can be copied."""


@final
class FeedReader:
    """Reads the feeds of a call of `session.run`.

    Args:
        inputs: Name and type of every input of the session, in its order.
        needed: Names of those that a replay needs.
    """

    __slots__ = ("_known", "_needed")

    def __init__(self, inputs: Mapping[str, str], needed: frozenset[str]) -> None:
        self._known = frozenset(inputs)
        self._needed = [(name, _TYPES[kind]) for name, kind in inputs.items() if name in needed]

    def inputs(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, torch.Tensor]] | None:
        """Return the feeds as keyword inputs, over the same memory where that is possible.

        None where they cannot be replayed: they lie on another device, are not all there, or
        replace constants of the model. The caller copies what it keeps.
        """
        feeds = args[1] if len(args) > 1 else kwargs.get("input_feed")
        if not isinstance(feeds, Mapping) or not feeds.keys() <= self._known:
            return None
        tensors: dict[str, torch.Tensor] = {}
        for name, dtype in self._needed:
            array = _array(feeds.get(name), dtype)
            if array is None or array.dtype != dtype:
                return None
            tensors[name] = torch.from_numpy(array)
        return (), tensors

    def output(self, value: Any) -> Any:
        """Return a copy of the outputs as tensors; None for those that are no numbers."""
        return [_tensor(one) for one in value] if isinstance(value, (list, tuple)) else value


def _tensor(value: Any) -> Any:
    plain = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return torch.from_numpy(np.array(value)) if plain else None


def _array(value: Any, dtype: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(value, np.ndarray):
        # torch refuses, or warns about, memory that is walked backwards or must not be written.
        plain = value.flags.writeable and all(stride >= 0 for stride in value.strides)
        return value if plain and value.dtype.isnative else np.array(value, dtype)
    if isinstance(value, (list, tuple, int, float, np.generic)):
        return np.asarray(value, dtype)
    if hasattr(value, "device_name") and hasattr(value, "numpy"):
        return np.array(value.numpy()) if value.device_name() == "cpu" else None
    return None

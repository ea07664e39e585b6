"""Captured requests as calibration batches."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from calidrift_agent._capture import Capture, read_capture
from calidrift_analyzer.errors import ContractError

__all__ = ["sample_batches"]

_POSITIONAL: Final = re.compile(r"arg(\d+)")
_ROWS: Final = 64


def sample_batches(paths: Sequence[Path], graph: GraphModule) -> Iterator[tuple[Tensor, ...]]:
    """Yield captured requests as positional batches of up to 64 rows of equal shape.

    Floating-point inputs become float32, as the FP32 model takes them (exact for bfloat16 and
    float16).

    Args:
        paths: Capture files, one row each.
        graph: The exported model: it says what positional inputs are called.

    Raises:
        CaptureError: A file is damaged.
        ContractError: A capture does not hold the inputs of this model.
    """
    names = list(inspect.signature(graph.forward).parameters)
    waiting: list[tuple[Tensor, ...]] = []
    for path in paths:
        row = _inputs(read_capture(path), names, path)
        if waiting and (len(waiting) == _ROWS or _shapes(waiting[0]) != _shapes(row)):
            yield _joined(waiting)
            waiting = []
        waiting.append(row)
    if waiting:
        yield _joined(waiting)


def _inputs(capture: Capture, names: Sequence[str], path: Path) -> tuple[Tensor, ...]:
    found: dict[str, Tensor] = {}
    for given in capture.inputs:
        positional = _POSITIONAL.fullmatch(given)
        index = int(positional[1]) if positional and given not in names else None
        name = given if index is None else (names[index] if index < len(names) else given)
        found[name] = _tensor(capture, given)
    if set(found) != set(names):
        raise ContractError(
            f"the capture {path} holds the inputs {', '.join(capture.inputs) or '(none)'}, but the "
            f"model takes {', '.join(names)}; capture all tensor inputs, not inside containers"
        )
    return tuple(found[name] for name in names)


def _tensor(capture: Capture, name: str) -> Tensor:
    array = capture.inputs[name]
    if name in capture.bfloat16 or array.dtype.kind == "f":
        array = capture.as_float32(name)
    return torch.from_numpy(np.array(array))


def _shapes(row: Sequence[Tensor]) -> list[Any]:
    return [(tensor.shape, tensor.dtype) for tensor in row]


def _joined(rows: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))

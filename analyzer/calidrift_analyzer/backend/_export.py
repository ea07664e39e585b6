"""Eager model to exported graph, and graphs to and from disk."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from calidrift_analyzer.errors import ContractError

__all__ = ["export_graph", "first_tensor", "load_graph", "rows_of", "save_graph"]

_FEWEST_ROWS: Final = 2
"""`torch.export` fixes a size of 1, so that a variable number of rows needs an example of two."""


def rows_of(inputs: Sequence[Any]) -> int:
    """Rows (size of dimension 0) that all tensors of `inputs` share.

    Raises:
        ContractError: There is no tensor, or the tensors differ.

    >>> rows_of((torch.zeros(4, 1), torch.zeros(4)))
    4
    """
    sizes = {
        tuple(leaf.shape[:1]) for leaf in pytree.tree_leaves(tuple(inputs)) if _is_tensor(leaf)
    }
    if len(sizes) != 1 or () in sizes:
        raise ContractError(
            f"the inputs have {len(sizes)} different first dimensions {sorted(sizes)}; every "
            "tensor must have the rows of the batch as its first dimension, and there must be one"
        )
    return int(next(iter(sizes))[0])


def first_tensor(output: Any) -> Tensor:
    """Give the first floating-point tensor of a model's output: what is compared and scored.

    Raises:
        ContractError: There is none.
    """
    for leaf in pytree.tree_leaves(output):
        if _is_tensor(leaf) and leaf.is_floating_point():
            return leaf  # type: ignore[no-any-return]
    raise ContractError(
        f"the model returned {type(output).__name__} without a floating-point tensor; "
        "outputs are compared with those of FP32, so at least one is needed"
    )


def export_graph(model: nn.Module, inputs: Sequence[Any]) -> GraphModule:
    """Export a model with a variable number of rows.

    Args:
        model: The model, in eval mode.
        inputs: Positional example inputs; dimension 0 of every tensor is the batch.

    Returns:
        The exported graph as a module.

    Raises:
        ContractError: The model cannot be exported.

    Cost: 0.2 s for a CNN of 40 operations.
    """
    return _export(model, inputs).module()


def save_graph(graph: GraphModule, inputs: Sequence[Any], path: Path) -> None:
    """Write a graph as `torch.export.save` does; read it back with `load_graph`."""
    with _quiet():
        torch.export.save(_export(graph, inputs), path)


def load_graph(path: Path) -> GraphModule:
    """Read a graph that `save_graph` wrote.

    Raises:
        ContractError: The file is missing or not an exported program.
    """
    # Registers the quantize and dequantize operations that the file names.
    import torch.ao.quantization.fx._decomposed

    try:
        with _quiet():
            graph = torch.export.load(path).module()
    except Exception as error:
        raise ContractError(
            f"{path} cannot be read as an exported model ({_first_line(error)}); "
            "recalibrate again to write a new one"
        ) from error
    return graph.requires_grad_(False)


def _export(model: nn.Module, inputs: Sequence[Any]) -> torch.export.ExportedProgram:
    rows_of(inputs)
    grown = pytree.tree_map(_at_least_two_rows, tuple(inputs))
    batch = torch.export.Dim("rows", min=1, max=1 << 20)
    shapes = pytree.tree_map(lambda leaf: {0: batch} if _is_tensor(leaf) else None, grown)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(model, grown, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ContractError(
            f"{type(model).__name__} cannot be exported with a variable number of rows: "
            f"{_first_line(error)}; make its forward independent of the batch size and of data"
        ) from error


def _at_least_two_rows(leaf: Any) -> Any:
    if not _is_tensor(leaf) or leaf.shape[0] >= _FEWEST_ROWS:
        return leaf
    return leaf.repeat(_FEWEST_ROWS, *(1 for _ in leaf.shape[1:]))


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

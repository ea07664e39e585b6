"""The rows of a request: how many there are, and a copy of one of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from calidrift_agent._points import batch_rows


def rows_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the number of rows of a request; a request without tensors is one row.

    The same unit as in calibration, see `calidrift_agent._points.batch_rows`.

    Example:
        >>> rows_of((torch.zeros(8, 3, 4, 4),), {}), rows_of((), {"text": "hello"})
        (8, 1)
    """
    if args and isinstance(args[0], torch.Tensor) and args[0].dim():
        return int(args[0].shape[0])
    rows = batch_rows(args, kwargs)
    return 1 if rows is None else rows


def copy_rows(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int, choose: slice
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a copy of some rows of a request.

    Tensors whose first dimension is the number of rows are cut, others (a shared mask) are copied
    whole; anything that is not a tensor is passed on as it is.

    Args:
        args: Positional inputs.
        kwargs: Keyword inputs.
        rows: What `rows_of` said.
        choose: The rows to copy.
    """

    def copy(value: torch.Tensor) -> torch.Tensor:
        batched = value.dim() > 0 and value.shape[0] == rows
        return (value[choose] if batched else value).detach().clone()

    return _map_tensors(args, kwargs, copy)


def repeat_row(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], times: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a batch of `times` copies of a request of one row."""

    def repeat(value: torch.Tensor) -> torch.Tensor:
        if value.dim() == 0 or value.shape[0] != 1:
            return value
        return value.expand(times, *value.shape[1:]).clone()

    return _map_tensors(args, kwargs, repeat)


def named_tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a request: positional ones as ``arg0``, keyword ones by their name.

    Tensors inside containers are numbered (``arg0.0``, ``batch.1``).
    """
    named: dict[str, torch.Tensor] = {}
    roots = [(f"arg{index}", value) for index, value in enumerate(args)]
    for name, root in (*roots, *kwargs.items()):
        if isinstance(root, torch.Tensor):
            named[name] = root
            continue
        tensors = [value for value in tree_leaves(root) if isinstance(value, torch.Tensor)]
        named.update({f"{name}.{index}": value for index, value in enumerate(tensors)})
    return named


def _map_tensors(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    change: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def apply(value: Any) -> Any:
        return change(value) if isinstance(value, torch.Tensor) else value

    if any(isinstance(value, (list, tuple, dict)) for value in (*args, *kwargs.values())):
        return tree_map(apply, args), tree_map(apply, dict(kwargs))
    return tuple(map(apply, args)), {name: apply(value) for name, value in kwargs.items()}

"""Whether the first dimension of a request's inputs holds rows that do not look at each other.

It does not where time comes first, say, or where a tensor that all rows share happens to have as
many entries as there are rows. Such a request says nothing by one row of it.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_leaves, tree_map

from calidrift_agent._taps import Recorder, SeenColumn

ShapeClass = tuple[Hashable, ...]
"""How the inputs of a request are cut into rows: their dimensions, and which of them are cut."""
Sight = NDArray[np.float64]
"""What the points saw of one row, shape (n, 4): point, elements of all rows, highest, lowest."""
WantsWhole = Callable[[tuple[Any, ...], Mapping[str, Any], int], bool]
"""Whether all rows of a request with these inputs, and so many rows, must be copied."""
_CLASSES: Final = 64
"""Classes that are told apart; requests of any further one are taken whole."""
_TOLERANCE: Final = 1 / 32
"""Of the largest magnitude at a point: what half precision or a flipped code of 8 bits makes."""
_CLOSE: Final = 1e-3
_CLOSE_HALF: Final = 1 / 32
"""Of the length of an output in single and in half precision."""


@final
class RowBook:
    """What is known of the classes of requests that came, from the first of each."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[ShapeClass, bool] = {}

    @property
    def mixed(self) -> bool:
        """Whether there is a class of which one row alone says nothing."""
        return not all(self._known.values())

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """Whether a request must be taken whole; 1 us, and 0.3 us for each input."""
        return rows > 1 and not self._known.get(shape_class(args, kwargs, rows), False)

    def known(self, kind: ShapeClass) -> bool | None:
        """Whether rows of a class stand for themselves; None where that must be found out."""
        return self._known.get(kind, None if len(self._known) < _CLASSES else False)

    def note(self, kind: ShapeClass, *, apart: bool) -> None:
        """Keep what was found out."""
        self._known[kind] = apart

    def forget(self) -> None:
        """Find everything out anew."""
        self._known = {}


def shape_class(args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> ShapeClass:
    """Return the class of a request.

    Example:
        >>> shape_class((torch.zeros(4, 2), torch.zeros(3)), {"causal": True}, 4)
        ((2, True), (1, False), ('causal', True))
    """
    return (
        *(_kind(value, rows) for value in args),
        *((name, _kind(value, rows)) for name, value in kwargs.items()),
    )


def _kind(value: Any, rows: int) -> Hashable:
    if isinstance(value, torch.Tensor):
        dimensions = value.dim()
        return dimensions, dimensions > 0 and value.shape[0] == rows
    if isinstance(value, (list, tuple, Mapping)):
        return tuple(
            _kind(leaf, rows) for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)
        )
    if value is None or isinstance(value, bool):
        return value
    return type(value).__qualname__


def unlike(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int, unit: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs with one row as it is, and others that differ from it in every tensor.

    Rows that are all alike (a mask without padding) would not show whether they look at each
    other: there the others become 0, or 1 where they were 0.
    """

    def change(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.dim() or value.shape[0] != rows:
            return value
        row = value[unit : unit + 1]
        if not bool((value == row).all()):
            return value
        changed = (row == 0).to(value.dtype).expand_as(value).clone()
        changed[unit] = row[0]
        return changed

    found: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(change, (args, dict(kwargs)))
    return found


def sight_of(recorder: Recorder, unit: int) -> Sight:
    """Return what the points saw of one row, in the order of the points."""
    seen = recorder.harvest.seen()
    elements = seen.counts[:, SeenColumn.NUMEL]
    found = np.column_stack([seen.points, elements, seen.highs[:, unit], seen.lows[:, unit]])
    return found[np.argsort(found[:, 0], kind="stable")]


def same_sight(batch: Sight, row: Sight, rows: int) -> bool:
    """Whether the same points saw the same of a row, within what rounding makes.

    Args:
        batch: From a run with the whole batch.
        row: From a run with the row alone.
        rows: Rows of the batch.

    Example:
        >>> same_sight(np.array([[0, 8, 2.0, -1.0]]), np.array([[0, 4, 2.01, -1.0]]), 2)
        True
        >>> same_sight(np.array([[0, 8, 2.0, -1.0]]), np.array([[0, 4, 1.0, -1.0]]), 2)
        False
    """
    if batch.shape != row.shape or not np.array_equal(batch[:, 0], row[:, 0]):
        return False
    elements, own = batch[:, 1], row[:, 1]
    if not ((elements == own) | (elements == rows * own)).all():
        return False
    first, second = batch[:, 2:], row[:, 2:]
    finite = np.isfinite(first) & np.isfinite(second)
    scale = np.abs(np.where(finite, first, 0.0)).max(axis=1, keepdims=True, initial=0.0)
    apart = np.abs(np.where(finite, first, 0.0) - np.where(finite, second, 0.0))
    return bool(np.where(finite, apart <= _TOLERANCE * scale, first == second).all())


def same_output(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two outputs for one row are the same, within what rounding makes."""
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    half = torch.finfo(one.dtype).bits < 32
    first, second = one.detach().to(torch.float64), other.detach().to(torch.float64)
    finite = first.isfinite()
    if not torch.equal(finite, second.isfinite()):
        return False
    first, second = first[finite], second[finite]
    limit = (_CLOSE_HALF if half else _CLOSE) * float(torch.linalg.vector_norm(first))
    return float(torch.linalg.vector_norm(first - second)) <= limit

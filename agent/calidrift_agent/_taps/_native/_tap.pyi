"""The native tap, where it was built; see `module.c`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

PROTOCOL: int

class Strip:
    """What the taps of one call saw."""

    def __init__(self, limits: NDArray[np.float64]) -> None: ...
    @property
    def own_ns(self) -> int: ...
    @property
    def elements(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def marks(self) -> int: ...
    def begin(self, rows: int, repeat: int, draw: int, /) -> None: ...
    def take(self, point: int, value: object, /) -> bool: ...
    def fold(self, cells: NDArray[np.int64], /) -> None: ...
    def add_ranges(
        self,
        cells: NDArray[np.int64],
        counts: NDArray[np.int64],
        values: NDArray[np.float64],
        /,
    ) -> tuple[bytes, bytes]: ...
    def add_clips(self, counts: NDArray[np.int64], values: NDArray[np.float64], /) -> None: ...
    def figures(self) -> tuple[bytes, bytes, bytes]: ...
    def sample(self, entry: int, /) -> bytes: ...

class Tap:
    """The forward of an observed module."""

    own: Any
    armed: bool
    _calls: dict[int, Any]
    _forward: Callable[..., Any] | None
    _plain: Callable[..., Any] | None
    _module: nn.Module
    _input: int
    _output: int
    def __init__(
        self, module: nn.Module, input_point: int, output_point: int, calls: dict[int, Any]
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

def setup(
    tensor: type[torch.Tensor],
    table: NDArray[np.uint32],
    plan: tuple[int, ...],
    columns: tuple[int, ...],
    /,
) -> None: ...
def add_unit(
    points: NDArray[np.int64],
    absmax: NDArray[np.float64],
    observed: NDArray[np.float64],
    bounds: NDArray[np.float64],
    counts: NDArray[np.int64],
    values: NDArray[np.float64],
    /,
) -> bool | None: ...
def choose(plain: bool, /) -> None: ...
def arm(taps: list[Any], /) -> None: ...
def disarm(taps: list[Any], /) -> list[int]: ...

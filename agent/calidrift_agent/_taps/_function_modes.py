"""Function modes of the host (`torch.overrides.TorchFunctionMode`), kept from seeing the agent.

They are shown every function of torch that their thread calls, count it and may replace it; a
default device is one of them. What is used of torch here is private: where a version of it lacks
a part, modes see what the agent does.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

_PARTS: Final = (
    "_len_torch_function_stack",
    "_pop_torch_function_stack",
    "_push_on_torch_function_stack",
)
_SEEN: Final = all(hasattr(torch._C, name) for name in _PARTS)


def _no_modes() -> int:
    return 0


function_modes: Final[Callable[[], int]] = (
    torch._C._len_torch_function_stack if _SEEN else _no_modes
)
"""Returns how many modes this thread is in. 60 ns."""


def take_modes() -> tuple[Any, ...]:
    """Leave all modes that this thread is in, and return them, innermost first."""
    # `pop` is a function in C: no mode is asked about it.
    return tuple(torch._C._pop_torch_function_stack() for _ in range(function_modes()))


def put_modes(modes: Iterable[Any]) -> None:
    """Enter the modes again that `take_modes` returned."""
    for mode in reversed(tuple(modes)):
        torch._C._push_on_torch_function_stack(mode)

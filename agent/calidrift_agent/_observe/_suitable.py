"""Calls that must not be observed: the host traces or captures them, or they run elsewhere."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.utils._pytree import tree_leaves

ELSEWHERE: Final = (
    "calls with inputs on another device than the CPU were not observed: reading tensors there "
    "would make requests wait for the device"
)
"""Remark about calls of which `is_elsewhere` is true."""
_CUDA: Final = torch.version.cuda is not None
# Bound once: on the way of a request, each look-up in torch's large modules finds cold memory.
_tracing_state: Final = torch._C._get_tracing_state
_dispatch_modes: Final = torch._C._len_torch_dispatch_stack
_transforms: Final = torch._C._functorch.peek_interpreter_stack


def is_traced() -> bool:
    """Whether this thread is inside a tracer, a transform, a dispatch mode or a graph capture.

    There the tensors are not data, and operations of the agent would become part of the host's
    result. Cost: 0.5 us.
    """
    return (
        _tracing_state() is not None
        or _dispatch_modes() > 0
        or _transforms() is not None
        or (_CUDA and _is_capturing())
    )


def _is_capturing() -> bool:
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()


def is_elsewhere(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an input is on another device than the CPU.

    Such a call is not observed: reading a tensor there would make the request wait for the device,
    and a copy would have to be ordered among the host's streams. Cost: 0.2 us per input.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            if not value.is_cpu:
                return True
        elif isinstance(value, (list, tuple, Mapping)):
            leaves = tree_leaves(value)
            if any(isinstance(leaf, torch.Tensor) and not leaf.is_cpu for leaf in leaves):
                return True
    return False

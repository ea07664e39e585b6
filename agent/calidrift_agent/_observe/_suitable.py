"""Calls that must not be observed: traced, captured, on another device, or without rows."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.compiler import is_exporting
from torch.utils._pytree import tree_leaves

ELSEWHERE: Final = (
    "calls with inputs on another device than the CPU were not observed: reading tensors there "
    "would make requests wait for the device"
)
"""Remark about calls with an input on another device."""
NESTED: Final = (
    "calls with nested tensors were not observed: rows of a nested tensor have different shapes, "
    "so that none of them can be copied or measured as a part of a dense one; give padded tensors "
    "and a mask to have such requests observed"
)
"""Remark about calls with a nested input."""
TRACED: Final = (
    "calls inside a transform of torch.func (vmap, grad), a dispatch mode (say, a counter of "
    "operations) or a graph capture were not observed: tensors are no data there, and what the "
    "agent does would become part of the host's result"
)
"""Remark about calls for which `is_traced` holds, and that are requests."""
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


def is_taken_apart() -> bool:
    """Whether a program is being made of the model (traced or exported): no request at all."""
    return _tracing_state() is not None or is_exporting()


def _is_capturing() -> bool:
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()


def why_unsuitable(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return why a call with these inputs cannot be observed, as a remark; "" where it can.

    Inputs on another device than the CPU: reading a tensor there would make the request wait for
    the device, and a copy would have to be ordered among the host's streams. Nested tensors: they
    have no rows of one shape. Cost: 0.25 us per input.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            if not value.is_cpu or value.is_nested:
                return _why(value)
        elif isinstance(value, (list, tuple, Mapping)):
            for leaf in tree_leaves(value):
                if isinstance(leaf, torch.Tensor) and (not leaf.is_cpu or leaf.is_nested):
                    return _why(leaf)
    return ""


def _why(value: torch.Tensor) -> str:
    return NESTED if value.is_nested else ELSEWHERE

"""Calls that must not be observed: traced, captured, on another device, or without rows."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import numpy as np
import torch
from torch.compiler import is_exporting
from torch.utils._pytree import tree_is_leaf, tree_leaves

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
SPARSE: Final = (
    "calls with sparse tensors (or others without strides) were not observed where a copy of the "
    "inputs is needed: their rows cannot be cut; give dense tensors"
)
"""Remark about calls of which the inputs cannot be copied."""
UNCOPIED: Final = (
    "calls with sparse tensors (or others without strides) were observed, but neither captured nor "
    "compared with a reference: their rows cannot be cut; give dense tensors"
)
"""Remark about such calls where a copy is not all that there is to see."""
EMPTY: Final = "calls without rows (an input whose first dimension is 0) were not observed"
"""Remark about calls with nothing in them."""
NO_TENSORS: Final = (
    "calls without torch tensors among their inputs were not observed (lists, tuples and dicts are "
    "looked into, other objects are not): pass tensors by themselves"
)
"""Remark about calls with nothing that could be replayed."""
TRACED: Final = (
    "calls inside a transform of torch.func (vmap, grad), a dispatch mode (say, a counter of "
    "operations) or a graph capture were not observed: tensors are no data there, and what the "
    "agent does would become part of the host's result"
)
"""Remark about calls for which `is_traced` holds, and that are requests."""
_PLAIN: Final = (
    *(torch.Tensor, np.generic, type(None), bool, int, float, complex, str, bytes, Enum, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
_STRIDED: Final = torch.strided
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


def why_uncopied(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return why the inputs of a call cannot be copied, as a remark; "" where they can.

    Cost: 0.2 us per input.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            leaves = [value]
        elif isinstance(value, (list, tuple, Mapping)):
            leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        else:
            continue
        if any(leaf.layout is not _STRIDED for leaf in leaves):
            return SPARSE
    return ""


def is_container(value: Any) -> bool:
    """Whether a value is a list, a tuple or a dict that torch takes apart and puts together again.

    So also an `OrderedDict`, a named tuple and the `ModelOutput` of transformers; not any other
    class that derives from these, of which a copy would share what it holds.
    """
    return isinstance(value, (list, tuple, dict)) and not tree_is_leaf(value)


def is_plain(value: Any) -> bool:
    """Whether an input is a tensor, a plain value, or a container of such: nothing with a state.

    Example:
        >>> is_plain([torch.ones(1), {"flag": True}]), is_plain(object())
        (True, False)
    """
    if is_container(value):
        return all(map(is_plain, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, _PLAIN)


def _why(value: torch.Tensor) -> str:
    return NESTED if value.is_nested else ELSEWHERE

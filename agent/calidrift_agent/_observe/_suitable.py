"""Moments at which a call must not be observed, because the host is tracing or capturing it."""

from typing import Final

import torch

_CUDA: Final = torch.version.cuda is not None


def is_traced() -> bool:
    """Whether this thread is inside a tracer, a transform, a dispatch mode or a graph capture.

    There the tensors are not data, and operations of the agent would become part of the host's
    result. Cost: 0.5 us.
    """
    if torch._C._get_tracing_state() is not None:
        return True
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return _CUDA and _is_capturing()


def _is_capturing() -> bool:
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()

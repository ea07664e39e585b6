"""Autocast, carried from the thread of a request to the drain."""

from contextlib import AbstractContextManager, ExitStack

import torch

Autocast = tuple[tuple[str, torch.dtype], ...]
"""Device types on which autocast is on, with its type."""

_DEVICES = ("cpu", "cuda")


def autocast_state() -> Autocast:
    """Return the autocast of this thread (0.1 us where there is none)."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple(
        (device, torch.get_autocast_dtype(device))
        for device in _DEVICES
        if torch.is_autocast_enabled(device)
    )


def autocast_as(state: Autocast) -> AbstractContextManager[object]:
    """Return a context in which autocast is as it was where `state` was taken."""
    stack = ExitStack()
    for device, dtype in state:
        # Without a cache: that one belongs to the process, and holds weights of the host.
        stack.enter_context(torch.autocast(device, dtype=dtype, cache_enabled=False))
    return stack

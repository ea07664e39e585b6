"""Whether a copy of a module may be run in the host's place: one run that is not allowed to harm.

Random numbers and writes are refused before they happen; anything else that the run changed is
found by comparing what the module refers to before and after.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from calidrift_agent._observe._chance import DRAWN, ChanceGuard
from calidrift_agent._observe._footprint import Footprint, footprint
from calidrift_agent._observe._guard import SideEffectError, SideEffectGuard
from calidrift_agent._observe._outside import writes_outside
from calidrift_agent._observe._twin import Twin, TwinError
from calidrift_agent._points import Point

_ATTEMPTS: Final = 3
"""Runs after which changed random states are this model's doing and no other thread's."""

Attempt = Callable[[], None]
"""Runs the copy; called at least once."""


def why_not_twice(live: nn.Module, twin: Twin, attempt: Attempt) -> str | None:
    """Return why a module must not be run a second time for a request, or None.

    Args:
        live: The module that serves.
        twin: Its copy.
        attempt: Runs the copy on the inputs of a request.

    Raises:
        Exception: The copy's forward raised it.

    Cost: up to three runs at 3 us per operation, and two walks over what the module refers to.
    """
    outside = writes_outside(live)
    if outside is not None:
        return outside
    before = footprint(twin.module)
    if before.compiled:
        return f"it calls a function that is compiled for itself ({before.compiled[0]})"
    if before.modules & {id(module) for module in live.modules()}:
        return "a function in it refers to the served module itself, so a copy is none"
    buffers = {id(buffer) for buffer in live.buffers()}
    if any(id(tensor) in buffers for tensor in before.tensors):
        return "something in it refers to the served module's buffers, so a copy is none"
    for _ in range(_ATTEMPTS):
        states = _random_states()
        refused = _run_guarded(attempt, before)
        if refused is not None:
            return refused
        place = before.difference(footprint(twin.module))
        if place is not None:
            return f"it changes {place}"
        if _random_states() == states:
            return None
    return DRAWN


def _run_guarded(attempt: Attempt, before: Footprint) -> str | None:
    """Return what the guards refused, or None.

    Raises:
        Exception: The copy's forward raised it.
    """
    guard, chance = SideEffectGuard(before.tensors), ChanceGuard(before.generators)
    try:
        # Not inference mode: there, operations arrive whole, with what they draw inside.
        with torch.no_grad(), guard, chance:
            attempt()
    except SideEffectError as error:
        return DRAWN if chance.drew else str(error)
    except Exception:
        if chance.drew:
            return DRAWN
        raise
    # Also where the module went on.
    return DRAWN if chance.drew else guard.refused or chance.refused


def why_not_copy(live: nn.Module, points: Sequence[Point]) -> str | None:
    """Return what can be said without running anything: why a copy must not be run, or None.

    Cost: that of one copy, and 1 ms for each function that forwards call.
    """
    outside = writes_outside(live)
    if outside is not None:
        return outside
    try:
        Twin(live, points)
    except TwinError as error:
        return str(error)
    return None


def _random_states() -> tuple[object, ...]:
    """Return the generators of Python, numpy and torch, as values to be compared."""
    numbers: Any = np.random.get_state()
    return (
        random.getstate(),
        numbers[1].tobytes(),
        numbers[2:],
        torch.get_rng_state().numpy().tobytes(),
    )

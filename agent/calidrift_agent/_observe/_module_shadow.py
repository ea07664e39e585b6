"""Shadow passes of a compiled FP32 model: its eager modules, on a clone, with one row."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from calidrift_agent._observe._clone import TreeClone
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._observe._shadow import ShadowError
from calidrift_agent._observe._side_effects import draws_random_numbers, written
from calidrift_agent._points import Point
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool, copy_rows


@final
class ModuleShadow:
    """Replays one row through the eager modules behind a compiled model.

    Runs on a shallow clone. The first pass, and every pass in training mode, goes through a guard
    that stops it before an operation draws random numbers or writes to a parameter or buffer;
    such a model cannot be observed beside the host.

    Args:
        module: The module behind `torch.compile`.
        points: Points in row order.
        table: Their bounds.
        ledger: Where errors of taps go.
    """

    def __init__(
        self, module: nn.Module, points: Sequence[Point], table: PointTable, ledger: Ledger
    ) -> None:
        self._module = module
        self._points = points
        self._table = table
        self._ledger = ledger
        self._shelves = ShelfPool()
        self._clone: TreeClone | None = None
        self._guarded = False

    @property
    def batch(self) -> int:
        """See `Shadow`."""
        return 1

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: one eager pass with one row."""
        if call.args is None:
            return
        args, kwargs = call.args, call.kwargs
        if call.copied != 1:
            row = slice(call.unit, call.unit + 1)
            args, kwargs = copy_rows(args, kwargs, call.copied, row)
        call.args, call.kwargs, call.copied = args, kwargs, 1
        call.rows, call.unit, call.inclusion_rows = 1, 0, call.rows
        recorder = Recorder(self._table, self._ledger, self._shelves, rows=1)
        clone = self._current()
        with torch.inference_mode():
            if self._guarded and not any(module.training for module in self._module.modules()):
                clone.run(recorder, args, kwargs)
            else:
                with StateGuard(self._module):
                    clone.run(recorder, args, kwargs)
                self._guarded = True
        recorder.finish()
        call.ranges = recorder
        call.clips = recorder if self._table.has_clips else None

    def _current(self) -> TreeClone:
        clone = self._clone
        if clone is None or not clone.plan.is_current() or clone.plan.has_hooks():
            plan = TreePlan(self._module, self._points)
            why = plan.why_not_clone()
            if why is not None:
                raise ShadowError(f"the model cannot be replayed: {why}")
            clone = self._clone = TreeClone(plan)
            self._guarded = False
        clone.refresh()
        return clone


@final
class StateGuard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops a pass before it draws random numbers or writes to the state of a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        state = [*module.parameters(), *module.buffers()]
        self._state = {tensor.untyped_storage().data_ptr() for tensor in state if tensor.numel()}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if draws_random_numbers(func, args, kwargs):
            raise ShadowError(f"the model draws random numbers ({func})")
        if any(map(self._is_state, tree_leaves(written(func, args, kwargs)))):
            raise ShadowError(f"the model writes to its parameters or buffers ({func})")
        return func(*args, **kwargs)

    def _is_state(self, value: object) -> bool:
        return (
            isinstance(value, torch.Tensor)
            and value.numel() > 0
            and value.untyped_storage().data_ptr() in self._state
        )

"""What stands in an observed module while a call is being observed, where nothing is native."""

from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch import nn


class Tap:
    """The `forward` of an observed live module; see `LiveTap`, which knows how it gets there.

    Args:
        module: The module.
        input_point: Row of its input's point, -1 for none.
        output_point: Row of its output's point, -1 for none.
        calls: Thread to the recorder of the call that it is observing.

    Attributes:
        own: What stood in the module's `__dict__` before; None for nothing.
        armed: Whether it stands in the module.
    """

    __slots__ = ("_calls", "_forward", "_input", "_module", "_output", "_plain", "armed", "own")

    def __init__(
        self, module: nn.Module, input_point: int, output_point: int, calls: dict[int, Any]
    ) -> None:
        self._module = module
        self._input = input_point
        self._output = output_point
        self._calls = calls
        self._forward: Callable[..., Any] | None = None
        self._plain: Callable[..., Any] | None = None
        self.own: Any = None
        self.armed = False

    def bind(self) -> Callable[..., Any]:
        """Return the forward of the module's class, bound; see `LiveTap`."""
        raise NotImplementedError

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the forward behind the tap, and observe it for a call that is being observed."""
        recorder = self._calls.get(get_ident())
        if recorder is not None and self._input >= 0:
            if args:
                recorder.observe(self._input, args[0])
            else:
                recorder.observe_input(self._input, args, kwargs)
        forward = self._forward
        if forward is not None:
            output = forward(*args, **kwargs)
        else:
            module = self._module
            forward = type(module).forward
            if forward is self._plain:
                output = forward(module, *args, **kwargs)
            else:
                output = self.bind()(*args, **kwargs)
        if recorder is not None and self._output >= 0:
            recorder.observe(self._output, output)
        return output


def arm(taps: list[Any]) -> None:
    """Put taps into their modules.

    The ordinary case, a module with the forward of its class, is written out: a call of Python
    that finds its caches cold costs 1 us, for each of hundreds of layers.
    """
    for tap in taps:
        attributes = tap._module.__dict__
        if "forward" in attributes:
            tap.arm()
        else:
            tap.own = tap._forward = None
            tap.armed = True
            attributes["forward"] = tap


def disarm(taps: list[Any]) -> list[int]:
    """Take taps out, last ones first; returns the positions of those to be used no more."""
    stuck = []
    for index in range(len(taps) - 1, -1, -1):
        tap = taps[index]
        attributes = tap._module.__dict__
        if tap.own is None and attributes.get("forward") is tap:
            tap.armed = False
            del attributes["forward"]
        elif not tap.disarm():
            stuck.append(index)
    return stuck

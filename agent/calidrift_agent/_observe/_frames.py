"""Calls that come out of code which `torch.compile` is responsible for.

While compiled code runs, torch looks at each frame of Python that its thread enters, and compiles
it. The host's frames must be seen by it exactly as without a watch, and the agent's not at all:
otherwise they would be compiled with the host's, or the host's compiled once more. So the frame of
the gate is marked to be passed over, and while the agent works nothing is looked at.

The host's function modes are treated alike: they are shown its own calls of torch and no other.

What is used of torch here is private: where a version of it lacks a part, calls that come from
compiled code are passed on unseen, as `Gate` does while code is being traced.
"""

import threading
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final, TypeVar, final

import torch

from calidrift_agent._taps import put_modes, take_modes

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FRAMES: Final[Any] = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
_PARTS: Final = (
    "set_eval_frame",
    "get_eval_frame_callback",
    "set_code_exec_strategy",
    "_FrameExecStrategy",
    "_FrameAction",
)
SEES_COMPILED_CALLS: Final = all(hasattr(_FRAMES, name) for name in _PARTS)
"""Whether calls from compiled code can be told from others."""


def _nothing(_: object = None) -> None:
    return None


compiler_of_frames: Final[Callable[[], Any]] = (
    _FRAMES.get_eval_frame_callback if SEES_COMPILED_CALLS else _nothing
)
"""Returns what compiles the frames that this thread enters; None for nothing. 40 ns."""
_set_compiler: Final[Callable[[Any], Any]] = (
    _FRAMES.set_eval_frame if SEES_COMPILED_CALLS else _nothing
)


def not_compiled(function: _Function) -> _Function:
    """Mark a function whose own frame torch passes over; those that it calls are looked at."""
    if SEES_COMPILED_CALLS and isinstance(function, FunctionType):
        actions = _FRAMES._FrameAction
        strategy = _FRAMES._FrameExecStrategy(actions.SKIP, actions.DEFAULT)
        _FRAMES.set_code_exec_strategy(function.__code__, strategy)
    return function


def never_compiled(*functions: Callable[..., Any]) -> None:
    """Mark functions that torch compiles neither for themselves nor in what they call."""
    if SEES_COMPILED_CALLS:
        skip = _FRAMES._FrameAction.SKIP
        for function in functions:
            code = getattr(function, "__code__", None)
            if code is not None:
                _FRAMES.set_code_exec_strategy(code, _FRAMES._FrameExecStrategy(skip, skip))


@final
class _Paused(threading.local):
    """What compiles the frames of this thread's host, and its modes, while the agent works."""

    compiler: Any = None
    modes: tuple[Any, ...] = ()


_paused: Final = _Paused()


@not_compiled
def apart(work: Callable[..., Any], *args: Any) -> Any:
    """Do the agent's work without compiling any of it, and without modes of the host.

    For a call that came from compiled code, or from within a function mode. The host's own code
    runs within it by `as_before`.

    Raises:
        Exception: Whatever `work` raises.
    """
    # Nothing but functions in C may be called before the first line and after the last one.
    compiler = _set_compiler(None)
    outer, outer_modes = _paused.compiler, _paused.modes
    _paused.compiler, _paused.modes = compiler, take_modes()
    try:
        return work(*args)
    finally:
        put_modes(_paused.modes)
        _paused.compiler, _paused.modes = outer, outer_modes
        _set_compiler(compiler)


def came_from_compiled() -> bool:
    """Whether the call that this thread is observing came from compiled code."""
    return _paused.compiler is not None


@not_compiled
def as_before(
    run: Callable[..., Any],
    first: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Run the host's code as if the agent were not on the way.

    Args:
        run: The host's function.
        first: Arguments before the others: the module of a function of its class.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Raises:
        Exception: Whatever `run` raises.
    """
    compiler, modes = _paused.compiler, _paused.modes
    if compiler is None and not modes:
        return run(*first, *args, **kwargs)
    _paused.compiler, _paused.modes = None, ()
    put_modes(modes)
    _set_compiler(compiler)
    try:
        return run(*first, *args, **kwargs)
    finally:
        _set_compiler(None)
        _paused.compiler, _paused.modes = compiler, take_modes()

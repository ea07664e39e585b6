"""Observing an eager model through hooks that exist for the length of a calibration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from calidrift_agent._points import Observe, Point
from calidrift_agent._vocabulary import Role

_Hook = Callable[..., None]
_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


@contextmanager
def hooked(model: nn.Module, points: Sequence[Point], observe: Observe) -> Iterator[None]:
    """Call `observe` with the index and tensor of each point that fires inside the block.

    The hooks come last, so they see what the module itself sees. On leaving, also by an error,
    the model's hook tables are what they were. Other threads may run the model meanwhile: their
    calls are not observed.
    """
    observe = _only_here(observe)
    with ExitStack() as stack:
        for index, point in enumerate(points):
            module = model.get_submodule(point.module)
            if point.role is Role.INPUT:
                hook = _input_hook(index, observe)
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                handle = module.register_forward_hook(_output_hook(index, observe))
            stack.callback(handle.remove)
        yield


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run compiled parts of a model eagerly: hooks set after compilation are ignored otherwise.

    The stance is one of the whole process, so it is set only where a part is compiled.
    """
    if any(_is_compiled(module) for module in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _only_here(observe: Observe) -> Observe:
    here = get_ident()

    def gated(index: int, tensor: torch.Tensor) -> None:
        if get_ident() == here:
            observe(index, tensor)

    return gated


def _input_hook(index: int, observe: Observe) -> _Hook:
    # Without keywords torch calls it where another thread is just passing a hook being removed.
    def hook(_: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] = _NO_KEYWORDS) -> None:
        value = args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
        if isinstance(value, torch.Tensor):
            observe(index, value)

    return hook


def _output_hook(index: int, observe: Observe) -> _Hook:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            observe(index, output)

    return hook

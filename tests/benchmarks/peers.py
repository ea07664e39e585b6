"""Peers of the sampled pass: torch.ao observers in forward pre-hooks on the same modules."""

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn


class HookedObservers:
    """Pre-hooks that feed one observer per module; keeps the time spent inside them."""

    def __init__(self, model: nn.Module, modules: list[str], make: Callable[[], nn.Module]) -> None:
        self.seconds = 0.0
        self._handles = []
        for name in modules:
            observer = make()
            hook = self._hook(observer)
            self._handles.append(model.get_submodule(name).register_forward_pre_hook(hook))

    def _hook(self, observer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def observe(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            start = time.perf_counter_ns()
            observer(args[0])
            self.seconds += (time.perf_counter_ns() - start) * 1e-9

        return observe

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def minmax_observer() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization.observer import MinMaxObserver

        return MinMaxObserver(dtype=torch.quint8)


def histogram_observer() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization.observer import HistogramObserver

        return HistogramObserver(dtype=torch.quint8)

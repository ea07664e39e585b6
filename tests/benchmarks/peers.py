"""Peers of the sampled pass: torch.ao observers in forward pre-hooks on the same modules."""

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class HookedObservers:
    """Pre-hooks that feed one observer per module; keeps the time spent inside them."""

    def __init__(self, model: nn.Module, modules: list[str], make: Callable[[], nn.Module]) -> None:
        self.nanoseconds: list[int] = []
        self._pairs = [(model.get_submodule(name), make()) for name in modules]
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        self.nanoseconds.append(0)
        self._handles = [
            module.register_forward_pre_hook(self._hook(observer))
            for module, observer in self._pairs
        ]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, observer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def observe(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            start = time.perf_counter_ns()
            observer(args[0])
            self.nanoseconds[-1] += time.perf_counter_ns() - start

        return observe


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

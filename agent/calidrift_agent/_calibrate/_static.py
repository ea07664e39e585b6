"""Calibration of INT8 models made of modules: rail rates, measured with the clip instrument."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import get_ident
from types import MappingProxyType
from typing import Any, final

import numpy as np
import torch
from torch import nn

from calidrift_agent._calibrate._batches import Batch
from calidrift_agent._calibrate._eager import hooked
from calidrift_agent._calibrate._record import RailRecorder
from calidrift_agent._points import (
    CodeGraph,
    CodePoint,
    CodePoints,
    Frame,
    is_code_layer,
)
from calidrift_agent._profile import ClipBound, PointProfile
from calidrift_agent._vocabulary import Role

_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


@final
class StaticCalibration:
    """Runs batches through a statically quantized model and notes what stands on its rails.

    In eager modules a quantizer is known by what makes the tensor. Which layer reads it shows only
    while the model runs: a reader's name becomes an alias (``conv2:input``), so that the profile
    can be merged with one of the FP32 model.

    Args:
        model: The model.
        found: Its quantizers.
    """

    def __init__(self, model: nn.Module, found: CodePoints) -> None:
        self._model = model
        self._found = found
        self._rails = RailRecorder([one.bound for one in found.quantizers])
        self._codes = _CodeRails([one.bound for one in found.quantizers])
        self._links = _Links(found.quantizers)

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Observe modules inside the block; the model is as before on leaving."""
        if self._found.graph is not None:
            yield
            return
        points = [one.point for one in self._found.quantizers]
        with hooked(self._model, points, self._observe), self._links.followed(self._model):
            yield

    def step(self, batch: Batch) -> None:
        """Run one batch."""
        self._rails.begin(batch.frame)
        self._codes.begin(batch.frame)
        self._links.forget()
        graph = self._found.graph
        if graph is None:
            self._model(*batch.args, **batch.kwargs)
            return
        nodes = [(one.node, one.exact) for one in self._found.quantizers if one.node is not None]
        CodeGraph(graph, nodes).run(batch.args, batch.kwargs, observe=self._observe)

    def points(self) -> list[PointProfile]:
        """Return what is known now: ranges, rail rates and aliases."""
        profiles = []
        for index, quantizer in enumerate(self._found.quantizers):
            rates = self._rails if self._codes.total(index) == 0 else self._codes
            low, high = rates.rates(index)
            profile = PointProfile(
                name=quantizer.name,
                clip_bound=quantizer.bound,
                rail_low_rate=low,
                rail_high_rate=high,
                aliases=quantizer.aliases,
            )
            readers = self._links.readers(index)
            aliases = (*quantizer.aliases, *(one for one in readers if one != quantizer.name))
            profiles.append(replace(profile, aliases=tuple(dict.fromkeys(aliases))))
        return _without_shared(profiles)

    def _observe(self, index: int, tensor: torch.Tensor) -> None:
        (self._codes if tensor.is_quantized else self._rails).observe(index, tensor)


@final
class _CodeRails:
    """Share of codes on the lowest and highest code of each quantizer."""

    def __init__(self, bounds: Sequence[ClipBound]) -> None:
        self._bounds = bounds
        self._counts = np.zeros((len(bounds), 3), dtype=np.int64)
        self._frame = Frame(1)

    def begin(self, frame: Frame) -> None:
        self._frame = frame

    def observe(self, index: int, tensor: torch.Tensor) -> None:
        codes = tensor.int_repr()
        if codes.numel() == 0:
            return
        grid, kept = self._frame.grid(codes)
        if kept is not None:
            codes = grid[torch.from_numpy(kept)]
        bound = self._bounds[index]
        low = int(torch.count_nonzero(codes <= bound.qmin))
        high = int(torch.count_nonzero(codes >= bound.qmax))
        self._counts[index] += (low, high, codes.numel())

    def total(self, index: int) -> int:
        return int(self._counts[index, 2])

    def rates(self, index: int) -> tuple[float, float]:
        low, high, total = self._counts[index].tolist()
        return low / total, high / total


@final
class _Links:
    """Which layer reads the very tensor that a quantizer made."""

    def __init__(self, quantizers: Sequence[CodePoint]) -> None:
        self._quantizers = quantizers
        self._made: dict[int, tuple[torch.Tensor, int]] = {}
        self._readers: list[dict[str, None]] = [{} for _ in quantizers]

    def forget(self) -> None:
        """Let go of the tensors of the batch before."""
        self._made.clear()

    def readers(self, index: int) -> list[str]:
        """Names of the layers' inputs that are the tensor of a quantizer."""
        return list(self._readers[index])

    @contextmanager
    def followed(self, model: nn.Module) -> Iterator[None]:
        """Follow tensors from quantizers to layers inside the block."""
        here = get_ident()
        with ExitStack() as stack:
            for index, quantizer in enumerate(self._quantizers):
                module = model.get_submodule(quantizer.point.module)
                hook = self._maker(index, here)
                stack.callback(module.register_forward_hook(hook).remove)
            for name, module in model.named_modules():
                if is_code_layer(module):
                    reader = self._reader(f"{name}:{Role.INPUT}", here)
                    handle = module.register_forward_pre_hook(reader, with_kwargs=True)
                    stack.callback(handle.remove)
            yield
        self.forget()

    def _maker(self, index: int, here: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and get_ident() == here:
                # Kept while the batch runs: the identity of a freed tensor may come again.
                self._made[id(output)] = (output, index)

        return hook

    def _reader(self, name: str, here: int) -> Any:
        def hook(
            _: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] = _NO_KEYWORDS
        ) -> None:
            value = args[0] if args else next(iter(kwargs.values()), None)
            made = self._made.get(id(value)) if get_ident() == here else None
            if made is not None:
                self._readers[made[1]][name] = None

        return hook


def _without_shared(profiles: list[PointProfile]) -> list[PointProfile]:
    """Leave out aliases that several points claim: a layer that is called with several tensors."""
    taken: dict[str, int] = {}
    for profile in profiles:
        for name in (profile.name, *profile.aliases):
            taken[name] = taken.get(name, 0) + 1
    return [
        replace(profile, aliases=tuple(one for one in profile.aliases if taken[one] == 1))
        for profile in profiles
    ]

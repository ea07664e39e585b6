"""Models that several test folders share: a tiny residual CNN, in FP32 and as a PT2E INT8 graph."""

import copy
import functools
import io
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

# torchao's CUDA extensions cannot be loaded on a CPU build; without this it says so at import.
os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
torch.set_num_threads(1)


class TinyBlock(nn.Module):
    """Residual block whose two convolutions read one tensor through one quantizer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.skip = nn.Conv2d(channels, channels, 1)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.skip(x))


class TinyCNN(nn.Module):
    """Stem, one residual block, pooling and a head: 8 x 8 images of one channel, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.block = TinyBlock(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.act(self.bn(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


class Quantized(NamedTuple):
    """A graph with its observers, and the same after conversion."""

    prepared: GraphModule
    converted: GraphModule


class TinyInt8(NamedTuple):
    """A converted graph with a dynamic batch (2 to 1024 rows), and an input that fits it."""

    graph: GraphModule
    example: torch.Tensor


def copy_of(graph: GraphModule) -> GraphModule:
    """A deep copy of an exported graph."""
    with warnings.catch_warnings():
        # torch 2.13 reads its own deprecated tree specification while it copies one.
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(graph)


@functools.cache
def _tiny_cnn() -> TinyCNN:
    """The same weights at each call; running statistics as after some training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyCNN()
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(32, 1, 8, 8))
    return model.eval()


def quantize(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Quantized:
    """Export, calibrate on the example inputs and convert, with torchao's x86 defaults."""
    with warnings.catch_warnings():
        # torchao 0.18 uses deprecated parts of torch 2.13 while it is imported and run.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

        quantizer = X86InductorQuantizer()
        quantizer.set_global(get_default_x86_inductor_quantization_config())
        with torch.no_grad():
            exported = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)
            prepared = prepare_pt2e(exported.module(), quantizer)
            prepared(*args, **(kwargs or {}))
            return Quantized(prepared, convert_pt2e(copy.deepcopy(prepared)))


def reload(
    graph: GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> GraphModule:
    """What `torch.export.save` and `load` make of a graph."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch.export 2.13 reads its own deprecated tree specification while it copies one.
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(
            torch.export.export(graph, args, kwargs, dynamic_shapes=dynamic_shapes), buffer
        )
        buffer.seek(0)
        return torch.export.load(buffer).module()


@pytest.fixture(scope="session")
def quantize_pt2e() -> Callable[..., Quantized]:
    """The function `quantize`, for models of a test's own."""
    return quantize


@pytest.fixture(scope="session")
def copy_graph() -> Callable[[GraphModule], GraphModule]:
    """The function `copy_of`."""
    return copy_of


@pytest.fixture(scope="session")
def save_and_load() -> Callable[..., GraphModule]:
    """The function `reload`."""
    return reload


@pytest.fixture
def tiny_cnn() -> TinyCNN:
    """FP32, eval mode; a fresh one for each test."""
    return copy.deepcopy(_tiny_cnn())


@pytest.fixture(scope="session")
def tiny_int8() -> TinyInt8:
    """The INT8 graph of `tiny_cnn`: shared by all tests, so copy it before changing it."""
    example = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = torch.export.Dim("batch", min=2, max=1024)
    converted = quantize(
        copy.deepcopy(_tiny_cnn()), (example,), dynamic_shapes=({0: batch},)
    ).converted
    return TinyInt8(converted, example)

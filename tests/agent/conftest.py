"""Models that several test folders share: a tiny residual CNN, in FP32 and as a PT2E INT8 graph."""

import copy
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest
import torch
import torch.ao.quantization
from torch import nn
from torch.fx import GraphModule

# torchao's CUDA extensions cannot be loaded on a CPU build; without this it says so at import.
os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
torch.set_num_threads(1)
# Coverage runs Python of its own inside traced calls; Dynamo would count it as frames of the host.
torch._dynamo.trace_rules.add("coverage")


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing compiled, nothing counted: before and after."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


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


class StubNet(nn.Module):
    """A network with QuantStub: fused convolution, residual sum, linear layer; 10 x 10 images."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 1)
        self.plus = torch.ao.nn.quantized.FloatFunctional()
        self.fc = nn.Linear(512, 6)
        self.dequant = torch.ao.quantization.DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(self.quant(x)))
        x = self.plus.add(x, self.conv2(x))
        return self.dequant(self.fc(x.flatten(1)))


class PlainNet(nn.Module):
    """The same without stubs, for `prepare_fx`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(512, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        x = x + self.conv2(x)
        return self.fc(x.flatten(1))


class AoModel(NamedTuple):
    """An INT8 model of `torch.ao`, the FP32 model that it was made from, and its batches."""

    model: nn.Module
    float_model: nn.Module
    batches: list[torch.Tensor]


@contextmanager
def quiet_ao() -> Iterator[None]:
    """Without the warnings that `torch.ao` has for everybody who converts a model with it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch", UserWarning)
        warnings.filterwarnings("ignore", "Please use quant_min and quant_max", UserWarning)
        yield


def _min_max(*, scheme: torch.qscheme = torch.per_tensor_affine) -> torch.ao.quantization.QConfig:
    """All 256 codes for activations, exactly from the smallest to the largest value."""
    kinds = torch.ao.quantization
    return kinds.QConfig(
        kinds.MinMaxObserver.with_args(dtype=torch.quint8, qscheme=scheme),
        kinds.default_per_channel_weight_observer,
    )


def ao_batches(count: int = 4, *, seed: int = 0) -> list[torch.Tensor]:
    """Batches of 16 images of normal noise."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, 10, 10, generator=generator) for _ in range(count)]


def convert_stub(scheme: torch.qscheme = torch.per_tensor_affine) -> AoModel:
    """`prepare` and `convert` of a `StubNet`."""
    with torch.random.fork_rng(devices=[]), quiet_ao():
        torch.manual_seed(0)
        plain = StubNet().eval()
        fused = torch.ao.quantization.fuse_modules(copy.deepcopy(plain), [["conv1", "relu"]])
        fused.qconfig = _min_max(scheme=scheme)
        prepared = torch.ao.quantization.prepare(fused)
        for batch in ao_batches():
            prepared(batch)
        return AoModel(torch.ao.quantization.convert(prepared), plain, ao_batches())


def convert_graph(model: nn.Module | None = None) -> AoModel:
    """`prepare_fx` and `convert_fx` of a `PlainNet`, or of another model with its input."""
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with torch.random.fork_rng(devices=[]), quiet_ao():
        torch.manual_seed(0)
        plain = PlainNet().eval() if model is None else model
        mapping = torch.ao.quantization.QConfigMapping().set_global(_min_max())
        prepared = prepare_fx(copy.deepcopy(plain), mapping, (ao_batches()[0],))
        for batch in ao_batches():
            prepared(batch)
        return AoModel(convert_fx(prepared), plain, ao_batches())


@pytest.fixture
def ao_stub() -> AoModel:
    """Eager modules of `torch.ao`, calibrated from smallest to largest value."""
    return convert_stub()


@pytest.fixture
def ao_graph() -> AoModel:
    """The same as a graph of `convert_fx`."""
    return convert_graph()


@pytest.fixture(scope="session")
def make_stub() -> Callable[..., AoModel]:
    """The function `convert_stub`."""
    return convert_stub


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., AoModel]:
    """The function `convert_graph`."""
    return convert_graph


@pytest.fixture(scope="session")
def quiet_torch_ao() -> Callable[..., AbstractContextManager[None]]:
    """The function `quiet_ao`."""
    return quiet_ao


@pytest.fixture(scope="session")
def quantize_torchao() -> Callable[..., nn.Module]:
    """torchao's `quantize_` with a named configuration, on the model itself."""

    def quantize_linear(model: nn.Module, name: str, **settings: Any) -> nn.Module:
        with warnings.catch_warnings():
            # torchao 0.18 uses deprecated parts of torch 2.13 while it is imported and run.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            import torchao.quantization as ao

            if "granularity" in settings:
                settings["granularity"] = getattr(ao, settings["granularity"])()
            if "act_mapping_type" in settings:
                from torchao.quantization.quant_primitives import MappingType

                settings["act_mapping_type"] = MappingType[settings["act_mapping_type"]]
            if name.startswith("Int8Static"):
                settings["set_inductor_config"] = False  # it is one of the whole process
            ao.quantize_(model, getattr(ao, name)(**settings))
        return model

    return quantize_linear

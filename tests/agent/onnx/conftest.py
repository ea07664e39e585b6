"""A small CNN as an ONNX model, in FP32 and as a QDQ INT8 one, and sessions over such models."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import nn

from calidrift_agent import Watch, WatchOptions, watch

QUIET = WatchOptions(budget=None, drain_seconds=3600, window_seconds=86_400, seed=0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.skip = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.skip(x))


class Net(nn.Module):
    """Stem, one residual block, pooling and a head: 8 x 8 images of one channel, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block = Block()
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(torch.relu(self.stem(x))).mean((2, 3)))


class Feeds(CalibrationDataReader):
    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def model_of(
    nodes: list[Any],
    inputs: Mapping[str, list[Any]],
    outputs: list[str],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    types: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model of some nodes; inputs are float unless `types` says otherwise."""
    types = types or {}
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def cnn_model(net: nn.Module, batch: str | int = "batch") -> ModelProto:
    """What an exporter makes of the network."""
    node = helper.make_node
    weights = {name: value.numpy() for name, value in net.state_dict().items()}

    def conv(module: str, source: str, target: str) -> Any:
        names = [source, f"{module}.weight", f"{module}.bias"]
        pad = net.get_submodule(module).padding[0]
        return node("Conv", names, [target], f"node_{target}", pads=[pad] * 4)

    nodes = [
        conv("stem", "x", "c0"),
        node("Relu", ["c0"], ["r0"], "node_relu"),
        conv("block.conv1", "r0", "c1"),
        node("Relu", ["c1"], ["r1"], "node_relu_1"),
        conv("block.conv2", "r1", "c2"),
        conv("block.skip", "r0", "c3"),
        node("Add", ["c2", "c3"], ["sum"], "node_add"),
        node("Relu", ["sum"], ["r2"], "node_relu_2"),
        node("GlobalAveragePool", ["r2"], ["pooled"], "node_pool"),
        node("Flatten", ["pooled"], ["flat"], "node_flatten"),
        node("Gemm", ["flat", "head.weight", "head.bias"], ["y"], "node_linear", transB=1),
    ]
    return model_of(nodes, {"x": [batch, 1, 8, 8]}, ["y"], weights)


def quantized(
    model: ModelProto, feeds: list[dict[str, np.ndarray]], folder: Path, **options: Any
) -> ModelProto:
    """What ONNX Runtime's own static quantizer makes of a model."""
    copied = ModelProto()
    copied.CopyFrom(model)
    for output in copied.graph.output:
        if not output.HasField("type"):
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    path = folder / "quantized.onnx"
    logging.disable(logging.WARNING)  # it advises to run its own preprocessing first
    try:
        quantize_static(copied, path, Feeds(feeds), **{"per_channel": True, **options})
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(path)


def session_of(model: ModelProto | Path | str) -> onnxruntime.InferenceSession:
    """A session as a service makes it, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    given = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def values_of(model: ModelProto, tensors: list[str], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors inside a model, computed node by node as the file says: the oracle."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    names = {tensor: f"{tensor}/seen" for tensor in tensors}
    for tensor, seen in names.items():
        tapped.graph.node.append(helper.make_node("Identity", [tensor], [seen]))
        tapped.graph.output.append(onnx.ValueInfoProto(name=seen))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(tensors, session.run(list(names.values()), dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def eager_net() -> nn.Module:
    """The network in torch: the same weights in each run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().requires_grad_(False).eval()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """16 images of one channel, float32."""
    return np.random.default_rng(1).standard_normal((16, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def float_model(eager_net) -> ModelProto:
    """The network in FP32, with a free batch."""
    return cnn_model(eager_net)


@pytest.fixture(scope="session")
def int8_model(float_model, images, tmp_path_factory) -> ModelProto:
    """The network in the QDQ format, calibrated on the images."""
    return quantized(float_model, [{"x": images}], tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="session")
def integer_model(float_model, images, tmp_path_factory) -> ModelProto:
    """The network in the QOperator format: layers compute on integers."""
    folder = tmp_path_factory.mktemp("integers")
    return quantized(
        float_model, [{"x": images}], folder, quant_format=QuantFormat.QOperator, per_channel=False
    )


@pytest.fixture
def float_session(float_model) -> onnxruntime.InferenceSession:
    return session_of(float_model)


@pytest.fixture
def int8_session(int8_model) -> onnxruntime.InferenceSession:
    return session_of(int8_model)


@pytest.fixture
def watch_all() -> Any:
    """`watch` with every call observed; all watches are closed at the end of the test."""
    made: list[Watch] = []

    def make(model: Any, **options: Any) -> Watch:
        made.append(
            watch(model, **{"name": "net", "sample_rate": 1.0, "options": QUIET, **options})
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def eager_maxima(eager_net) -> Callable[[np.ndarray], dict[str, tuple[float, float]]]:
    """Least and greatest input of each layer in the eager network."""

    def look(images: np.ndarray, net: nn.Module = eager_net) -> dict[str, tuple[float, float]]:
        found = {}
        hooks = [
            module.register_forward_pre_hook(
                lambda _, args, name=name: found.update({name: args[0].aminmax()})
            )
            for name, module in net.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        ]
        with torch.no_grad():
            net(torch.from_numpy(images))
        for hook in hooks:
            hook.remove()
        return {f"{name}:input": (float(low), float(high)) for name, (low, high) in found.items()}

    return look


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions above, for models of a test's own."""
    return SimpleNamespace(
        cnn_model=cnn_model,
        model_of=model_of,
        quantized=quantized,
        session_of=session_of,
        values_of=values_of,
    )

"""The activation quantizers of a QDQ model: what they read, who reads them, and their ranges."""

from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_agent._onnx._network import Network
from calidrift_agent._profile import ClipBound
from calidrift_agent.errors import AttachError, ConfigurationError

QUANTIZE: Final = "QuantizeLinear"
DEQUANTIZE: Final = "DequantizeLinear"
_MOVES: Final = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that only move codes, so that they do the same to the values behind them."""
_RANGES: Final = {
    2: ("uint8", 0, 255),
    3: ("int8", -128, 127),
    4: ("uint16", 0, 65535),
    5: ("int16", -32768, 32767),
    21: ("uint4", 0, 15),
    22: ("int4", -8, 7),
}
"""TensorProto.DataType of a zero point to name, lowest and highest code."""
_DEFAULT: Final = 2
_SUMS: Final = frozenset(
    {
        "Add",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MatMul",
        "Sub",
        "Sum",
    }
)
"""Operators whose result is negative as often as not, unless an activation follows."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """A static, per-tensor activation quantizer.

    Attributes:
        index: Its node.
        tensor: What it reads.
        leaves: Dequantized tensors behind it, or its codes where an operator reads these.
        bound: Its range.
        folded: Whether it stands for a ReLU too: its lowest code is 0.0, and what it reads is a
            sum. ONNX Runtime's quantizer removes a ReLU (or Clip) whose work the rounding does.
    """

    index: int
    tensor: str
    leaves: tuple[str, ...]
    bound: ClipBound
    folded: bool


@final
@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """All activation quantizers of a graph.

    Attributes:
        quantizers: In the order of the graph.
        refused: Tensor to the reason why its quantizer cannot be used.
        bypasses: Tensor of codes, or dequantized tensor, to the tensor that stands there when
            nothing is quantized.
        integers: Tensor computed from codes by an operator of integers, to that operator.
    """

    quantizers: tuple[Quantizer, ...]
    refused: dict[str, str]
    bypasses: dict[str, str]
    integers: dict[str, str]


def quantization_of(network: Network) -> Quantization:
    """Find the activation quantizers of a graph.

    Raises:
        AttachError: The scale or zero point of one is no number that a quantizer can have.
    """
    refused: dict[str, str] = {}
    bypasses: dict[str, str] = {}
    integers: dict[str, str] = {}
    sources: dict[str, int] = {}
    leaves: dict[int, list[str]] = {}
    bounds: dict[int, ClipBound] = {}
    for index, node in enumerate(network.nodes):
        given = [name for name in node.input if name in sources]
        if _is_activation_quantizer(network, node):
            bound = _bound(network, node, refused)
            if bound is not None:
                bounds[index] = bound
                leaves[index] = []
                sources[node.output[0]] = index
                bypasses[node.output[0]] = node.input[0]
        elif given and node.op_type == DEQUANTIZE:
            source = sources[given[0]]
            leaves[source].append(node.output[0])
            bypasses[node.output[0]] = node.input[0]
        elif given and _moves(network, node, sources):
            sources.update(dict.fromkeys(node.output, sources[given[0]]))
        elif given:
            for name in given:
                leaves[sources[name]].append(name)
            integers.update({name: node.op_type for name in node.output if name})
        elif node.op_type != DEQUANTIZE and any(name in integers for name in node.input):
            integers.update({name: node.op_type for name in node.output if name})
    quantizers = tuple(
        Quantizer(index, tensor, tuple(dict.fromkeys(leaves[index])), bound, folded)
        for index, bound in bounds.items()
        for tensor in [network.nodes[index].input[0]]
        for folded in [bound.lo == 0.0 and _is_sum(network, tensor)]
    )
    return Quantization(quantizers, refused, bypasses, integers)


def _is_activation_quantizer(network: Network, node: Any) -> bool:
    """A quantizer of something that varies, with a scale that does not."""
    return (
        node.op_type == QUANTIZE
        and node.input[0] in network.varying
        and not any(name in network.varying for name in node.input[1:])
    )


def _moves(network: Network, node: Any, sources: dict[str, int]) -> bool:
    """Whether a node hands on codes unchanged, of one quantizer's range."""
    if node.op_type not in _MOVES:
        return False
    if node.op_type == "Concat":
        return all(name in sources for name in node.input)
    return node.input[0] in sources


def _is_sum(network: Network, tensor: str) -> bool:
    producer = network.producer(tensor)
    return producer is not None and producer.op_type in _SUMS


def _bound(network: Network, node: Any, refused: dict[str, str]) -> ClipBound | None:
    scale = network.constant(node.input[1])
    zero = network.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scale is None or scale.size != 1:
        refused[node.input[0]] = (
            "its quantizer has a scale per channel or block, where there is no one clip range; "
            "quantize activations per tensor"
        )
        return None
    kind = _kind(network, node)
    if kind not in _RANGES:
        refused[node.input[0]] = (
            f"its quantizer makes codes of ONNX type {kind}, which are no integers of 4, 8 or 16 "
            "bits"
        )
        return None
    dtype, qmin, qmax = _RANGES[kind]
    try:
        zero_point = 0 if zero is None else int(zero.reshape(-1)[0])
        return ClipBound.of_quantizer(float(scale.reshape(-1)[0]), zero_point, qmin, qmax, dtype)
    except ConfigurationError as error:
        raise AttachError(
            f"the quantizer {node.name or node.output[0]} has unusable numbers ({error}); quantize "
            "the model again from calibrated ranges"
        ) from error


def _kind(network: Network, node: Any) -> int:
    """Type of the codes: that of the zero point, else what the node says, else uint8."""
    if len(node.input) > 2 and node.input[2]:
        proto = network.initializers.get(node.input[2])
        if proto is None:
            constant = network.producer(node.input[2])
            proto = next(one.t for one in constant.attribute if one.name == "value")
        return int(proto.data_type)
    said = next((one.i for one in node.attribute if one.name == "output_dtype"), 0)
    return int(said) or _DEFAULT

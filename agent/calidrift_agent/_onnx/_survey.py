"""What can be observed in an ONNX model, by what name, and what was left out and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

from calidrift_agent._onnx._naming import WEIGHTED, Label, label_of
from calidrift_agent._onnx._network import RANDOM, Network, nested, reads
from calidrift_agent._onnx._quantizers import DEQUANTIZE, QUANTIZE, Quantization, quantization_of
from calidrift_agent._points import Discovery, Point
from calidrift_agent._profile import ClipBound
from calidrift_agent._vocabulary import Role

_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that every ONNX Runtime has."""
_FLOATS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_DYNAMIC: Final = "DynamicQuantizeLinear"
_EMBEDDING: Final = "Gather"
_TRAINING: Final = ("Dropout", 2)
"""The operator that draws random numbers when its input in this slot is true."""
_COPIED: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13})
"""TensorProto.DataType of inputs that can be copied: real numbers and booleans of 8 to 64 bits."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class TensorPoint:
    """One observed tensor.

    Attributes:
        point: Its name.
        tensor: Its name in the graph.
        bound: Its quantizer's range; None where nothing quantizes it statically.
        folded: Whether the quantizer stands for a ReLU too, so that the tensor is observed behind
            one.
    """

    point: Point
    tensor: str
    bound: ClipBound | None = None
    folded: bool = False


@final
@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """All points of a model.

    Attributes:
        network: The graph.
        quantization: Its quantizers.
        points: In the order of the graph.
        skipped: Point or node to the reason why it is not observed.
    """

    network: Network
    quantization: Quantization
    points: tuple[TensorPoint, ...]
    skipped: Mapping[str, str]

    @property
    def quantized(self) -> bool:
        """Whether it has activation quantizers, and with them clip ranges."""
        return bool(self.quantization.quantizers)

    @property
    def discovery(self) -> Discovery:
        """The same, as every kind of model reports it."""
        return Discovery(tuple(one.point for one in self.points), self.skipped)


@final
@dataclass(frozen=True, slots=True)
class _Use:
    """One reader of a tensor: its place in the graph, and what it calls the tensor."""

    place: tuple[int, int]
    key: int | str
    label: Label


def survey(network: Network) -> Survey:
    """Find the points of a model.

    Of a model with static activation quantizers (QDQ): what these read. Of any other: the inputs
    of convolutions, matrix products and dynamic quantizers, and the outputs of embeddings.

    Raises:
        AttachError: A quantizer has unusable numbers.
    """
    quantization = quantization_of(network)
    if quantization.quantizers:
        candidates = _quantized(network, quantization)
    else:
        candidates = [
            TensorPoint(point, str(key)) for key, point in _named(_in_order(_float_uses(network)))
        ]
    reasons = _reasons(network, quantization)
    skipped = dict(quantization.refused)
    skipped.update(
        {one.point.name: reasons[one.tensor] for one in candidates if one.tensor in reasons}
    )
    skipped.update(_inside(network))
    points = tuple(one for one in candidates if one.tensor not in reasons)
    return Survey(network, quantization, points, MappingProxyType(skipped))


def _in_order(uses: Iterator[_Use]) -> list[_Use]:
    return sorted(uses, key=lambda use: (use.place, str(use.key)))


def _quantized(network: Network, quantization: Quantization) -> list[TensorPoint]:
    quantizers = quantization.quantizers
    return [
        TensorPoint(point, quantizer.tensor, quantizer.bound, quantizer.folded)
        for key, point in _named(_in_order(_quantizer_uses(network, quantization)))
        for quantizer in [quantizers[int(key)]]
    ]


def _quantizer_uses(network: Network, quantization: Quantization) -> Iterator[_Use]:
    for number, quantizer in enumerate(quantization.quantizers):
        used = False
        for leaf in quantizer.leaves:
            for index, slot in network.readers.get(leaf, ()):
                used = True
                if network.nodes[index].op_type != DEQUANTIZE:
                    yield _Use((index, slot), number, label_of(network, index, slot, Role.INPUT))
        if not used or any(leaf in network.outputs for leaf in quantizer.leaves):
            producer = network.producers.get(quantizer.tensor)
            label = (
                Label(quantizer.tensor, "", Role.OUTPUT, is_module=False)
                if producer is None
                else label_of(network, producer, -1, Role.OUTPUT)
            )
            yield _Use((len(network.nodes), quantizer.index), number, label)


def _float_uses(network: Network) -> Iterator[_Use]:
    for index, node in enumerate(network.nodes):
        if node.op_type in _FLOATS:
            for slot in (0, 1):
                if node.input[slot] in network.varying:
                    label = label_of(network, index, slot, Role.INPUT)
                    yield _Use((index, slot), node.input[slot], label)
        elif node.op_type == _DYNAMIC:
            for reader, slot in network.readers.get(node.output[0], ()):
                label = label_of(network, reader, slot, Role.INPUT)
                yield _Use((reader, slot), node.input[0], label)
        elif node.op_type == _EMBEDDING and _looks_up(network, node):
            yield _Use((index, 0), node.output[0], label_of(network, index, 0, Role.OUTPUT))


def _looks_up(network: Network, node: Any) -> bool:
    """Whether a Gather reads rows of a table of weights."""
    root = network.root(node.input[0])
    return root is not None and len(network.initializers[root].dims) == 2


def _named(uses: list[_Use]) -> list[tuple[int | str, Point]]:
    """Return one point for each tensor, in the order of the readers that name them.

    A layer names it before any other operation does; the rest become aliases. The second tensor
    that would have a name gets ``#2``.
    """
    taken: dict[tuple[str, Role], int] = {}
    claims: dict[int | str, list[tuple[_Use, str]]] = {}
    for use in uses:
        label = use.label
        number = taken[label.base, label.role] = taken.get((label.base, label.role), 0) + 1
        suffix = "" if number == 1 else f"#{number}"
        claims.setdefault(use.key, []).append((use, f"{label.base}{suffix}:{label.role}"))
    chosen = []
    for key, claimed in claims.items():
        use, name = next((one for one in claimed if one[0].label.is_module), claimed[0])
        aliases = tuple(other for _, other in claimed if other != name)
        point = Point(name=name, role=use.label.role, module=use.label.module, aliases=aliases)
        chosen.append((use.place, key, point))
    return [(key, point) for _, key, point in sorted(chosen, key=lambda one: one[0])]


def _reasons(network: Network, quantization: Quantization) -> dict[str, str]:
    """Return, for each tensor that cannot be computed a second time, why not."""
    reasons = {
        name: f"it depends on the input {name}, whose type cannot be copied"
        for name, info in network.inputs.items()
        if not info.type.HasField("tensor_type") or info.type.tensor_type.elem_type not in _COPIED
    }
    for node in network.nodes:
        why = next((reasons[name] for name in reads(node) if name in reasons), None)
        why = why or _own_reason(network, quantization, node)
        if why is not None:
            reasons.update({name: why for name in node.output if name})
    return reasons


def _own_reason(network: Network, quantization: Quantization, node: Any) -> str | None:
    inner = list(nested(node))
    for one in (node, *inner):
        if one.domain not in _DOMAINS:
            return f"it needs {one.domain}.{one.op_type}, an operator of the host's own"
        if one.op_type in RANDOM or _trains(network, one):
            return f"it depends on random numbers ({one.op_type})"
    integers = quantization.integers.get(node.output[0])
    if integers is not None:
        return (
            f"it is computed from integers by {integers}, so that its values without quantization "
            "are not known; quantize in the QDQ format"
        )
    if quantization.quantizers and any(one.op_type == QUANTIZE for one in inner):
        return f"it comes out of a nested graph with quantizers of its own ({node.op_type})"
    return None


def _trains(network: Network, node: Any) -> bool:
    kind, slot = _TRAINING
    if node.op_type != kind or len(node.input) <= slot or not node.input[slot]:
        return False
    value = network.constant(node.input[slot])
    return value is None or bool(value.reshape(-1)[0])


def _inside(network: Network) -> dict[str, str]:
    """Return the nodes with layers in nested graphs, where nothing is observed."""
    return {
        node.name or node.output[0]: (
            f"{count} of its layers run inside a nested graph ({node.op_type}), where nothing is "
            "observed"
        )
        for node in network.nodes
        for count in [sum(one.op_type in WEIGHTED for one in nested(node))]
        if count
    }

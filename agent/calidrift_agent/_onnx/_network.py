"""The graph of an ONNX model, with who makes and who reads each tensor."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, final

from calidrift_agent._onnx._extra import onnx_package
from calidrift_agent._onnx._source import Source

_GRAPH: Final = 5  # AttributeProto.GRAPH and GRAPHS
_GRAPHS: Final = 10
_EXTERNAL: Final = 1  # TensorProto.EXTERNAL
_BYTES_INLINE: Final = 1024
"""Constants up to this size are looked at as values; larger ones are weights."""
_CORE: Final = ("", "ai.onnx")


@final
class Network:
    """Structure of a graph; nothing in it is changed.

    Args:
        source: The model.

    Attributes:
        source: The model.
        nodes: Nodes in the order of the file, which ONNX defines to be an order of execution.
        initializers: Weights and constants by name.
        inputs: Inputs that a request feeds, by name, in the order of the model.
        outputs: Names of the outputs.
        producers: Tensor to the index of the node that makes it.
        readers: Tensor to the nodes that read it: index and input slot (-1 where a nested graph
            reads it), in the order of the file.
        varying: Tensors that depend on an input.
        opset: Version of the core operators.
    """

    __slots__ = (
        "initializers",
        "inputs",
        "nodes",
        "opset",
        "outputs",
        "producers",
        "readers",
        "source",
        "varying",
    )

    def __init__(self, source: Source) -> None:
        graph = source.model.graph
        self.source = source
        self.nodes: list[Any] = list(graph.node)
        self.initializers: dict[str, Any] = {one.name: one for one in graph.initializer}
        self.inputs: dict[str, Any] = {
            one.name: one for one in graph.input if one.name not in self.initializers
        }
        self.outputs = [one.name for one in graph.output]
        self.opset = next(
            (int(one.version) for one in source.model.opset_import if one.domain in _CORE), 1
        )
        self.producers: dict[str, int] = {}
        self.readers: dict[str, list[tuple[int, int]]] = {}
        self.varying = set(self.inputs)
        for index, node in enumerate(self.nodes):
            slots = [*enumerate(node.input), *((-1, name) for name in captured(node))]
            for slot, name in slots:
                if name:
                    self.readers.setdefault(name, []).append((index, slot))
            if any(name in self.varying for _, name in slots) or is_random(node):
                self.varying.update(node.output)
            self.producers.update({name: index for name in node.output if name})

    def producer(self, tensor: str) -> Any:
        """Return the node that makes a tensor, or None for an input or a constant."""
        index = self.producers.get(tensor)
        return None if index is None else self.nodes[index]

    def constant(self, tensor: str) -> Any:
        """Return the value of a small constant as an array, or None."""
        proto = self.initializers.get(tensor)
        if proto is None:
            node = self.producer(tensor)
            if node is None or node.op_type != "Constant":
                return None
            proto = next((one.t for one in node.attribute if one.name == "value"), None)
            if proto is None:
                return None
        if proto.data_location == _EXTERNAL or proto.ByteSize() > _BYTES_INLINE:
            return None
        return onnx_package().numpy_helper.to_array(proto)

    def root(self, tensor: str) -> str | None:
        """Return the initializer that a tensor is computed from by ops that keep its values."""
        while tensor not in self.initializers:
            node = self.producer(tensor)
            if node is None or node.op_type not in _KEEPING or tensor in self.varying:
                return None
            tensor = node.input[0]
        return tensor


_KEEPING: Final = frozenset(
    {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose"}
)
RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators that draw random numbers."""


def captured(node: Any) -> list[str]:
    """Return the tensors that the nested graphs of a node read from the graph around them."""
    return [name for body in bodies(node) for name in _free(body)]


def reads(node: Any) -> list[str]:
    """Return all tensors that a node reads, those of its nested graphs included."""
    return [name for name in (*node.input, *captured(node)) if name]


def bodies(node: Any) -> Iterator[Any]:
    """Yield the nested graphs of a node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == _GRAPH:
            yield attribute.g
        elif attribute.type == _GRAPHS:
            yield from attribute.graphs


def nested(node: Any) -> Iterator[Any]:
    """Yield all nodes inside the nested graphs of a node, at any depth."""
    for body in bodies(node):
        for one in body.node:
            yield one
            yield from nested(one)


def renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Return a copy of a node that reads other tensors, also in its nested graphs."""
    copy = type(node)()
    copy.CopyFrom(node)
    _rename(copy, names)
    return copy


def _rename(node: Any, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in bodies(node):
        for one in body.node:
            _rename(one, names)  # no inner tensor may have the name of an outer one


def _free(body: Any) -> list[str]:
    own = {one.name for one in (*body.input, *body.initializer)}
    own.update(name for node in body.node for name in node.output)
    return [name for node in body.node for name in reads(node) if name not in own]


def is_random(node: Any) -> bool:
    """Whether a node draws random numbers, itself or in its nested graphs."""
    return node.op_type in RANDOM or any(one.op_type in RANDOM for one in nested(node))

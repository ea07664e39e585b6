"""What a q/dq graph plans to run in INT8, and how many bytes that takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from calidrift_agent._points import is_quantized
from calidrift_analyzer.errors import ContractError
from calidrift_analyzer.records import LayerKind

__all__ = ["PlannedLayer", "drop_dead_weights", "planned_layers", "tensor_bytes"]

_DEQUANTIZE_WEIGHT: Final = "quantized_decomposed::dequantize_per_channel"
_DEQUANTIZE_INPUT: Final = "quantized_decomposed::dequantize_per_tensor"
_FP32_BYTES: Final = 4


_KINDS: Final = {
    "aten::conv1d": LayerKind.CONVOLUTION,
    "aten::conv2d": LayerKind.CONVOLUTION,
    "aten::linear": LayerKind.LINEAR,
}


@final
@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """One call of a convolution or linear layer whose weight and input are both INT8.

    Attributes:
        name: Module name; a layer that is called twice is listed twice.
        kind: The kernel that it needs.
        weight: Name of the INT8 tensor in the graph.
        scales: Bytes of its per-channel scales: they identify the layer in generated code.
        int8_bytes: INT8 weight and everything its dequantization needs.
        fp32_bytes: The same weight in FP32.
    """

    name: str
    kind: LayerKind
    weight: str
    scales: bytes
    int8_bytes: int
    fp32_bytes: int


def planned_layers(graph: GraphModule) -> tuple[PlannedLayer, ...]:
    """List the layers that a q/dq graph plans to run in INT8, in the order of the graph.

    Raises:
        ContractError: The graph is not quantized.
    """
    if not is_quantized(graph):
        raise ContractError(
            "the graph has no activation quantizer, so nothing is planned in INT8; "
            "give the q/dq graph that recalibration wrote"
        )
    return tuple(_layers(graph))


def _layers(graph: GraphModule) -> Iterator[PlannedLayer]:
    for node in graph.graph.nodes:
        kind = _KINDS.get(_operation(node))
        if kind is None:
            continue
        source, weight = node.args[0], node.args[1]
        if _operation(source) != _DEQUANTIZE_INPUT or _operation(weight) != _DEQUANTIZE_WEIGHT:
            continue
        parts = [one for one in weight.args[:3] if isinstance(one, Node)]
        tensors = [_attribute(graph, str(one.target)) for one in parts]
        yield PlannedLayer(
            name=_module_name(node),
            kind=kind,
            weight=str(parts[0].target),
            scales=scale_bytes(tensors[1]),
            int8_bytes=sum(tensor_bytes(one) for one in tensors),
            fp32_bytes=tensors[0].numel() * _FP32_BYTES,
        )


def scale_bytes(scales: Tensor) -> bytes:
    """Bytes of a tensor of scales, whatever its type and shape."""
    return scales.detach().to(torch.float32).contiguous().numpy().tobytes()


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of the elements of a tensor."""
    return tensor.numel() * tensor.element_size()


def drop_dead_weights(graph: GraphModule) -> GraphModule:
    """Remove, in place, what the graph no longer reads.

    `convert_pt2e` keeps every float weight beside its INT8 copy (the file would be larger than
    FP32), and zero points of symmetric weights, all 0, as int64: int8 holds them as well. (Leaving
    them out is allowed by the operation, but Inductor cannot lower that without freezing.)

    Returns:
        The same graph.
    """
    for node in graph.graph.nodes:
        if _operation(node) == _DEQUANTIZE_WEIGHT and isinstance(node.args[2], Node):
            owner, _, leaf = str(node.args[2].target).rpartition(".")
            zeros = _attribute(graph, str(node.args[2].target))
            if not bool(zeros.any()):
                setattr(graph.get_submodule(owner), leaf, zeros.to(torch.int8))
    graph.graph.eliminate_dead_code()
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    held = [name for name, _ in graph.named_parameters(remove_duplicate=False)]
    held += [name for name, _ in graph.named_buffers(remove_duplicate=False)]
    for name in held:
        if name not in read:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)
    graph.recompile()
    return graph


def _operation(node: Any) -> str:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return "" if schema is None else str(schema.name)


def _module_name(node: Node) -> str:
    stack = node.meta.get("nn_module_stack")
    name = str(list(stack.values())[-1][0]) if stack else ""
    return name.partition("@")[0] or node.name


def _attribute(graph: GraphModule, name: str) -> Tensor:
    found: Any = graph
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]

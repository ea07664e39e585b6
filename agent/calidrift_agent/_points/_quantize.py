"""Quantize nodes of a PT2E graph: which tensors are quantized, with which ranges, by what name.

Operations are recognised by name, so that torchao is never imported: importing its x86 quantizer
changes Inductor for the whole process.
"""

from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch.fx import GraphModule, Node

from calidrift_agent._points._modules import Point
from calidrift_agent._points._naming import TensorName, name_tensors
from calidrift_agent._profile import ClipBound
from calidrift_agent.errors import AttachError, ConfigurationError

_QUANTIZE: Final = "quantized_decomposed::quantize_per_tensor"
_DEQUANTIZE: Final = "quantized_decomposed::dequantize_per_tensor"
_OBSERVER_PREFIX: Final = "activation_post_process_"


@final
@dataclass(frozen=True, slots=True)
class QuantizePoint:
    """A static activation quantizer of a graph.

    Attributes:
        node: The quantize node; `node.args[0]` is the tensor before quantization.
        point: Name, role, module and aliases of that tensor.
        bound: The quantizer's range.
    """

    node: Node
    point: Point
    bound: ClipBound

    @property
    def name(self) -> str:
        """Name of the point."""
        return self.point.name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same tensor."""
        return self.point.aliases


@final
@dataclass(frozen=True, slots=True)
class ObserverPoint:
    """An activation observer of a prepared (not yet converted) graph.

    Attributes:
        node: The observer's `call_module` node.
        target: Name of the observer module, for `get_submodule`; several points may share one.
        point: The name that the quantizer has after conversion.
    """

    node: Node
    target: str
    point: Point


def is_quantized(model: object) -> bool:
    """Whether `model` is a graph with static activation quantizers."""
    return isinstance(model, GraphModule) and any(
        _is_activation_quantizer(node) for node in model.graph.nodes
    )


def quantize_nodes(graph_module: GraphModule) -> tuple[QuantizePoint, ...]:
    """Return the static activation quantizers of a converted PT2E graph.

    Quantizers of weights and dynamic quantizers (whose scale is computed in the graph) have no
    clip range and are left out. Names equal those of the eager module's points for convolution
    and linear layers, and are the same before and after `torch.export.save` and `load`.

    Args:
        graph_module: What `convert_pt2e` returned, or ``torch.export.load(path).module()``.

    Returns:
        One entry per quantizer, in the order in which the graph reads them.

    Raises:
        AttachError: A quantizer's scale or range cannot be read.

    Cost: one walk over the graph, measured 0.3 ms for 60 nodes.
    """
    exits: dict[Node, list[Node]] = {
        node: _readers(node) for node in graph_module.graph.nodes if _is_activation_quantizer(node)
    }
    names = name_tensors(graph_module, exits)
    found = [
        (names[node].order, QuantizePoint(node, _point(names[node]), _bound(graph_module, node)))
        for node in exits
        if node in names
    ]
    return tuple(point for _, point in sorted(found, key=lambda item: item[0]))


def observer_nodes(prepared: GraphModule) -> tuple[ObserverPoint, ...]:
    """Return the activation observers of a graph that `prepare_pt2e` returned.

    Observer numbers are not stable; the names given here are those that `quantize_nodes` gives
    after `convert_pt2e`.

    Args:
        prepared: The graph with its observers. Observers of weights are left out.
    """
    exits: dict[Node, list[Node]] = {
        node: [node]
        for node in prepared.graph.nodes
        if node.op == "call_module"
        and str(node.target).startswith(_OBSERVER_PREFIX)
        and _reads_input(node)
    }
    names = name_tensors(prepared, exits)
    found = [
        (names[node].order, ObserverPoint(node, str(node.target), _point(names[node])))
        for node in exits
        if node in names
    ]
    return tuple(point for _, point in sorted(found, key=lambda item: item[0]))


def training_operation(graph_module: GraphModule) -> str | None:
    """Return an operation that makes a graph behave as in training, None for an eval graph.

    The `training` flag of an exported graph says nothing: it is True for eval graphs too.
    """
    for node in graph_module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not node.users:
            continue
        for position, argument in enumerate(schema.arguments):
            flag = _argument(node, argument.name, position)
            if argument.name in ("train", "training") and flag is True:
                return str(schema.name).rpartition("::")[2]
    return None


def activation_dequantizers(graph_module: GraphModule) -> frozenset[Node]:
    """Return the dequantize nodes that undo an activation quantizer of `quantize_nodes`."""
    integer: set[Node] = set()
    found: set[Node] = set()
    for node in graph_module.graph.nodes:
        if _is_activation_quantizer(node):
            integer.add(node)
        elif any(source in integer for source in node.all_input_nodes):
            if _is_operation(node, _DEQUANTIZE):
                found.add(node)
            elif node.op != "output":
                integer.add(node)
    return frozenset(found)


def _readers(quantizer: Node) -> list[Node]:
    """The dequantize nodes behind a quantizer, or the quantizer itself where one reads codes."""
    dequantizers = [user for user in quantizer.users if _is_operation(user, _DEQUANTIZE)]
    return dequantizers if len(dequantizers) == len(quantizer.users) else [quantizer, *dequantizers]


def _is_operation(node: Node, name: str) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.name == name


def _is_activation_quantizer(node: Node) -> bool:
    if not _is_operation(node, _QUANTIZE):
        return False
    scale, zero_point = _argument(node, "scale", 1), _argument(node, "zero_point", 2)
    static = all(not isinstance(one, Node) or one.op == "get_attr" for one in (scale, zero_point))
    return static and _reads_input(node)


def _reads_input(node: Node) -> bool:
    """Whether the node depends on an input of the graph, i.e. is not folded from weights."""
    seen: set[Node] = set()
    waiting = list(node.all_input_nodes[:1])
    while waiting:
        one = waiting.pop()
        if one.op == "placeholder":
            return True
        if one not in seen:
            seen.add(one)
            waiting.extend(one.all_input_nodes)
    return False


def _point(name: TensorName) -> Point:
    return Point(name=name.name, role=name.role, module=name.module, aliases=name.aliases)


def _argument(node: Node, name: str, position: int) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _bound(graph_module: GraphModule, node: Node) -> ClipBound:
    fields = ("scale", "zero_point", "quant_min", "quant_max", "dtype")
    try:
        scale, zero_point, qmin, qmax, dtype = (
            _resolve(graph_module, _argument(node, name, position))
            for position, name in enumerate(fields, start=1)
        )
        return ClipBound.of_quantizer(
            float(scale), int(zero_point), int(qmin), int(qmax), str(dtype).removeprefix("torch.")
        )
    except (TypeError, ValueError) as error:
        reason = error if isinstance(error, ConfigurationError) else "they are not single numbers"
        raise AttachError(
            f"the quantizer {node.name} has unusable numbers ({reason}); "
            "convert the model again from calibrated observers"
        ) from error


def _resolve(graph_module: GraphModule, value: Any) -> Any:
    if not isinstance(value, Node):
        return value
    found: Any = graph_module
    for part in str(value.target).split("."):
        found = getattr(found, part)
    if isinstance(found, torch.Tensor):
        if found.numel() != 1:
            raise TypeError
        return found.detach().item()
    return found

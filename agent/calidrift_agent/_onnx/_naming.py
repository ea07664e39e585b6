"""Stable names for the tensors of an ONNX graph, where tensor and node names may be numbers.

A tensor is named after who reads it. A layer with weights is named after them: exporters keep
``block.conv1.weight``, and quantizers write ``block.conv1.weight_quantized``, so that the name is
that of the eager module. Where a weight has lost its name (``onnx::Conv_42``, because a batch
normalization was folded into it), the node's own name or the exporter's notes tell the module.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any, Final, final

from calidrift_agent._onnx._network import Network
from calidrift_agent._vocabulary import Role

WEIGHTED: Final = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
    "QGemm": 3,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
"""Operators of layers to the input slot of their weights."""
_MODULES: Final = re.compile(r"\.(Linear|Conv\w+|Embedding)$")
_SUFFIXES: Final = ("_quantized", ".weight")
_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_CLASSES: Final = "pkg.torch.onnx.class_hierarchy"


@final
@dataclass(frozen=True, slots=True)
class Label:
    """What a reader calls a tensor; `is_module` where the name is that of a module."""

    base: str
    module: str
    role: Role
    is_module: bool


def label_of(network: Network, index: int, slot: int, role: Role) -> Label:
    """Return what the node `index` calls the tensor in its input `slot`, or its output.

    Args:
        network: The graph.
        index: The node.
        slot: The input; any for role *output*.
        role: Input or output.
    """
    node = network.nodes[index]
    weight = _weight_slot(network, node)
    scope = _scope(node)
    if weight is not None and (role is Role.OUTPUT or slot != weight):
        module = _module_of_weight(network, node.input[weight]) or _module_of_notes(node)
        if module is None and scope:
            module = scope
        if module is not None:
            return Label(module, module, role, is_module=True)
    operation = node.op_type.lower()
    if scope is not None:
        return Label(f"{scope}.{operation}" if scope else operation, scope, role, is_module=False)
    return Label(node.name or f"{operation}_{node.output[0]}", "", role, is_module=False)


def _weight_slot(network: Network, node: Any) -> int | None:
    """The input that holds weights: a constant, the other operand being an activation."""
    if node.op_type == "Gather":
        return 0 if _is_constant(network, node, 0) else None
    slot = WEIGHTED.get(node.op_type)
    if slot is None or _is_constant(network, node, slot):
        return slot
    return 0 if slot == 1 and _is_constant(network, node, 0) else None


def _is_constant(network: Network, node: Any, slot: int) -> bool:
    return len(node.input) > slot and node.input[slot] not in network.varying


def _module_of_weight(network: Network, tensor: str) -> str | None:
    name = network.root(tensor)
    if name is None:
        return None
    plain = name.removesuffix(_SUFFIXES[0])
    module = plain.removesuffix(_SUFFIXES[1])
    return module if module and module != plain else None


def _module_of_notes(node: Any) -> str | None:
    """The innermost module in the notes of torch's exporter, if that is a layer with weights."""
    scopes, classes = _note(node, _SCOPES), _note(node, _CLASSES)
    if len(scopes) < 2 or len(classes) != len(scopes) or not _MODULES.search(classes[-2]):
        return None
    return scopes[-2] or None


def _scope(node: Any) -> str | None:
    """The module in whose forward an operation stands; None where nothing says so."""
    scopes = _note(node, _SCOPES)
    if len(scopes) > 1:
        return scopes[-2]
    first, *parts = node.name.split("/")
    if first or not parts or parts[-1].partition("_")[0] != node.op_type:
        return None
    return ".".join(parts[:-1])


def _note(node: Any, key: str) -> list[str]:
    text = next((one.value for one in getattr(node, "metadata_props", ()) if one.key == key), None)
    try:
        value = ast.literal_eval(text) if text else []
    except (SyntaxError, ValueError):
        return []
    return [str(one) for one in value] if isinstance(value, list) else []

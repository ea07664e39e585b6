"""Stable names for tensors of an exported graph, where node names are not stable.

A tensor is named after who reads it: module name and role for a convolution or linear layer (the
same name that the eager module has), module name and operation for anything else. Names depend
only on the order of operations and on `nn_module_stack`, both of which survive
`torch.export.save` and `load`; node names and the order of `get_attr` nodes do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from torch.fx import GraphModule, Node

from calidrift_agent._vocabulary import Role

_WEIGHTED: Final = frozenset(
    {
        "conv1d",
        "conv2d",
        "conv3d",
        "convolution",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
    }
)
_OBSERVER: Final = "activation_post_process"
_NO_SCOPE: Final = "_empty_nn_module_stack_from_metadata_hook"


@final
@dataclass(frozen=True, slots=True)
class TensorName:
    """Name of a tensor in a graph; the fields are those of `Point`."""

    name: str
    role: Role
    module: str
    aliases: tuple[str, ...]
    order: tuple[int, int]
    """Rank of the reader that gave the name, in the order of the graph, and its operand."""


@final
@dataclass(frozen=True, slots=True)
class _Use:
    place: tuple[int, int]
    """Rank of the reader in the graph, and which of its operands this is."""
    source: Node
    reader: Node


@final
@dataclass(frozen=True, slots=True)
class _Label:
    base: str
    module: str
    role: Role
    is_module: bool


_Claim = tuple[_Label, str, tuple[int, int]]


def name_tensors(
    graph_module: GraphModule, exits: Mapping[Node, Sequence[Node]]
) -> dict[Node, TensorName]:
    """Return a name for each source node.

    Args:
        graph_module: The graph.
        exits: Source node to the nodes whose users are its readers: a quantize node to its
            dequantize nodes, an observer node to itself.

    Returns:
        Names, unique over the graph. A source without a reader is left out. Where several
        operations read one tensor, a module gives the name and the others become aliases; a
        second tensor with the same name gets ``#2``.
    """
    order = {node: rank for rank, node in enumerate(graph_module.graph.nodes)}
    single = _scopes_with_one_weight(graph_module)
    uses = {
        (order[reader], reader.all_input_nodes.index(leave), order[source]): _Use(
            (order[reader], reader.all_input_nodes.index(leave)), source, reader
        )
        for source, leaves in exits.items()
        for leave in leaves
        for reader in leave.users
    }
    taken: dict[str, int] = {}
    claims: dict[Node, list[_Claim]] = {}
    for _, use in sorted(uses.items(), key=lambda item: item[0]):
        claimed = claims.setdefault(use.source, [])
        label = _label(use, single)
        taken[label.base + label.role] = number = taken.get(label.base + label.role, 0) + 1
        suffix = "" if number == 1 else f"#{number}"
        claimed.append((label, f"{label.base}{suffix}:{label.role}", use.place))
    return {source: _choose(claimed) for source, claimed in claims.items()}


def scope_of(node: Node) -> str:
    """Return the name of the module in whose forward `node` stands; `""` for the root."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    name = str(list(stack.values())[-1][0])
    return "" if name == _NO_SCOPE else name.partition("@")[0]


def operation_of(node: Node) -> str:
    """Return the bare name of the operation of a node: ``add`` for ``aten.add_.Tensor``."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        name = str(schema.name).rpartition("::")[2]
    elif isinstance(node.target, str):
        name = node.target
    else:
        name = getattr(node.target, "__name__", type(node.target).__name__)
    return name.rstrip("_") or name


def _choose(claimed: Sequence[_Claim]) -> TensorName:
    chosen = next((claim for claim in claimed if claim[0].is_module), claimed[0])
    label, name, order = chosen
    aliases = tuple(other for _, other, _ in claimed if other != name)
    return TensorName(name, label.role, label.module, aliases, order)


def _label(use: _Use, single: frozenset[str]) -> _Label:
    if use.reader.op != "output":
        return _describe(use.reader, Role.INPUT, single, weighted=use.place[1] == 0)
    producer = use.source.all_input_nodes[0]
    return _describe(producer, Role.OUTPUT, single, weighted=True)


def _describe(node: Node, role: Role, single: frozenset[str], *, weighted: bool) -> _Label:
    if node.op == "call_module" and _OBSERVER not in str(node.target):
        # A reference graph of `torch.ao`: its layers are modules, and named as in the eager model.
        return _Label(str(node.target), str(node.target), role, is_module=True)
    scope = scope_of(node)
    if weighted and scope in single and operation_of(node) in _WEIGHTED:
        return _Label(scope, scope, role, is_module=True)
    operation = node.name if node.op == "placeholder" else operation_of(node)
    return _Label(f"{scope}.{operation}" if scope else operation, scope, role, is_module=False)


def _scopes_with_one_weight(graph_module: GraphModule) -> frozenset[str]:
    """Modules in which every convolution or linear operation reads one and the same weight.

    Such a scope is a layer (possibly called several times); a scope with two weights is a block
    that calls `F.linear` itself, e.g. `nn.MultiheadAttention`.
    """
    weights: dict[str, set[str]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and operation_of(node) in _WEIGHTED and scope_of(node):
            weights.setdefault(scope_of(node), set()).add(_weight_of(node))
    return frozenset(scope for scope, found in weights.items() if len(found) == 1)


def _weight_of(node: Node) -> str:
    """Return the attribute behind the weight operand, or the node's own name without one."""
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    while isinstance(weight, Node):
        if weight.op == "get_attr":
            return str(weight.target)
        inputs = weight.all_input_nodes
        weight = inputs[0] if inputs else None
    return node.name

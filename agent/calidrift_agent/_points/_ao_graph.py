"""Graphs of `convert_fx`: which nodes quantize, who reads them, and running one node by node."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import nn
from torch.fx import GraphModule, Interpreter, Node

from calidrift_agent._points._modules import Point
from calidrift_agent._points._naming import operation_of, scope_of
from calidrift_agent._vocabulary import Role

_NAMESPACE: Final = "quantized::"
_SCALES: Final = ("output_scale", "Y_scale_i", "scale")
_ZERO_POINTS: Final = ("output_zero_point", "Y_zero_point_i", "zero_point")
_PASSED_ON: Final = frozenset(
    {
        "contiguous",
        "dequantize",
        "detach",
        "flatten",
        "permute",
        "reshape",
        "squeeze",
        "transpose",
        "unsqueeze",
        "view",
    }
)
"""Operations that hand on the very same values, in another shape or place."""
_PASSED_ON_BY: Final = frozenset({"Dropout", "Identity", "Flatten", "Unflatten", "DeQuantize"})


@final
@dataclass(frozen=True, slots=True)
class FunctionQuantizer:
    """A function of a graph that quantizes.

    Attributes:
        operation: Its name.
        scale: A number, or a tensor of the graph.
        zero_point: The same.
        dtype: Type of its codes where a float tensor is quantized, None where an operation works
            on codes and the type is that of its input.
    """

    operation: str
    scale: Any
    zero_point: Any
    dtype: Any


def function_quantizer(graph_module: GraphModule, node: Node) -> FunctionQuantizer | None:
    """Return what a function node quantizes with; None for any other node."""
    if node.op != "call_function":
        return None
    if node.target is torch.quantize_per_tensor:
        if not _is_activation(node):
            return None
        scale, zero_point, dtype = (
            _value(graph_module, _argument(node, name, place))
            for place, name in enumerate(("scale", "zero_point", "dtype"), start=1)
        )
        return FunctionQuantizer("quantize_per_tensor", scale, zero_point, dtype)
    for schema in _schemas(node.target):
        names = [argument.name for argument in schema.arguments]
        scale_name = next((name for name in _SCALES if name in names), None)
        zero_name = next((name for name in _ZERO_POINTS if name in names), None)
        if not schema.name.startswith(_NAMESPACE) or len(node.args) > len(names):
            continue
        if scale_name is None or zero_name is None:
            continue
        scale = _argument(node, scale_name, names.index(scale_name))
        zero_point = _argument(node, zero_name, names.index(zero_name))
        if scale is not None and zero_point is not None:
            scale, zero_point = _value(graph_module, scale), _value(graph_module, zero_point)
            operation = schema.name.removeprefix(_NAMESPACE)
            return FunctionQuantizer(operation, scale, zero_point, None)
    return None


def is_replayable(graph_module: GraphModule) -> bool:
    """Whether all that the graph runs is torch's own: a module of the host may do anything.

    What `convert_fx` leaves are modules of torch, in eval mode, and functions.
    """
    modules = dict(graph_module.named_modules())
    return all(
        type(modules.get(str(node.target))).__module__.startswith("torch.")
        for node in graph_module.graph.nodes
        if node.op == "call_module"
    )


def name_readers(graph_module: GraphModule, sources: Sequence[Node]) -> dict[Node, Point]:
    """Name the tensors that leave quantizers after the modules or operations that read them.

    A module that reads the same values in another shape counts as a reader. Names are unique: a
    second tensor with the name of another gets ``#2``.

    Args:
        graph_module: The graph.
        sources: Quantizers, in the order of the graph. One that nothing reads gets no name.
    """
    modules = dict(graph_module.named_modules())
    taken: dict[str, int] = {}
    named: dict[Node, Point] = {}
    for source in sources:
        # The name of a module is the best there is: the eager model has the same.
        of_modules: list[Point] = []
        of_functions: list[Point] = []
        for reader in _readers(source, modules):
            base, role, module = _label(source, reader)
            taken[base + role] = number = taken.get(base + role, 0) + 1
            name = f"{base}{'' if number == 1 else f'#{number}'}:{role}"
            (of_modules if base == module else of_functions).append(Point(name, role, module))
        claims = [*of_modules, *of_functions]
        if claims:
            aliases = tuple(other.name for other in claims[1:])
            named[source] = replace(claims[0], aliases=aliases)
    return named


@final
class CodeGraph:
    """A graph of `convert_fx` whose quantizers can be watched; nothing on it is touched.

    Args:
        graph_module: The graph.
        nodes: Node of each quantizer, and whether the float tensor that enters it is seen (else
            the codes that leave it).
    """

    __slots__ = ("_indices", "graph_module")

    def __init__(self, graph_module: GraphModule, nodes: Sequence[tuple[Node, bool]]) -> None:
        self.graph_module = graph_module
        self._indices = {node: (index, exact) for index, (node, exact) in enumerate(nodes)}

    def run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        observe: Callable[[int, torch.Tensor], None],
    ) -> Any:
        """Run the graph on one input.

        Args:
            args: Positional inputs, as for the graph module itself.
            kwargs: Keyword inputs.
            observe: Called for each quantizer that runs with the tensor that enters it, or with
                the quantized tensor that leaves it. It shares the graph's memory.

        Returns:
            What the graph module returns, bit for bit.

        Raises:
            TypeError: The inputs do not fit the graph's signature.
        """
        bound = inspect.signature(self.graph_module.forward).bind(*args, **(kwargs or {}))
        bound.apply_defaults()
        walk = _Walk(self.graph_module, self._indices, observe)
        return walk.run(*bound.args, *bound.kwargs.values())


@final
class _Walk(Interpreter):
    def __init__(
        self,
        graph_module: GraphModule,
        indices: Mapping[Node, tuple[int, bool]],
        observe: Callable[[int, torch.Tensor], None],
    ) -> None:
        super().__init__(graph_module)
        self._indices = indices
        self._observe = observe

    def run_node(self, n: Node) -> Any:
        index, exact = self._indices.get(n, (-1, False))
        if index >= 0 and exact:
            self._observe(index, self.env[n.all_input_nodes[0]])
        result = super().run_node(n)
        if index >= 0 and not exact:
            self._observe(index, result)
        return result


def _label(source: Node, reader: Node) -> tuple[str, Role, str]:
    """Name, role and module of a reader; of a module, name and module are the same."""
    role = Role.INPUT
    if reader.op == "output":
        quantizes = source.target is torch.quantize_per_tensor
        reader, role = source.all_input_nodes[0] if quantizes else source, Role.OUTPUT
    if reader.op == "call_module":
        return str(reader.target), role, str(reader.target)
    scope, operation = scope_of(reader), _operation(reader)
    return f"{scope}.{operation}" if scope else operation, role, scope


def _readers(source: Node, modules: Mapping[str, nn.Module]) -> Iterator[Node]:
    for user in source.users:
        if user.op == "call_module":
            passes = type(modules.get(str(user.target))).__name__ in _PASSED_ON_BY
        else:
            passes = user.op != "output" and _operation(user) in _PASSED_ON
        if passes and user.all_input_nodes[:1] == [source]:
            yield from _readers(user, modules)
        elif user.target is torch.quantize_per_tensor and source.op != "call_module":
            yield source  # what is quantized again has another name there
        else:
            yield user


def _operation(node: Node) -> str:
    return str(node.target) if node.op == "call_method" else operation_of(node)


def _is_activation(node: Node) -> bool:
    """Whether the node depends on an input of the graph, and not on weights alone."""
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


def _schemas(target: Any) -> list[Any]:
    """The schemas of an operation: of one overload, or of all that its name stands for."""
    schema = getattr(target, "_schema", None)
    if schema is not None:
        return [schema]
    if not isinstance(target, torch._ops.OpOverloadPacket):
        return []
    names: list[str] = target.overloads()  # type: ignore[no-untyped-call]
    return [getattr(target, name)._schema for name in names]


def _argument(node: Node, name: str, place: int) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _value(graph_module: GraphModule, value: Any) -> Any:
    """The tensor behind an attribute node; anything else as it is."""
    if not isinstance(value, Node):
        return value
    if value.op != "get_attr":
        return None  # computed in the graph: a range of its own for each tensor
    found: Any = graph_module
    for part in str(value.target).split("."):
        found = getattr(found, part)
    return found

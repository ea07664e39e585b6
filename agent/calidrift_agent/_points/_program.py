"""A quantized graph as generated code: one pass over it without the interpreter's cost per node.

`torch.fx.Interpreter` looks every node, argument and operation up again in each pass, and
dequantizes all weights again, which for one image is most of a pass. Here each node is a line of
generated Python, dead values are dropped at once, and what depends on weights alone is computed
once and kept until a weight is written to or replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from calidrift_agent._points._convolution import Convolution, pack, packable
from calidrift_agent._points._equivalents import max_pool2d, quantize_and_back

KEPT_BYTES: Final = 1 << 28
"""Memory for what depends on weights alone (256 MiB); what takes more is computed in each pass."""
_NUMPY_TYPES: Final = (torch.int8, torch.uint8, torch.float32, torch.int32, torch.int64)
"""Types that numpy compares, ten times faster than `torch.equal`."""
_EQUIVALENTS: Final[Mapping[Any, Callable[..., Any]]] = {
    torch.ops.aten.max_pool2d.default: max_pool2d
}
_DEQUANTIZE: Final = "quantized_decomposed::dequantize_per_tensor"


@final
class GraphProgram:
    """One way to run a graph: with its activation quantizers in place, or without them.

    Follows the live graph module: tensors and submodules are fetched from it in each pass.

    Args:
        graph_module: The graph; it must not be edited afterwards.
        indices: Its activation quantizers, with the index that `observe` is called with.
        bypassed: Dequantize nodes that undo them, for a pass without quantizers; None for one
            with quantizers in place.
        constants: What it keeps of the weights; shared by all programs of one graph.
        output: Compute the output, too; without it, what no quantizer needs is left out.
    """

    __slots__ = ("_constants", "_run")

    def __init__(
        self,
        graph_module: GraphModule,
        indices: Mapping[Node, int],
        bypassed: frozenset[Node] | None,
        constants: "Constants",
        *,
        output: bool = True,
    ) -> None:
        writer = _Writer(graph_module, indices, bypassed, constants, output=output)
        self._constants = constants
        self._run = writer.compile()

    def run(self, inputs: Sequence[Any], observe: Callable[[int, torch.Tensor], None]) -> Any:
        """Run the graph.

        Args:
            inputs: In the order of the graph's placeholders.
            observe: Called for each quantizer, before it runs, with the tensor that enters it.

        Returns:
            What the output node holds, before the graph's own output processing; None for a
            program without output.
        """
        with torch.no_grad():  # gradients would need other convolutions, which round otherwise
            return self._run(observe, self._constants.values(), *inputs)


@final
class Constants:
    """What the nodes of a graph that depend on its weights alone come to.

    Kept from pass to pass, as long as nobody writes to a weight or puts another one in its place.
    Inference tensors count no writes: they are compared with a copy (0.2 ns per byte on a CPU).

    Args:
        graph_module: The graph.

    Attributes:
        nodes: Nodes whose values are kept, in the order of `values`.
        packable: Those that are weights, kept as oneDNN wants them, and their convolutions.
    """

    __slots__ = ("_graph_module", "_kept", "_seen", "_sources", "_steps", "nodes", "packable")

    def __init__(self, graph_module: GraphModule) -> None:
        self._graph_module = graph_module
        constant = _constant_nodes(graph_module)
        self._sources = [node for node in constant if node.op == "get_attr"]
        self._steps = [node for node in constant if node.op == "call_function"]
        self.nodes = [node for node in self._steps if set(node.users) - set(constant)]
        self.packable = packable(self.nodes)
        self._seen: list[_Seen] = []
        self._kept: list[Any] | None = None

    def values(self) -> list[Any]:
        """Return the values; 0.5 us per weight where nothing changed."""
        tensors = [fetch(self._graph_module, str(node.target)) for node in self._sources]
        kept = self._kept
        if kept is not None and all(map(_Seen.is_unchanged, self._seen, tensors)):
            return kept
        # Looked at before they are read: a write meanwhile is noticed the next time.
        seen = [_Seen(tensor) for tensor in tensors]
        values = self._compute(tensors)
        size = sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
        self._kept, self._seen = None, seen
        if size <= KEPT_BYTES:
            for index, node in enumerate(self.nodes):  # one by one: none is held twice for long
                if node in self.packable:
                    values[index] = pack(values[index], self.packable[node])
            self._kept = values
        return values

    @property
    def kept_bytes(self) -> int:
        """Memory of the values, and of the copies of weights that count no writes."""
        kept = [one for one in self._kept or () if isinstance(one, torch.Tensor)]
        return sum(one.numel() * one.element_size() for one in kept) + sum(
            one.copy_bytes for one in self._seen
        )

    def _compute(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        known: dict[Node, Any] = dict(zip(self._sources, tensors, strict=True))
        for step in self._steps:
            args, kwargs = map_arg((step.args, step.kwargs), known.__getitem__)
            known[step] = step.target(*args, **kwargs)  # type: ignore[operator]
        return [known[node] for node in self.nodes]


@final
class _Seen:
    """A tensor as it was."""

    __slots__ = ("_copy", "_tensor", "_version")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        counted = not tensor.is_inference()
        self._version = tensor._version if counted else -1
        self._copy = None if counted else tensor.clone()

    @property
    def copy_bytes(self) -> int:
        """Memory of the copy that it is compared with."""
        return 0 if self._copy is None else self._copy.nbytes

    def is_unchanged(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is this one, and holds what it held."""
        if tensor is not self._tensor:
            return False
        copy = self._copy
        if copy is None:
            return tensor._version == self._version
        if tensor.is_cpu and tensor.dtype in _NUMPY_TYPES:
            return bool(np.array_equal(tensor.numpy(), copy.numpy()))
        return torch.equal(tensor, copy)


def fetch(graph_module: GraphModule, path: str) -> Any:
    """Return what a `get_attr` node names, as it is now."""
    found: Any = graph_module
    for part in path.split("."):
        found = getattr(found, part)
    return found


@final
class _Writer:
    """Writes the source of a program, line by line."""

    def __init__(
        self,
        graph_module: GraphModule,
        indices: Mapping[Node, int],
        bypassed: frozenset[Node] | None,
        constants: "Constants",
        *,
        output: bool = True,
    ) -> None:
        self._graph_module = graph_module
        self._indices = indices
        self._bypass = bypassed is not None
        self._bypassed = bypassed or frozenset()
        self._names: dict[Node, str] = {}
        self._bound: dict[str, Any] = {"_owner": graph_module, "_fetch": fetch}
        self._lines: list[str] = []
        self._inputs: list[str] = []
        self._constants = {node: index for index, node in enumerate(constants.nodes)}
        self._convolutions = frozenset(constants.packable.values())
        self._hidden = _hidden(graph_module, self._constants)
        if not output:
            self._hidden |= _behind(graph_module, indices)
        self._fused = {} if self._bypass else _pairs(graph_module, indices)

    def compile(self) -> Callable[..., Any]:
        """Return the program as a function of `observe`, the constants and the inputs."""
        dead = _last_uses(self._graph_module, self._hidden)
        for node in self._graph_module.graph.nodes:
            if node not in self._hidden:
                self._write(node)
                names = [self._names[one] for one in dead.get(node, ()) if one in self._names]
                # A name may stand for several nodes: it is dropped with the last of them.
                if names and node.op != "output":
                    self._lines.append(f"{' = '.join(names)} = None")
        source = "\n    ".join(
            [f"def program(_observe, _constants, {', '.join(self._inputs)}):", *self._lines, "pass"]
        )
        exec(compile(source, f"<calidrift program {id(self)}>", "exec"), self._bound)
        program: Callable[..., Any] = self._bound.pop("program")
        return program

    def _write(self, node: Node) -> None:
        name = self._names[node] = f"v{len(self._names)}"
        if node in self._constants:
            self._lines.append(f"{name} = _constants[{self._constants[node]}]")
        elif node.op == "placeholder":
            self._inputs.append(name)
        elif node.op == "get_attr":
            self._lines.append(f"{name} = _fetch(_owner, {str(node.target)!r})")
        elif node.op == "output":
            self._lines.append(f"return {self._argument(node.args[0])}")
        elif node in self._indices:
            self._write_quantizer(node, name)
        elif node in self._bypassed:
            kind = self._bind(node.kwargs.get("out_dtype") or torch.float32)
            self._lines.append(f"{name} = {self._names[node.all_input_nodes[0]]}.to({kind})")
        elif node in self._fused:
            self._lines.append(f"{name} = {self._names[self._fused[node]]}")
        else:
            self._lines.append(f"{name} = {self._call(node)}")

    def _write_quantizer(self, node: Node, name: str) -> None:
        entering = self._names[node.all_input_nodes[0]]
        self._lines.append(f"_observe({self._indices[node]}, {entering}.detach())")
        if self._bypass:
            self._lines.append(f"{name} = {entering}")
        elif node in self._fused.values():
            arguments = ", ".join(self._argument(one) for one in node.args[1:])
            fused = self._bind(quantize_and_back)
            self._lines.append(f"{name} = {fused}({entering}, {arguments})")
        else:
            self._lines.append(f"{name} = {self._call(node)}")

    def _call(self, node: Node) -> str:
        arguments = [self._argument(one) for one in node.args]
        arguments += [f"{key}={self._argument(one)}" for key, one in node.kwargs.items()]
        if node.op == "call_method":
            return f"{arguments[0]}.{node.target}({', '.join(arguments[1:])})"
        if node.op == "call_module":
            return f"_fetch(_owner, {str(node.target)!r})({', '.join(arguments)})"
        if node in self._convolutions:
            return f"{self._bind(Convolution(node))}({', '.join(arguments[:3])})"
        target = _EQUIVALENTS.get(node.target, node.target)
        return f"{self._bind(target)}({', '.join(arguments)})"

    def _argument(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._names[value]
        if isinstance(value, (list, tuple)) and _holds_nodes(value):
            items = "".join(f"{self._argument(one)}, " for one in value)
            return f"[{items}]" if isinstance(value, list) else f"({items})"
        if isinstance(value, dict) and _holds_nodes(value):
            items = ", ".join(f"{key!r}: {self._argument(one)}" for key, one in value.items())
            return f"{{{items}}}"
        if isinstance(value, slice) and _holds_nodes(value):
            parts = (value.start, value.stop, value.step)
            return f"slice({', '.join(self._argument(one) for one in parts)})"
        return self._bind(value)

    def _bind(self, value: Any) -> str:
        name = f"k{len(self._bound)}"
        self._bound[name] = value
        return name


def _pairs(graph_module: GraphModule, indices: Mapping[Node, int]) -> dict[Node, Node]:
    """Dequantize nodes that do no more than undo a quantizer with plain numbers, and it."""
    found: dict[Node, Node] = {}
    for node in graph_module.graph.nodes:
        plain = len(node.args) == 6 and not node.kwargs and not _holds_nodes(list(node.args[1:]))
        if node not in indices or not plain:
            continue
        users = list(node.users)
        # They share one tensor, which none of their readers may write to.
        readers = [reader for user in users for reader in user.users]
        private = len(users) == 1 or not any(_may_write(reader) for reader in readers)
        if private and all(_undoes(user, node) for user in users):
            found.update(dict.fromkeys(users, node))
    return found


def _undoes(node: Node, quantizer: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return (
        schema is not None
        and schema.name == _DEQUANTIZE
        and node.args[1:] == quantizer.args[1:]
        and set(node.kwargs) <= {"out_dtype"}
        and node.kwargs.get("out_dtype") in (None, torch.float32)
    )


def _may_write(node: Node) -> bool:
    """Whether a node may write to what it is given, or hand a view of it on."""
    schema = getattr(node.target, "_schema", None)
    if node.op == "output":
        return False
    return schema is None or any(
        one.alias_info is not None for one in (*schema.arguments, *schema.returns)
    )


def _constant_nodes(graph_module: GraphModule) -> list[Node]:
    """Nodes that depend on tensors of the module alone, and on no order of execution."""
    constant: dict[Node, None] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            if isinstance(fetch(graph_module, str(node.target)), torch.Tensor):
                constant[node] = None
        elif (
            node.op == "call_function"
            and node.all_input_nodes
            and _is_pure(node)
            and all(one in constant for one in node.all_input_nodes)
        ):
            constant[node] = None
    return list(constant)


def _is_pure(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    tags = getattr(node.target, "tags", ())
    return (
        schema is not None
        and not schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in tags
        and not any(argument.alias_info is not None for argument in schema.returns)
    )


def _hidden(graph_module: GraphModule, constants: Mapping[Node, int]) -> set[Node]:
    """Nodes of which only constants are made: a program does not run them."""
    hidden: set[Node] = set()
    for node in reversed(graph_module.graph.nodes):
        if node.op in ("placeholder", "output") or node in constants or not node.users:
            continue
        if all(user in hidden or user in constants for user in node.users):
            hidden.add(node)
    return hidden


def _behind(graph_module: GraphModule, indices: Mapping[Node, int]) -> set[Node]:
    """Nodes that only the output needs: neither a quantizer, nor a check, nor what is written to.

    The inputs stay, since a program is called with all of them.
    """
    needed: set[Node] = set()
    for node in reversed(graph_module.graph.nodes):
        if node.op == "output":
            continue
        asked = node in indices or node.op == "placeholder" or not node.users
        if node in needed or asked or not _may_be_left_out(node):
            needed.add(node)
            needed.update(node.all_input_nodes)
    return set(graph_module.graph.nodes) - needed


def _may_be_left_out(node: Node) -> bool:
    """Whether nobody notices that a node is not run who does not read its value."""
    if node.op == "get_attr":
        return True
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and not schema.is_mutable


def _last_uses(graph_module: GraphModule, hidden: set[Node]) -> dict[Node, list[Node]]:
    """Node to the nodes whose values nobody needs behind it."""
    seen: set[Node] = set()
    found: dict[Node, list[Node]] = {}
    for node in reversed(graph_module.graph.nodes):
        if node in hidden:
            continue
        for used in node.all_input_nodes:
            if used not in seen:
                seen.add(used)
                found.setdefault(node, []).append(used)
    return found


def _holds_nodes(value: Any) -> bool:
    found: list[Node] = []
    map_arg(value, found.append)
    return bool(found)

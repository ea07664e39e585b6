"""Quantizers of `torch.ao` INT8 models: eager modules (QuantStub) and graphs of `convert_fx`.

Only where a float tensor is quantized (`Quantize`, `torch.quantize_per_tensor`) the value before
the quantizer can be seen. Any other quantized operation requantizes inside its kernel: of its
output there are only the codes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import nn
from torch.fx import GraphModule

from calidrift_agent._points._ao_graph import (
    FunctionQuantizer,
    function_quantizer,
    is_replayable,
    name_readers,
)
from calidrift_agent._points._ao_modules import has_fused_relu, is_dynamic_layer, static_name
from calidrift_agent._points._modules import (
    Discovery,
    Point,
    discover_modules,
    require_module,
    unwrap,
)
from calidrift_agent._profile import ClipBound
from calidrift_agent._vocabulary import Role
from calidrift_agent.errors import AttachError, ConfigurationError

_QUANTIZE: Final = "Quantize"
_FUNCTIONAL: Final = "QFunctional"
_BOUNDED: Final = frozenset({"Sigmoid", "Softmax", "LinearTanh", "sigmoid", "softmax", "tanh"})
_RAILS: Final[Mapping[torch.dtype, tuple[int, int]]] = {
    torch.quint8: (0, 255),
    torch.qint8: (-128, 127),
}
"""Rails of the operations of `torch.ao`: they have no argument for them and clamp to the type.
(Observers may have used fewer codes, with `reduce_range`: then a value is clipped later than the
calibrated range says, and that is what the served model does.)"""


@final
@dataclass(frozen=True, slots=True)
class CodePoint:
    """A static activation quantizer of a `torch.ao` model.

    Attributes:
        point: Name, role, module and aliases of the tensor.
        bound: The quantizer's range. Behind a fused ReLU `qmin` is the zero point: the operation
            clamps there.
        exact: Whether the float tensor that enters the quantizer is seen, and not only the codes
            that leave it.
        node: Its node, in a graph that can be replayed.
    """

    point: Point
    bound: ClipBound
    exact: bool
    node: torch.fx.Node | None = None

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
class CodePoints:
    """What can be seen of a `torch.ao` model.

    Attributes:
        quantizers: Its quantizers, in the order of the modules or of the graph.
        skipped: Module or node name to the reason why its quantizer is not observed.
        graph: The graph, where it can be replayed node by node; None where taps stand in modules.
    """

    quantizers: tuple[CodePoint, ...]
    skipped: Mapping[str, str]
    graph: GraphModule | None

    @property
    def discovery(self) -> Discovery:
        """The same as points."""
        return Discovery(tuple(one.point for one in self.quantizers), self.skipped)


def is_torch_ao(model: object) -> bool:
    """Whether `model` holds static activation quantizers of `torch.ao`; also behind compilation.

    Cost: one walk over the modules, 1 us each.
    """
    if not isinstance(model, nn.Module):
        return False
    model = unwrap(model)
    if "_modules" not in model.__dict__ or type(model).__module__.startswith("torch.jit"):
        return False
    return any(_is_quantizer(module) for module in model.modules()) or any(
        function_quantizer(graph, node) is not None
        for graph in model.modules()
        if isinstance(graph, GraphModule)
        for node in graph.graph.nodes
    )


def torch_ao_points(model: nn.Module) -> CodePoints:
    """Return the static activation quantizers of a `torch.ao` INT8 model.

    In a graph of `convert_fx` a tensor is named after the module that reads it, as in the eager
    FP32 model (``conv2:input``). In eager modules only the producer is known: ``quant:input``,
    ``conv1:output``, behind a fused ReLU ``conv1.relu:output`` (``conv1:output`` is another tensor
    in the FP32 model).

    Args:
        model: What `torch.ao.quantization.convert` or `convert_fx` returned.

    Raises:
        AttachError: No such quantizer, or one whose numbers cannot be read.
    """
    inner = require_module(model)
    found = None
    if isinstance(inner, GraphModule) and is_replayable(inner):
        found = _graph_points(inner)
    if found is None or not found.quantizers:
        found = _module_points(inner)
    if not found.quantizers:
        raise AttachError(
            f"{type(inner).__name__} has no static activation quantizer of torch.ao that can be "
            "seen; give what torch.ao.quantization.convert or convert_fx returned"
        )
    return found


def _is_quantizer(module: nn.Module) -> bool:
    name = static_name(module)
    return name is not None and hasattr(module, "scale") and hasattr(module, "zero_point")


def _module_points(model: nn.Module) -> CodePoints:
    dtype = _code_type(
        getattr(one, "dtype", None) for one in model.modules() if static_name(one) == _QUANTIZE
    )
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    found: list[CodePoint] = []
    skipped = _left_alone(model)
    for name, module in model.named_modules():
        if isinstance(module, GraphModule):
            skipped.update(_hidden(name, module))
        kind = static_name(module)
        if kind is None:
            continue
        if kind in _BOUNDED:
            skipped[name] = "its output is bounded by the operation itself"
        elif _is_quantizer(module):
            try:
                found.append(_module_point(names[id(module)], module, kind, dtype))
            except _UnreadableError as error:
                skipped[name] = str(error)
    return CodePoints(tuple(found), MappingProxyType(skipped), None)


def _module_point(names: list[str], module: nn.Module, kind: str, dtype: torch.dtype) -> CodePoint:
    name, *others = names
    if kind == _QUANTIZE:
        bound = _bound(module.scale, module.zero_point, module.dtype, relu=False)
        aliases = tuple(f"{other}:{Role.INPUT}" for other in others)
        return CodePoint(Point(f"{name}:{Role.INPUT}", Role.INPUT, name, aliases), bound, True)
    relu = has_fused_relu(kind)
    bound = _bound(module.scale, module.zero_point, dtype, relu=relu)
    # A functional wrapper has no forward: what it computes goes through a child that has.
    inner = f"{name}.activation_post_process" if kind == _FUNCTIONAL else name
    suffix = f".relu:{Role.OUTPUT}" if relu else f":{Role.OUTPUT}"
    aliases = tuple(f"{other}{suffix}" for other in others)
    return CodePoint(Point(f"{name}{suffix}", Role.OUTPUT, inner, aliases), bound, False)


def _left_alone(model: nn.Module) -> dict[str, str]:
    """Layers that are not quantized statically, with the reason."""
    reasons = dict(discover_modules(model, outputs=False).skipped)
    for point in discover_modules(model, outputs=False).points:
        dynamic = is_dynamic_layer(model.get_submodule(point.module))
        reasons[point.module] = (
            "it is quantized dynamically: its range follows each tensor, so nothing is clipped"
            if dynamic
            else "it is not quantized: nothing is clipped there"
        )
    return reasons


def _hidden(name: str, graph_module: GraphModule) -> dict[str, str]:
    """Functions inside a graph: they are no modules in which a tap could stand."""
    return {
        f"{name}.{node.name}" if name else node.name: (
            "a function inside a graph whose calls cannot be replayed: only modules are observed"
        )
        for node in graph_module.graph.nodes
        if function_quantizer(graph_module, node) is not None
    }


def _graph_points(graph_module: GraphModule) -> CodePoints:
    modules = dict(graph_module.named_modules())
    found: dict[torch.fx.Node, FunctionQuantizer] = {}
    kinds: dict[torch.fx.Node, str] = {}
    for node in graph_module.graph.nodes:
        function = function_quantizer(graph_module, node)
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if function is not None:
            found[node], kinds[node] = function, function.operation
        elif module is not None and _is_quantizer(module):
            kind = static_name(module) or ""
            dtype = getattr(module, "dtype", None) if kind == _QUANTIZE else None
            found[node] = FunctionQuantizer(kind, module.scale, module.zero_point, dtype)
            kinds[node] = kind
    dtype = _code_type(one.dtype for one in found.values())
    names = name_readers(graph_module, list(found))
    points: list[CodePoint] = []
    skipped = _left_alone(graph_module)
    for node, numbers in found.items():
        if kinds[node] in _BOUNDED:
            skipped[node.name] = "its output is bounded by the operation itself"
            continue
        name = names.get(node)
        if name is None:
            continue  # nothing reads it
        try:
            bound = _bound(
                numbers.scale,
                numbers.zero_point,
                numbers.dtype or dtype,
                relu=has_fused_relu(kinds[node]),
            )
        except _UnreadableError as error:
            skipped[name.name] = str(error)
            continue
        points.append(CodePoint(name, bound, numbers.dtype is not None, node))
    return CodePoints(tuple(points), MappingProxyType(skipped), graph_module)


class _UnreadableError(Exception):
    """A quantizer that has no clip range of one scale."""


def _code_type(found: Iterator[Any]) -> torch.dtype:
    """The type of activations' codes: what the float tensors are quantized to, else unsigned."""
    return next((dtype for dtype in found if dtype in _RAILS), torch.quint8)


def _bound(scale: Any, zero_point: Any, dtype: Any, *, relu: bool) -> ClipBound:
    if dtype not in _RAILS:
        raise _UnreadableError(f"its codes are {dtype}, and only 8-bit codes have rails to count")
    try:
        step, zero = (
            one.detach().item() if isinstance(one, torch.Tensor) else one
            for one in (scale, zero_point)
        )
        low, high = _RAILS[dtype]
        return ClipBound.of_quantizer(
            float(step),
            int(zero),
            max(low, int(zero)) if relu else low,
            high,
            str(dtype).removeprefix("torch."),
        )
    except (TypeError, ValueError, RuntimeError) as error:
        reason = error if isinstance(error, ConfigurationError) else "they are not single numbers"
        raise _UnreadableError(f"its scale or zero point cannot be used ({reason})") from error

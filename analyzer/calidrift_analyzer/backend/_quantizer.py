"""The torchao side of quantization: observers, quantizer, float graph to q/dq graph.

Importing this module registers passes in Inductor for the whole process, and sets its pre-grad
pass; that is why only functions of this package import it, never a module at its top.
"""

import copy
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from calidrift_agent._points import observer_nodes
from calidrift_analyzer.errors import ContractError


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torchao's import: it warns of CUDA extensions that a CPU build does not have."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


with _quiet():
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import UniformQuantizationObserverBase
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec
    from torchao.utils import should_reduce_range

__all__ = ["convert", "observer_groups", "prepare", "reduces_range"]

_ANNOTATION: Final = "quantization_annotation"
_SMALLEST_SCALE: Final = 2.0**-12
_aten: Final = torch.ops.aten

_SOURCES: Final[Mapping[Any, Any]] = {
    _aten.conv1d.default: nn.Conv1d,
    _aten.conv2d.default: nn.Conv2d,
    _aten.linear.default: nn.Linear,
    _aten.relu.default: nn.ReLU,
    _aten.relu_.default: nn.ReLU,
    _aten.relu6.default: nn.ReLU6,
    _aten.relu6_.default: nn.ReLU6,
    _aten.hardtanh.default: nn.Hardtanh,
    _aten.hardtanh_.default: nn.Hardtanh,
    _aten.hardswish.default: nn.Hardswish,
    _aten.hardswish_.default: nn.Hardswish,
    _aten.silu.default: nn.SiLU,
    _aten.silu_.default: nn.SiLU,
    _aten.leaky_relu.default: nn.LeakyReLU,
    _aten.leaky_relu_.default: nn.LeakyReLU,
    _aten.tanh.default: nn.Tanh,
    _aten.tanh_.default: nn.Tanh,
    _aten.gelu.default: nn.GELU,
    _aten.gelu_.default: nn.GELU,
    _aten.add.Tensor: operator.add,
    _aten.add_.Tensor: operator.add,
}
"""What the quantizer's fusion patterns call each operation."""


@final
class RangeObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """An observer that observes nothing: its range is set from outside.

    Ranges are functions of sketches (`calidrift_analyzer.ranges`), so that data and production
    give them in the same way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))

    def set_range(self, lo: float, hi: float) -> None:
        """Set the range; it is widened to contain 0 when the scale is computed."""
        self.min_val.fill_(lo)
        self.max_val.fill_(hi)

    def forward(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def calculate_qparams(self, **_: Any) -> Any:
        """Scale and zero point of the range."""
        return self._calculate_qparams(self.min_val, self.max_val)


@final
class _PerCallQuantizer(x86.X86InductorQuantizer):  # type: ignore[misc]
    """The x86 quantizer, matching its patterns per call site and skipping constants.

    Upstream groups operations by the module they came from and refuses a stateless module that is
    called twice ("Input partition has more than one output node": the one ReLU of a residual
    block). Here every operation is a source of its own, named after its node, which also makes a
    functional `relu` fuse like a module.
    """

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Name the source of each operation."""
        for node in model.graph.nodes:
            if node.op == "call_function":
                source = _SOURCES.get(node.target, node.target)
                if source is operator.add and not _adds_tensors(node):
                    source = node.target
                node.meta["source_fn_stack"] = [(node.name, source)]
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate, then take constants and non-float tensors out again."""
        super().annotate(model)
        moving = _input_dependent(model)
        for node in model.graph.nodes:
            annotation = node.meta.get(_ANNOTATION)
            if annotation is not None:
                _drop_unquantizable(annotation, moving)
        return model


def reduces_range() -> bool:
    """Whether activations must be 0..127: without VNNI, u8 x s8 sums saturate silently."""
    return bool(should_reduce_range(torch.device("cpu")))


def prepare(graph: GraphModule, *, reduce_range: bool) -> GraphModule:
    """Fold BatchNorm and insert observers.

    Args:
        graph: An exported float graph; it is consumed.
        reduce_range: Quantize activations to 0..127 instead of 0..255.

    Returns:
        The prepared graph, still computing the float function.
    """
    options = {"eps": _SMALLEST_SCALE}
    activation = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=127 if reduce_range else 255,
        qscheme=torch.per_tensor_affine,
        is_dynamic=False,
        observer_or_fake_quant_ctr=RangeObserver.with_args(**options),
    )
    weight = x86.get_default_x86_inductor_quantization_config().weight
    quantizer = _PerCallQuantizer()
    with warnings.catch_warnings():
        # A skipped max pool is no trouble; a skipped configuration is a bug of ours.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*[Ss]kip the (global )?quantization config")
        quantizer.set_global(QuantizationConfig(activation, activation, weight, None, False))
        quantizer.set_function_type_qconfig(torch.mul, None)
        prepared: GraphModule = prepare_pt2e(graph, quantizer)
    return prepared


def convert(prepared: GraphModule, ranges: Mapping[str, tuple[float, float]]) -> GraphModule:
    """Turn a prepared graph into a q/dq graph with the given activation ranges.

    Args:
        prepared: What `prepare` returned, after one forward pass (weights are observed in it). It
            is left as it was.
        ranges: (lo, hi) by point name. Points that share one quantizer (the input and the output
            of a pooling layer) get the union of their ranges.

    Returns:
        The q/dq graph, without any float copy of a quantized weight.

    Raises:
        ContractError: A point has no range.
    """
    wanted = _ranges_by_observer(prepared, ranges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = copy.deepcopy(prepared)
        for target, (lo, hi) in wanted.items():
            observer = graph.get_submodule(target)
            assert isinstance(observer, RangeObserver)
            observer.set_range(lo, hi)
        converted: GraphModule = convert_pt2e(graph)
    return converted


def observer_groups(prepared: GraphModule) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Group the points of a prepared graph by the observer that they share.

    Returns:
        Names of the points of each observer, and one name of that observer: the input and the
        output of a pooling layer have two names for one object.
    """
    names: dict[int, list[str]] = {}
    targets: dict[int, str] = {}
    for observed in observer_nodes(prepared):
        key = id(prepared.get_submodule(observed.target))
        names.setdefault(key, []).append(observed.point.name)
        targets[key] = observed.target
    return tuple((tuple(points), targets[key]) for key, points in names.items())


def _ranges_by_observer(
    prepared: GraphModule, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    groups = observer_groups(prepared)
    missing = [name for points, _ in groups for name in points if name not in ranges]
    if missing:
        raise ContractError(
            f"no range is known for {', '.join(missing)}; give a sketch or a range for every "
            "quantized tensor of this model (is it the profile of another model?)"
        )
    return {
        target: (min(ranges[one][0] for one in points), max(ranges[one][1] for one in points))
        for points, target in groups
    }


def _adds_tensors(node: Node) -> bool:
    return len(node.args) == 2 and all(isinstance(one, Node) for one in node.args)


def _input_dependent(model: GraphModule) -> frozenset[Node]:
    """Float tensors that depend on the values of an input; its shape alone is no value."""
    moving: set[Node] = set()
    for node in model.graph.nodes:
        if isinstance(node.meta.get("val"), int | torch.SymInt):
            continue
        if node.op == "placeholder" or any(one in moving for one in node.all_input_nodes):
            moving.add(node)
    return frozenset(node for node in moving if _is_float(node))


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.dtype == torch.float32


def _drop_unquantizable(annotation: Any, moving: frozenset[Node]) -> None:
    """Leave attention masks, position ids and the like alone; quantizing them ruins a model."""
    planned = annotation.input_qspec_map
    constant = [
        source
        for source, spec in planned.items()
        if getattr(spec, "dtype", torch.uint8) == torch.uint8
        and spec is not None
        and source not in moving
    ]
    if not constant:
        return
    if annotation.output_qspec is not None or any(
        not hasattr(spec, "dtype") for spec in planned.values() if spec is not None
    ):
        planned.clear()
        annotation.output_qspec = None
    for source in constant:
        planned.pop(source, None)

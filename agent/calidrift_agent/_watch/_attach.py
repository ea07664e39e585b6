"""What a watch would observe of a model, and how; nothing is changed here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from torch import nn

from calidrift_agent._observe import (
    EdgeShadow,
    Gate,
    GraphShadow,
    Shadow,
    edge_inputs,
    why_not_replay,
)
from calidrift_agent._points import (
    Discovery,
    Point,
    QuantizedGraph,
    discover,
    fingerprint_of,
    is_quantized,
    require_module,
)
from calidrift_agent._profile import CalibrationProfile
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import Instrument, Role, Strategy
from calidrift_agent.errors import AttachError, ProfileMismatchError

_OUTPUT_POINT: Final = Point(name=":output", role=Role.OUTPUT, module="")
_FUSED: Final = (nn.TransformerEncoderLayer,)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """How a model will be observed.

    Attributes:
        points: Points in row order.
        discovery: The same, with what was left out and why.
        table: Their bounds.
        strategy: How sampled requests are observed.
        make_shadow: Makes the shadow pass; None for strategy *instead*.
        keep_output: Whether the output of a call is needed.
        notes: Sentences for the report.
    """

    points: tuple[Point, ...]
    discovery: Discovery
    table: PointTable
    strategy: Strategy
    make_shadow: Callable[[Ledger], Shadow] | None
    keep_output: bool
    notes: tuple[str, ...]


def plan_attachment(
    model: object, profile: CalibrationProfile | None, *, outputs: bool
) -> Attachment:
    """Choose points, bounds and strategy.

    Raises:
        AttachError: Not a model, one that is watched already, or one with nothing to observe.
        ProfileMismatchError: The profile belongs to another model or instrument.
    """
    inner = require_module(model)
    if not isinstance(model, nn.Module):  # require_module has said so already
        raise AttachError(f"got {type(model).__name__}, but only a torch.nn.Module can be watched")
    _require_unwatched(model)
    if is_quantized(inner):
        return _graph_attachment(model, inner, profile)
    if inner is not model:
        # Its forward may keep state in any object, so running it a second time is never safe.
        raise AttachError(
            f"a compiled FP32 {type(inner).__name__} cannot be watched yet, only a compiled INT8 "
            "graph of convert_pt2e can; watch the eager module, before torch.compile or without it"
        )
    found = _without_compiled(inner, discover(inner, outputs=outputs))
    if not found.points:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        raise AttachError(
            f"{type(inner).__name__} has nothing to observe: no convolution, linear or embedding "
            f"layer that runs as an eager module{f' ({reasons})' if reasons else ''}; watch the "
            "part of the model that has such layers"
        )
    _require_fitting(profile, model, found.points)
    table = PointTable.of([(point.name, point.aliases) for point in found.points], profile)
    points = found.points
    notes = _notes(inner, profile)
    return Attachment(points, found, table, Strategy.INSTEAD, None, False, notes)


def _graph_attachment(
    model: nn.Module, inner: nn.Module, profile: CalibrationProfile | None
) -> Attachment:
    graph = QuantizedGraph(inner)
    _require_fitting(profile, model, graph.points)
    notes = _notes(inner, profile)
    why = why_not_replay(graph.graph_module)
    if why is None:
        table = PointTable.of(
            [(point.name, point.aliases) for point in graph.points],
            profile,
            [quantizer.bound for quantizer in graph.quantizers],
        )
        return Attachment(
            graph.points,
            Discovery(graph.points, MappingProxyType({})),
            table,
            Strategy.BESIDE,
            lambda ledger: GraphShadow(graph, table, ledger),
            False,
            notes,
        )
    edges = [graph.quantizers[index] for index, _ in edge_inputs(graph)]
    points = (*(quantizer.point for quantizer in edges), _OUTPUT_POINT)
    edge_table = PointTable.of(
        [(point.name, point.aliases) for point in points],
        profile,
        [*(quantizer.bound for quantizer in edges), None],
    )
    skipped = {
        quantizer.name: f"the graph cannot be run a second time: {why}"
        for quantizer in graph.quantizers
        if quantizer not in edges
    }
    return Attachment(
        points,
        Discovery(points, MappingProxyType(skipped)),
        edge_table,
        Strategy.BESIDE,
        lambda ledger: EdgeShadow(graph, edge_table, ledger),
        True,
        (*notes, f"only the graph's inputs and its output are observed: {why}"),
    )


def _require_unwatched(model: nn.Module) -> None:
    if isinstance(model.__dict__.get("forward"), Gate):
        raise AttachError(
            f"this {type(model).__name__} is watched already; close the other watch first"
        )
    if model.__dict__.get("_compiled_call_impl") is not None:
        raise AttachError(
            f"this {type(model).__name__} was compiled in place (model.compile()), where a call "
            "cannot be intercepted without compiling it again; watch what torch.compile(model) "
            "returns instead"
        )


def _require_fitting(
    profile: CalibrationProfile | None, model: nn.Module, points: Sequence[Point]
) -> None:
    if profile is None:
        return
    if profile.instrument is not Instrument.RANGE and profile.units:
        raise ProfileMismatchError(
            f"the profile was measured with the {profile.instrument} instrument, but production is "
            "measured with the range instrument; calibrate again"
        )
    profile.require_fits([point.name for point in points], fingerprint_of(model))


def _without_compiled(root: nn.Module, found: Discovery) -> Discovery:
    """Leave out points inside submodules that do not run as eager modules."""
    sealed = {
        name: kind for name, module in root.named_modules() if (kind := _sealed(module)) is not None
    }
    if not sealed:
        return found
    skipped = dict(found.skipped)
    points = []
    for point in found.points:
        above = next(
            (name for name in sealed if f"{point.module}.".startswith(f"{name}." if name else "")),
            None,
        )
        if above is None:
            points.append(point)
        else:
            skipped[point.module] = f"it runs inside {above}, which is {sealed[above]}"
    return Discovery(tuple(points), MappingProxyType(skipped))


def _sealed(module: nn.Module) -> str | None:
    if "_orig_mod" in module.__dict__.get("_modules", {}) and "dynamo_ctx" in module.__dict__:
        return "compiled"
    if module.__dict__.get("_compiled_call_impl") is not None:
        return "compiled in place"
    if type(module).__module__.startswith("torch.jit"):
        return "a TorchScript module"
    return None


def _notes(inner: nn.Module, profile: CalibrationProfile | None) -> tuple[str, ...]:
    notes = []
    if profile is None:
        notes.append("no profile was given: coverage and exceedance are not counted")
    elif profile.unobserved:
        notes.append(
            f"{len(profile.unobserved)} of {len(profile.points)} points of the profile have no "
            "observed bound: coverage and exceedance are not counted there"
        )
    if any(isinstance(module, _FUSED) for module in inner.modules()):
        notes.append(
            "nn.TransformerEncoderLayer skips its linear layers on its fused path (inference in "
            "eval mode): they do not fire there"
        )
    return tuple(notes)

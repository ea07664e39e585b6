"""Quantized PT2E graphs, eager or behind `torch.compile`: a row is replayed beside the request."""

from types import MappingProxyType
from typing import Any, Final

from torch import nn

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._compiled import seat_of
from calidrift_agent._attach._fitting import profile_notes, require_fitting
from calidrift_agent._observe import (
    EdgeShadow,
    GraphShadow,
    Seat,
    edge_inputs,
    graph_reader,
    why_not_replay,
)
from calidrift_agent._points import (
    Discovery,
    Point,
    QuantizedGraph,
    is_quantized,
    require_module,
    unwrap,
)
from calidrift_agent._taps import PointTable
from calidrift_agent._vocabulary import Role, Strategy

_OUTPUT_POINT: Final = Point(name=":output", role=Role.OUTPUT, module="")


def recognises(model: Any) -> bool:
    """Whether `model` is a graph of `convert_pt2e`, or one behind `torch.compile`."""
    return isinstance(model, nn.Module) and is_quantized(unwrap(model))


def attach(request: AttachRequest) -> Attachment:
    """See `Kind`."""
    model, profile = request.model, request.profile
    inner = require_module(model)
    seat = seat_of(model)
    graph = QuantizedGraph(inner)
    require_fitting(profile, model, graph.points)
    why = why_not_replay(graph.graph_module)
    if why is not None:
        return _edges(request, graph, seat, why)
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
        profile_notes(profile),
        seat,
    )


def _edges(request: AttachRequest, graph: QuantizedGraph, seat: Seat, why: str) -> Attachment:
    """Observe only what enters and leaves a graph that must not be run a second time."""
    edges = [graph.quantizers[index] for index, _ in edge_inputs(graph)]
    points = (*(quantizer.point for quantizer in edges), _OUTPUT_POINT)
    table = PointTable.of(
        [(point.name, point.aliases) for point in points],
        request.profile,
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
        table,
        Strategy.EDGES,
        lambda ledger: EdgeShadow(graph_reader(graph), table, ledger),
        True,
        (
            *profile_notes(request.profile),
            f"only the graph's inputs and its output are observed: {why}",
        ),
        seat,
    )

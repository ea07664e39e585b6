"""Shadow passes: what a request would have shown, replayed away from its thread."""

from collections.abc import Mapping
from typing import Any, Protocol, final

import torch
from torch.fx import GraphModule, Node

from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._replay import UNKNOWN, RowReplay
from calidrift_agent._observe._side_effects import draws_random_numbers, views_of, written
from calidrift_agent._points import Frame, QuantizedGraph
from calidrift_agent._taps import (
    CopyKeeper,
    Ledger,
    PointTable,
    Recorder,
    ShelfPool,
)


class Shadow(CopyKeeper, Protocol):
    """Makes the readings of a copied request."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report, about requests that came."""

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """Whether all rows of a request must be copied; asked in the request."""

    def run(self, call: ObservedCall) -> None:
        """Replay a call and leave its readings in it; in the drain, never in a request.

        Raises:
            Exception: The pass failed; the caller counts it.
        """


@final
class GraphShadow:
    """Replays one row through a quantized graph, twice: quantizers bypassed, and in place.

    The first pass is the range instrument, the second the clip instrument. An exported graph may
    refuse a batch of one; the first request (copied whole) shows which batch it accepts: one
    row, the row repeated, or nothing but the whole batch.

    Args:
        graph: The graph.
        table: Points and bounds, in the order of the graph's quantizers.
        ledger: Where errors of taps go.
    """

    def __init__(self, graph: QuantizedGraph, table: PointTable, ledger: Ledger) -> None:
        self._graph = graph
        self._table = table
        self._ledger = ledger
        self._shelves = ShelfPool()
        self._replay = RowReplay()

    @property
    def batch(self) -> int:
        """Copies of one row that make an accepted batch, `WHOLE_BATCH`, or `UNKNOWN`."""
        return self._replay.batch

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return self._replay.remarks

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`."""
        return self._replay.wants_whole(args, kwargs, rows)

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size

    @property
    def weight_bytes(self) -> int:
        """Memory that dequantized weights take, 256 MiB at most."""
        return self._graph.kept_bytes

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: two eager passes over the graph with one row.

        Both in each observed call, so that ranges and clipping are known of the same requests.
        """
        if call.args is None:
            return
        with torch.inference_mode():
            if self._replay.batch == UNKNOWN:
                self._replay.find(call, self._try, fixed_batches(self._graph.graph_module))
            self._replay.check(call, self._recorder, self._look, self._look)
            args, kwargs, repeat = self._replay.inputs(call)
            for bypass in (True, False):
                recorder = self._recorder(rows=call.copied, repeat=repeat, frame=call.frame)
                if bypass:
                    call.ranges = recorder
                else:
                    call.clips = recorder
                self._graph.run(args, kwargs, bypass=bypass, observe=recorder.observe, output=False)
                recorder.finish()

    def _recorder(self, *, rows: int, repeat: int = 1, frame: Frame | None = None) -> Recorder:
        return Recorder(
            self._table, self._ledger, self._shelves, rows=rows, repeat=repeat, frame=frame
        )

    def _look(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], recorder: Recorder) -> object:
        return self._graph.run(args, kwargs, bypass=True, observe=recorder.observe)

    def _try(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._graph.run(args, kwargs, bypass=True, observe=_ignore)


def why_not_replay(graph_module: GraphModule) -> str | None:
    """Return why a graph must not be run beside the host, or None.

    Reads the schemas of its operations: one that draws random numbers, or that writes to a
    parameter or buffer of the model (or to a view of one).
    """
    stateful: set[Node] = {node for node in graph_module.graph.nodes if node.op == "get_attr"}
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        if draws_random_numbers(node.target, node.args, node.kwargs):
            return f"it draws random numbers ({node.target})"
        # Nodes compare by identity and lists of them cannot be hashed: look at nodes only.
        if stateful & _nodes(written(node.target, node.args, node.kwargs)):
            return f"it writes to its own buffers ({node.target})"
        if stateful & _nodes(views_of(node.target, node.args, node.kwargs)):
            stateful.add(node)
    return None


def fixed_batches(graph_module: GraphModule) -> frozenset[int]:
    """Return the batch sizes that are fixed in the graph's inputs; empty where none is known."""
    found = set()
    for node in graph_module.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, torch.Tensor) and value.dim() >= 2:
            size = value.shape[0]
            if not isinstance(size, int):
                return frozenset()
            found.add(size)
    return frozenset(found) if len(found) == 1 else frozenset()


def _nodes(values: list[Any]) -> set[Node]:
    return {value for value in values if isinstance(value, Node)}


def _ignore(index: int, value: torch.Tensor) -> None:
    """Observe nothing."""

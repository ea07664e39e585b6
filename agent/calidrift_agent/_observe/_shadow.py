"""Shadow passes: what a request would have shown, replayed away from its thread."""

from collections.abc import Mapping
from typing import Any, Final, Protocol, final

import torch
from torch.fx import GraphModule, Node

from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._side_effects import draws_random_numbers, views_of, written
from calidrift_agent._points import QuantizedGraph
from calidrift_agent._taps import (
    Ledger,
    PointTable,
    Recorder,
    ShelfPool,
    copy_rows,
    is_observable,
    repeat_row,
)
from calidrift_agent.errors import CalidriftError

WHOLE_BATCH: Final = -1
"""The graph accepts nothing but whole batches."""
UNKNOWN: Final = 0
"""Not tried yet."""


class ShadowError(CalidriftError, RuntimeError):
    """A shadow pass could not be made; counted, never raised into a request."""


class Shadow(Protocol):
    """Makes the readings of a copied request."""

    @property
    def batch(self) -> int:
        """Copies of one row that make an accepted batch, `WHOLE_BATCH`, or `UNKNOWN`."""

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
        self._batch = UNKNOWN

    @property
    def batch(self) -> int:
        """See `Shadow`."""
        return self._batch

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`. Cost: two interpreted passes over the graph with one row."""
        if call.args is None:
            return
        with torch.inference_mode():
            if self._batch == UNKNOWN:
                self._batch = self._find_batch(call)
            args, kwargs, repeat = self._replayed(call)
            for bypass in (True, False):
                recorder = Recorder(
                    self._table, self._ledger, self._shelves, rows=call.copied, repeat=repeat
                )
                if bypass:
                    call.ranges = recorder
                else:
                    call.clips = recorder
                self._graph.run(args, kwargs, bypass=bypass, observe=recorder.observe)
                recorder.finish()

    def _replayed(self, call: ObservedCall) -> tuple[tuple[Any, ...], Mapping[str, Any], int]:
        """The inputs of the pass, and how often they hold the row; `call.copied` rows count."""
        args, kwargs = call.args or (), call.kwargs
        if self._batch == WHOLE_BATCH:
            if call.copied != call.rows:
                raise ShadowError("one row was copied, but the graph accepts whole batches only")
            return args, kwargs, 1
        if call.copied != 1:
            row = slice(call.unit, call.unit + 1)
            args, kwargs = copy_rows(args, kwargs, call.copied, row)
            call.args, call.kwargs, call.copied = args, kwargs, 1
        call.rows, call.unit, call.inclusion_rows = 1, 0, call.rows
        if self._batch > 1:
            args, kwargs = repeat_row(args, kwargs, self._batch)
        return args, kwargs, self._batch

    def _find_batch(self, call: ObservedCall) -> int:
        args, kwargs = call.args or (), call.kwargs
        row = slice(call.unit, call.unit + 1)
        one, one_by_name = copy_rows(args, kwargs, call.copied, row)
        allowed = fixed_batches(self._graph.graph_module)
        failure: Exception | None = None
        for times in _candidates(call.rows):
            if allowed and times not in allowed:
                continue
            try:
                self._graph.run(*repeat_row(one, one_by_name, times), bypass=True, observe=_ignore)
            except Exception as error:
                failure = error
                continue
            # As large as the batch itself: then its other rows cost nothing.
            return WHOLE_BATCH if times == call.rows > 1 else times
        raise ShadowError(
            f"the graph accepts neither one row nor {call.rows} copies of it"
        ) from failure


@final
class EdgeShadow:
    """Observes the inputs and the output of a graph that must not be run a second time.

    Used for graphs that write to their buffers or draw random numbers: a second run would change
    the model's state, or the numbers that the host draws next.

    Args:
        graph: The graph.
        table: Points and bounds, those of the graph's inputs first and the output last.
        ledger: Where errors of taps go.
    """

    def __init__(self, graph: QuantizedGraph, table: PointTable, ledger: Ledger) -> None:
        self._graph = graph
        self._inputs = edge_inputs(graph)
        self._table = table
        self._ledger = ledger
        self._shelves = ShelfPool()

    @property
    def batch(self) -> int:
        """See `Shadow`."""
        return 1

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`."""
        if call.args is None:
            return
        call.rows, call.unit, call.inclusion_rows = 1, 0, call.rows
        recorder = Recorder(self._table, self._ledger, self._shelves, rows=1)
        with torch.inference_mode():
            flat = self._graph.flat_inputs(call.args, call.kwargs)
            for row, (_, position) in enumerate(self._inputs):
                recorder.observe(row, flat[position])
            outputs = call.output if isinstance(call.output, (list, tuple)) else (call.output,)
            first = next((value for value in outputs if is_observable(value)), None)
            recorder.observe(len(self._inputs), first)
            recorder.finish()
        call.ranges = call.clips = recorder


def edge_inputs(graph: QuantizedGraph) -> list[tuple[int, int]]:
    """Return the quantizers that read an input of the graph: their index, and the input's."""
    inputs = [node for node in graph.graph_module.graph.nodes if node.op == "placeholder"]
    return [
        (index, inputs.index(quantizer.node.all_input_nodes[0]))
        for index, quantizer in enumerate(graph.quantizers)
        if quantizer.node.all_input_nodes[0] in inputs
    ]


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


def _candidates(rows: int) -> list[int]:
    """Batch sizes to try, cheapest first; the size of the batch itself is the last."""
    return [*(size for size in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256) if size < rows), rows]


def _nodes(values: list[Any]) -> set[Node]:
    return {value for value in values if isinstance(value, Node)}


def _ignore(index: int, value: torch.Tensor) -> None:
    """Observe nothing."""

"""Inputs and outputs of a model, observed from copies: what is left where nothing can be opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from calidrift_agent._observe._compare import first_tensor
from calidrift_agent._observe._intake import ObservedCall
from calidrift_agent._observe._reference import ReferenceModel
from calidrift_agent._observe._replay import one_row
from calidrift_agent._points import QuantizedGraph
from calidrift_agent._taps import Ledger, PointTable, Recorder, ShelfPool

ReadInputs = Callable[[tuple[Any, ...], Mapping[str, Any]], Sequence[object]]
"""Returns the values of the input points of a call, in the order of the points."""


@final
@dataclass(frozen=True, slots=True)
class InputNames:
    """Which inputs of a callable are observed, and how they are found in a call.

    Attributes:
        positional: Names of the parameters that may be given by position, in order.
        observed: Names of the observed inputs; what was given by position is also known as `arg0`,
            `arg1` and so on. None where the callable names no inputs: then its first
            floating-point tensor is the only one.

    Example:
        >>> names = InputNames(("image", "scale"), ("image", "mask"))
        >>> [one is not None for one in names.read((torch.ones(1, 2),), {"mask": torch.ones(1, 2)})]
        [True, True]
    """

    positional: tuple[str, ...]
    observed: tuple[str, ...] | None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor | None]:
        """Return the observed inputs of a call; of a container, its first floating-point tensor."""
        if self.observed is None:
            return [first_tensor((args, dict(kwargs)))]
        given = {f"arg{index}": value for index, value in enumerate(args)}
        given.update(zip(self.positional, args, strict=False))
        given.update(kwargs)
        return [first_tensor(given.get(name)) for name in self.observed]


@final
class EdgeShadow:
    """Observes the inputs and the output of a model that is not run a second time.

    That is: one that cannot be opened (a TorchScript module, an engine), or whose second run
    would change its state or the random numbers that the host draws next. Where there is a
    reference model, that one is run, and observed at its own points.

    Args:
        read: Finds the values of the input points in a call.
        table: Points and bounds: those of the reference first, then the inputs, then the output.
        ledger: Where errors of taps go.
        reference: The reference model, None for none.
        first: Row of the first input point.
    """

    def __init__(
        self,
        read: ReadInputs,
        table: PointTable,
        ledger: Ledger,
        reference: ReferenceModel | None = None,
        *,
        first: int = 0,
    ) -> None:
        self._read = read
        self._table = table
        self._ledger = ledger
        self._reference = reference
        self._first = first
        self._shelves = ShelfPool()

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `Shadow`."""
        return ()

    def wants_whole(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: int) -> bool:
        """See `Shadow`: one row is enough, since nothing is run."""
        return False

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size

    def run(self, call: ObservedCall) -> None:
        """See `Shadow`."""
        if call.args is None:
            return
        if call.frame is not None and call.frame.rows > 1:
            call.frame = call.frame.row(call.unit)
        one_row(call)
        recorder = call.ranges = Recorder(
            self._table, self._ledger, self._shelves, rows=1, frame=call.frame
        )
        with torch.inference_mode():
            values = [*self._read(call.args, call.kwargs), first_tensor(call.output)]
            for row, value in enumerate(values, self._first):
                recorder.observe(row, value)
            if any(value is None for value in values):
                recorder.note_passed(call.args, call.kwargs, call.output)
        if self._reference is not None:
            self._reference.compare(call, self._ledger, recorder)
        recorder.finish()
        call.clips = recorder


def edge_inputs(graph: QuantizedGraph) -> list[tuple[int, int]]:
    """Return the quantizers that read an input of the graph: their index, and the input's."""
    inputs = [node for node in graph.graph_module.graph.nodes if node.op == "placeholder"]
    return [
        (index, inputs.index(quantizer.node.all_input_nodes[0]))
        for index, quantizer in enumerate(graph.quantizers)
        if quantizer.node.all_input_nodes[0] in inputs
    ]


def graph_reader(graph: QuantizedGraph) -> ReadInputs:
    """Return what finds the inputs of `edge_inputs` in a call of the graph."""
    positions = [position for _, position in edge_inputs(graph)]

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[object]:
        flat = graph.flat_inputs(args, kwargs)
        return [flat[position] for position in positions]

    return read

"""Strategy *instead*: the sampled call itself runs on taps."""

import time
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any, final

from calidrift_agent._observe._armed import ArmedTree
from calidrift_agent._observe._context import current_context
from calidrift_agent._observe._gate import CallCounter, Gate
from calidrift_agent._observe._intake import Intake, ObservedCall
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._observe._sampling import RENEW, SAMPLED, Sampler
from calidrift_agent._observe._suitable import is_traced
from calidrift_agent._points import Point
from calidrift_agent._taps import (
    Ledger,
    PointTable,
    Recorder,
    ShelfPool,
    copy_rows,
    named_tensors,
    rows_of,
)
from calidrift_agent._vocabulary import Stage


@final
class Instead:
    """Observes calls of an eager module tree.

    A sampled call runs on the live modules, with taps that stand there for its length and look
    at its thread only. So it is the served model itself, whatever happened to it since `watch`
    (`.to()`, `load_state_dict`, adapters, attributes), and whatever its forward does (attribute
    writes, locks, hooks). The output is bit-equal; an exception of the model's passes unchanged.

    A shallow clone of the tree would do, too, but costs more: checking and refreshing it touches
    every module before each call. `make bench` measures the ratio of a sampled call to a plain
    one; the README holds the figures.

    Args:
        gate: The gate in the model.
        points: Points in row order.
        table: Their bounds.
        sampler: Draws decisions and rows.
        ledger: Where errors go.
        intake: Where observed calls go.
        keep_inputs: Copy the inputs of observed calls (for captures).
    """

    def __init__(
        self,
        gate: Gate,
        points: Sequence[Point],
        table: PointTable,
        sampler: Sampler,
        ledger: Ledger,
        intake: Intake,
        *,
        keep_inputs: bool = False,
    ) -> None:
        self._gate = gate
        self._points = points
        self._table = table
        self._sampler = sampler
        self._ledger = ledger
        self._intake = intake
        self._keep_inputs = keep_inputs
        self._clips = table.has_clips
        self._shelves = ShelfPool()
        self._tree: ArmedTree | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything that belongs to running calls, as the child of a fork must."""
        if self._tree is not None:
            self._tree.forget_calls()
        self.sampled = CallCounter()
        self._tree = None

    def verify(self) -> None:
        """Look whether modules were replaced since the taps were made; called by the drain.

        Off the request, because it touches every module. Until then a new module runs as any
        other, only unobserved.
        """
        tree = self._tree
        if tree is not None and not tree.plan.is_current():
            self._tree = None

    def observe(self, decision: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a call for which the gate has a decision; see `Gate`."""
        started = perf_counter_ns()
        call: ObservedCall | None = None
        tree = self._tree
        try:
            if decision & RENEW:
                self._gate.decisions = self._sampler.draw()
            if decision & SAMPLED:
                if tree is None:
                    tree = self._tree = ArmedTree(
                        TreePlan(self._gate.model, self._points), self._gate
                    )
                if not tree.observing:
                    call = self._begin(args, kwargs)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        if call is None or tree is None or call.ranges is None:
            return self._gate.original(*args, **kwargs)
        recorder = call.ranges
        before = perf_counter_ns()
        try:
            output = tree.run(recorder, args, kwargs)
        except BaseException:
            recorder.release()
            raise
        after = perf_counter_ns()
        try:
            recorder.finish()
            call.forward_ns = after - before - recorder.own_ns
            call.size += recorder.size
            call.own_ns = recorder.own_ns + before - started + perf_counter_ns() - after
            self._intake.put(call)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        return output

    def _begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ObservedCall | None:
        if is_traced():
            return None
        next(self.sampled.calls)
        rows = rows_of(args, kwargs)
        if rows == 0 or not self._intake.has_room():
            return None
        recorder = Recorder(self._table, self._ledger, self._shelves, rows=rows)
        call = ObservedCall(
            rows=rows,
            unit=self._sampler.row(rows),
            context=current_context(),
            time_ns=time.time_ns(),
            ranges=recorder,
            clips=recorder if self._clips else None,
        )
        if self._keep_inputs:
            # Before the forward: the model may write to its inputs.
            call.args, call.kwargs = copy_rows(args, kwargs, rows, slice(None))
            call.copied = rows
            tensors = named_tensors(call.args, call.kwargs).values()
            call.size = sum(tensor.nbytes for tensor in tensors)
        return call

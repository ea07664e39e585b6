"""Strategy *instead*: the sampled call itself runs on taps."""

import time
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any, Final, final

from calidrift_agent._observe._armed import ArmedTree
from calidrift_agent._observe._beside import Beside
from calidrift_agent._observe._compare import copy_row
from calidrift_agent._observe._context import current_context
from calidrift_agent._observe._decider import Decider
from calidrift_agent._observe._frames import came_from_compiled
from calidrift_agent._observe._gate import CallCounter, Gate
from calidrift_agent._observe._intake import NOTHING, Intake, Keep, ObservedCall
from calidrift_agent._observe._plan import TreePlan
from calidrift_agent._observe._steps import Request, choose_unit
from calidrift_agent._observe._suitable import (
    EMPTY,
    TRACED,
    UNCOPIED,
    is_taken_apart,
    is_traced,
    why_uncopied,
    why_unsuitable,
)
from calidrift_agent._observe._twin import is_compiled
from calidrift_agent._points import ForwardSignature, Frame, Point
from calidrift_agent._taps import (
    Ledger,
    PointTable,
    Recorder,
    ShelfPool,
    copy_rows,
    named_tensors,
    rows_of,
)
from calidrift_agent._vocabulary import DropReason, Instrument, Stage

COMPILED_LATER: Final = (
    "calls came from compiled code: the model or a part of it was compiled apart from what is "
    "watched, and since then one row of each sampled call is replayed beside it; watch() on the "
    "compiled model does so from the start"
)
"""Remark about a model that was compiled after `watch`, or whose wrapper is not what is watched."""
COMPILED_UNSEEN: Final = (
    "calls came from compiled code, and none was observed from then on: the model was compiled "
    "after watch(); close this watch and call watch() on the compiled model"
)
"""The same about a model that cannot be replayed."""


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
        decider: Decides which calls are observed, and draws rows.
        ledger: Where errors go.
        intake: Where observed calls go.
        keep: What is copied of observed calls.

    Attributes:
        remarks: Sentences for the report, about inputs that came.
        compiled: Observes calls that come from compiled code: the model was compiled after it was
            watched. Taps there would be compiled with it. None where there is no way.
    """

    def __init__(
        self,
        gate: Gate,
        points: Sequence[Point],
        table: PointTable,
        decider: Decider,
        ledger: Ledger,
        intake: Intake,
        *,
        keep: Keep = NOTHING,
    ) -> None:
        self._gate = gate
        self._points = points
        self._table = table
        self._decider = decider
        self._signature = ForwardSignature.of(gate.owner)
        self._ledger = ledger
        self._intake = intake
        self._keep = keep
        self._ranged = table.served is Instrument.RANGE
        self._clips = table.has_clips
        self._shelves = ShelfPool()
        self.remarks: dict[str, None] = {}
        self.compiled: Beside | None = None
        self._is_compiled = False
        self._tree: ArmedTree | None = None
        self.reset()

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size + (0 if self.compiled is None else self.compiled.copy_bytes)

    def reset(self) -> None:
        """Forget everything that belongs to running calls, as the child of a fork must."""
        if self._tree is not None:
            self._tree.forget_calls()
        self.sampled = CallCounter()
        self._tree = None

    def verify(self) -> None:
        """Look whether modules were changed since the taps were made; called by the drain.

        Off the request, because it touches every module: one that changed its class, say. Those
        that were replaced or moved are noticed by the next sampled call; here they are let go.
        """
        tree = self._tree
        if tree is not None and not tree.plan.is_current():
            self._tree = None
        if self.compiled is not None:
            self.compiled.verify()

    def observe(self, decision: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a call for which the gate has a decision; see `Gate`."""
        try:
            chosen = self._decider.observes(decision)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
            chosen = False
        return self.run(args, kwargs) if chosen else self._gate.original(*args, **kwargs)

    def run(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Request | None = None
    ) -> Any:
        """Run a call that is to be observed; see `Observer`."""
        if self._is_compiled or came_from_compiled():
            return self._run_compiled(args, kwargs, request)
        started = perf_counter_ns()
        call: ObservedCall | None = None
        tree = self._tree
        try:
            # A layer that was moved would be counted under the name that it had.
            if tree is None or not tree.plan.is_placed():
                self._is_compiled = any(map(is_compiled, self._gate.owner.modules()))
                tree = self._tree = ArmedTree(TreePlan(self._gate.owner, self._points), self._gate)
            if tree.plan.is_compiled():
                self._is_compiled = True
            if not (self._is_compiled or tree.observing):
                call = self._begin(args, kwargs, request)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        if self._is_compiled:  # parts of it, by themselves
            return self._run_compiled(args, kwargs, request)
        recorder = None if call is None else call.ranges or call.clips
        if call is None or tree is None or recorder is None:
            return self._gate.original(*args, **kwargs)
        before = perf_counter_ns()
        try:
            output = tree.run(recorder, args, kwargs)
        except BaseException:
            recorder.release()
            raise
        after = perf_counter_ns()
        try:
            recorder.finish()
            if self._keep.output:
                call.output = copy_row(output, call.rows, call.unit)
            call.forward_ns = after - before - recorder.own_ns
            call.size += recorder.size
            call.own_ns = recorder.own_ns + before - started + perf_counter_ns() - after
            self._intake.put(call)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        return output

    def _run_compiled(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Request | None
    ) -> Any:
        """Run a call of a model that was compiled meanwhile.

        Of eager calls, too, from now on: compiled code that another thread runs at the same time
        would be compiled again because of taps.
        """
        self._is_compiled = True
        beside = self.compiled
        self.remarks[COMPILED_LATER if beside is not None else COMPILED_UNSEEN] = None
        if beside is None:
            next(self.sampled.calls)
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return self._gate.original(*args, **kwargs)
        beside.sampled, beside.remarks = self.sampled, self.remarks
        return beside.run(args, kwargs, request)

    def _begin(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Request | None
    ) -> ObservedCall | None:
        traced = is_traced()
        if traced and is_taken_apart():
            return None
        step = request is not None and request.observed
        if not step:
            next(self.sampled.calls)
        unsuitable = TRACED if traced else why_unsuitable(args, kwargs)
        if unsuitable:
            self.remarks[unsuitable] = None
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return None
        rows = rows_of(args, kwargs)
        if rows == 0:
            self.remarks[EMPTY] = None
            return None
        if not self._intake.has_room():
            return None
        frame = Frame.of(args, kwargs, rows, self._signature)
        if frame.remark:
            self.remarks[frame.remark] = None
        unit = choose_unit(frame, self._decider.row, request)
        if unit is None:
            return None
        recorder = Recorder(self._table, self._ledger, self._shelves, rows=rows, frame=frame)
        recorder.unit = unit
        call = ObservedCall(
            rows=rows,
            unit=unit,
            context=current_context(),
            time_ns=time.time_ns(),
            ranges=recorder if self._ranged else None,
            clips=recorder if self._clips else None,
            frame=None if frame.is_plain else frame,
            request=request,
            step=step,
        )
        if not step and (self._keep.inputs or self._keep.batch):
            self._copy(call, args, kwargs)
        return call

    def _copy(self, call: ObservedCall, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Copy the inputs of a call, before the forward: the model may write to them."""
        # A step cannot be replayed without its cache, and a cache is not kept.
        args, kwargs = self._signature.without_cache(args, kwargs)
        if why_uncopied(args, kwargs):  # the layers are observed all the same
            self.remarks[UNCOPIED] = None
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return
        rows = call.rows
        whole = self._keep.takes_whole(args, kwargs, rows)
        chosen = slice(None) if whole else slice(call.unit, call.unit + 1)
        call.args, call.kwargs = copy_rows(args, kwargs, rows, chosen)
        call.copied = rows if whole else 1
        tensors = named_tensors(call.args, call.kwargs).values()
        call.size = sum(tensor.nbytes for tensor in tensors)

"""Strategy *beside*: the host's call is untouched; a copy of one of its rows is replayed."""

import time
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any, Protocol, final

import torch

from calidrift_agent._observe._autocast import autocast_state
from calidrift_agent._observe._compare import copy_row
from calidrift_agent._observe._context import current_context
from calidrift_agent._observe._decider import Decider
from calidrift_agent._observe._gate import CallCounter, Gate
from calidrift_agent._observe._intake import NOTHING, Intake, Keep, ObservedCall
from calidrift_agent._observe._shadow import Shadow
from calidrift_agent._observe._steps import Request, choose_unit
from calidrift_agent._observe._suitable import (
    EMPTY,
    NO_TENSORS,
    TRACED,
    is_taken_apart,
    is_traced,
    why_uncopied,
    why_unsuitable,
)
from calidrift_agent._points import ForwardSignature, Frame, cached_length
from calidrift_agent._taps import Ledger, copy_rows, named_tensors, rows_of
from calidrift_agent._vocabulary import DropReason, Stage


class CallReader(Protocol):
    """Reads calls of something whose inputs and outputs are no torch tensors."""

    def inputs(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """Return the inputs as tensors, over the same memory; None where they cannot be."""

    def output(self, value: Any) -> Any:
        """Return the output with tensors in it."""


@final
class Beside:
    """Copies one row of a sampled call for a shadow pass, and lets the host's forward run.

    Args:
        gate: The gate in the model.
        shadow: Replays the copies, in the drain.
        decider: Decides which calls are observed, and draws rows.
        ledger: Where errors go.
        intake: Where copied calls go; its limit is the length of the shadow's queue.
        keep: What is copied beside the inputs.
        reader: Reads inputs and outputs that are no tensors; None where they are.
    """

    def __init__(
        self,
        gate: Gate,
        shadow: Shadow,
        decider: Decider,
        ledger: Ledger,
        intake: Intake,
        *,
        keep: Keep = NOTHING,
        reader: CallReader | None = None,
    ) -> None:
        self._gate = gate
        self._shadow = shadow
        self._decider = decider
        self._signature = ForwardSignature.of(gate.owner)
        self._ledger = ledger
        self._intake = intake
        self._keep = keep
        # Sentences for the report, about inputs that came.
        self.remarks: dict[str, None] = {}
        self._reader = reader
        self.reset()

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shadow.copy_bytes

    @property
    def weight_bytes(self) -> int:
        """Memory that the shadow keeps for weights of the model that it dequantized."""
        return int(getattr(self._shadow, "weight_bytes", 0))

    def reset(self) -> None:
        """Count from zero, as the child of a fork must."""
        self.sampled = CallCounter()

    def verify(self) -> None:
        """Let the shadow look after what it keeps of the model; called by the drain."""
        verify = getattr(self._shadow, "verify", None)
        if verify is not None:
            verify()

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
        started = perf_counter_ns()
        call: ObservedCall | None = None
        try:
            call = self._begin(args, kwargs, request)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        before = perf_counter_ns()
        output = self._gate.original(*args, **kwargs)
        if call is None:
            return output
        after = perf_counter_ns()
        try:
            if self._keep.output:
                given = output if self._reader is None else self._reader.output(output)
                call.output = copy_row(given, call.rows, call.unit)
            call.forward_ns = after - before
            call.own_ns = before - started + perf_counter_ns() - after
            self._intake.put(call)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        return output

    def _begin(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Request | None
    ) -> ObservedCall | None:
        traced = is_traced()
        if traced and is_taken_apart():
            return None
        if request is None or not request.observed:
            next(self.sampled.calls)
        read = self._read(args, kwargs, traced=traced)
        if read is None:
            return None
        args, kwargs = read
        rows = rows_of(args, kwargs)
        if rows == 0:
            self.remarks[EMPTY] = None
            return None
        frame = Frame.of(args, kwargs, rows, self._signature)
        if self._is_stateful(args, kwargs):
            self._ledger.dropped(DropReason.STATEFUL_CALL)
            return None
        if self._signature.cache_of(args, kwargs) is not None:
            # Nothing is in it yet: the pass does without, and leaves the host's alone.
            args, kwargs = self._signature.without_cache(args, kwargs)
        if not self._intake.has_room():
            return None
        if frame.remark:
            self.remarks[frame.remark] = None
        unit = choose_unit(frame, self._decider.row, request)
        if unit is None:
            return None
        call = ObservedCall(
            rows=rows,
            unit=unit,
            context=current_context(),
            time_ns=time.time_ns(),
            frame=None if frame.is_plain else frame,
            request=request,
            autocast=autocast_state(),
        )
        asked = self._keep.whole
        whole = self._shadow.wants_whole(args, kwargs, rows) or (
            asked is not None and asked(args, kwargs, rows)
        )
        rows_to_copy = slice(None) if whole else _row(call)
        call.args, call.kwargs = copy_rows(args, kwargs, rows, rows_to_copy)
        call.copied = rows if whole else 1
        tensors = named_tensors(call.args, call.kwargs)
        if not tensors:
            self.remarks[NO_TENSORS] = None
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return None
        call.size = sum(tensor.nbytes for tensor in tensors.values())
        return call

    def _read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, traced: bool
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """Return the inputs as tensors; None, and one drop more, where they cannot be observed."""
        read, unsuitable = None, TRACED
        if not traced:
            read = (args, kwargs) if self._reader is None else self._reader.inputs(args, kwargs)
            unsuitable = "" if read is None else why_unsuitable(*read) or why_uncopied(*read)
        if unsuitable:
            self.remarks[unsuitable] = None
        if read is None or unsuitable:
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return None
        return read

    def _is_stateful(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a second run would change the host's state: a filled cache, or a generator."""
        cache = self._signature.cache_of(args, kwargs)
        if cache is not None and cached_length(cache) > 0:
            return True
        return any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))


def _row(call: ObservedCall) -> slice:
    return slice(call.unit, call.unit + 1)

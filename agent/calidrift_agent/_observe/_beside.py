"""Strategy *beside*: the host's call is untouched; a copy of one of its rows is replayed."""

import time
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any, final

from calidrift_agent._observe._context import current_context
from calidrift_agent._observe._gate import CallCounter, Gate
from calidrift_agent._observe._intake import Intake, ObservedCall
from calidrift_agent._observe._sampling import RENEW, SAMPLED, Sampler
from calidrift_agent._observe._shadow import UNKNOWN, WHOLE_BATCH, Shadow
from calidrift_agent._observe._suitable import is_traced
from calidrift_agent._taps import Ledger, copy_rows, named_tensors, rows_of
from calidrift_agent._vocabulary import DropReason, Stage


@final
class Beside:
    """Copies one row of a sampled call for a shadow pass, and lets the host's forward run.

    Args:
        gate: The gate in the model.
        shadow: Replays the copies, in the drain.
        sampler: Draws decisions and rows.
        ledger: Where errors go.
        intake: Where copied calls go; its limit is the length of the shadow's queue.
        keep_output: Copy the row of the output too.
    """

    def __init__(
        self,
        gate: Gate,
        shadow: Shadow,
        sampler: Sampler,
        ledger: Ledger,
        intake: Intake,
        *,
        keep_output: bool = False,
    ) -> None:
        self._gate = gate
        self._shadow = shadow
        self._sampler = sampler
        self._ledger = ledger
        self._intake = intake
        self._keep_output = keep_output
        self.reset()

    def reset(self) -> None:
        """Count from zero, as the child of a fork must."""
        self.sampled = CallCounter()

    def verify(self) -> None:
        """Nothing to look after: a shadow pass looks at the live model each time."""

    def observe(self, decision: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a call for which the gate has a decision; see `Gate`."""
        started = perf_counter_ns()
        call: ObservedCall | None = None
        try:
            if decision & RENEW:
                self._gate.decisions = self._sampler.draw()
            if decision & SAMPLED:
                call = self._begin(args, kwargs)
        except Exception as error:
            self._ledger.failed(Stage.SAMPLE, error)
        before = perf_counter_ns()
        output = self._gate.original(*args, **kwargs)
        if call is None:
            return output
        after = perf_counter_ns()
        try:
            if self._keep_output:
                (call.output,), _ = copy_rows((output,), {}, call.rows, _row(call))
            call.forward_ns = after - before
            call.own_ns = before - started + perf_counter_ns() - after
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
        call = ObservedCall(
            rows=rows,
            unit=self._sampler.row(rows),
            context=current_context(),
            time_ns=time.time_ns(),
        )
        whole = self._shadow.batch in (UNKNOWN, WHOLE_BATCH)
        rows_to_copy = slice(None) if whole else _row(call)
        call.args, call.kwargs = copy_rows(args, kwargs, rows, rows_to_copy)
        call.copied = rows if whole else 1
        tensors = named_tensors(call.args, call.kwargs)
        if not tensors:
            self._ledger.dropped(DropReason.UNSUITABLE_INPUT)
            return None
        call.size = sum(tensor.nbytes for tensor in tensors.values())
        return call


def _row(call: ObservedCall) -> slice:
    return slice(call.unit, call.unit + 1)

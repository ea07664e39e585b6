"""One observed call becomes counts in the open window."""

from collections import Counter
from time import perf_counter_ns
from typing import Final, final

from calidrift_agent._observe import ObservedCall, ReferenceModel, Shadow, one_row
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import (
    CallFacts,
    Folder,
    Ledger,
    PointTable,
    Recorder,
    ShelfPool,
)
from calidrift_agent._vocabulary import RequestColumn, Stage
from calidrift_agent._watch._allowed import AllowedInputs
from calidrift_agent._watch._budget import Cost
from calidrift_agent._watch._captures import CaptureDesk
from calidrift_agent._watch._storage import Storage
from calidrift_agent._watch._units import UnitBook

_BILLION: Final = 10**9


@final
class Tally:
    """Counts calls, and what they cost; used under the engine's lock.

    Args:
        table: Points and bounds.
        ledger: Errors and drops.
        storage: Where captures go.
        allowed: Which inputs captures may hold; None for all of them.

    Attributes:
        shadow: Makes the readings of copied calls; None for strategy *instead*.
        reference: Compares served outputs with those of a reference model; None for none.
        calls: Calls since the last `take_cost`.
        unread: Sampled calls in which no point fired, so far; they are not observed.
        passed: Kind of tensors that cannot be observed to the sampled calls in which some came.
        unexplained: Unread calls in which none of these came.
    """

    def __init__(
        self,
        table: PointTable,
        ledger: Ledger,
        storage: Storage,
        allowed: AllowedInputs | None = None,
    ) -> None:
        self._ledger = ledger
        self._storage = storage
        self._table = table
        self._shelves = ShelfPool()
        self._folder = Folder(table)
        self._units = UnitBook(self._folder, len(table))
        self._captures = CaptureDesk(len(table), ledger, allowed)
        self.shadow: Shadow | None = None
        self.reference: ReferenceModel | None = None
        self.reset()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report, about calls that came."""
        replays = () if self.shadow is None else self.shadow.remarks
        return *replays, *self._captures.remarks

    @property
    def copy_bytes(self) -> int:
        """See `CopyKeeper`."""
        return self._shelves.size

    def reset(self) -> None:
        """Forget units and costs, as the child of a fork must."""
        self._units.reset()
        self._calls = self._own_ns = self._forward_ns = self._dearest_ns = 0
        self.unread = self.unexplained = 0
        self.passed: Counter[str] = Counter()

    def take_cost(self) -> Cost:
        """Return what the calls counted since the last time took."""
        if self._calls == 0:
            return Cost(0, 0, 0)  # what steps took is a part of the price of requests
        cost = Cost(self._calls, self._own_ns, self._forward_ns, self._dearest_ns)
        self._calls = self._own_ns = self._forward_ns = self._dearest_ns = 0
        return cost

    def count(self, call: ObservedCall, buffer: WindowBuffer, ratio: float) -> None:
        """Count one call; never raises: an error costs this call and nothing else.

        Args:
            call: The call.
            buffer: The open window.
            ratio: Probability with which the call was observed.
        """
        started = perf_counter_ns()
        stage = Stage.SHADOW
        try:
            if call.ranges is None and self.shadow is not None:
                self.shadow.run(call)
            self._observe_reference(call)
            stage = Stage.DRAIN
            self._fold(call, buffer, ratio)
        except KeyboardInterrupt:  # of the host, where it asks for a report
            raise
        except BaseException as error:  # also a `sys.exit` of what is replayed
            self._ledger.failed(stage, error)
        finally:
            for recorder in (call.ranges, call.clips):
                if recorder is not None:
                    recorder.release()
        self._calls += not call.step
        own_ns = call.own_ns + perf_counter_ns() - started
        self._own_ns += own_ns
        self._dearest_ns = max(self._dearest_ns, own_ns)
        self._forward_ns += call.forward_ns
        buffer.requests[RequestColumn.OVERHEAD_NS] += call.own_ns

    def _fold(self, call: ObservedCall, buffer: WindowBuffer, ratio: float) -> None:
        recorders = [one for one in (call.ranges, call.clips) if one is not None]
        if not recorders:
            return
        fired = [one.harvest.fired or bool(one.codes) for one in recorders]  # each is measured here
        read = any(fired)
        # A request of which a point could not be read must not be called covered.
        whole = not any(one.failed for one in recorders)
        facts = CallFacts(
            rows=call.real_rows,
            unit=call.unit if self._is_unit(call, good=whole and read) else None,
            segment=call.context.segment,
        )
        found = None
        if call.ranges is not None:
            found = self._folder.fold_ranges(call.ranges, facts, buffer)
        if call.clips is not None:
            if call.clips is not call.ranges:
                ranged = () if found is None else found.points.tolist()
                self._folder.fold_presence(call.clips, call.clips.rows, ranged, buffer)
            self._folder.fold_clips(call.clips, buffer)
        begun = self._units.add(call, found, whole=whole and read)
        if not call.step:
            buffer.requests[RequestColumn.OBSERVED] += read
            self.unread += not read
            passed = {one.passed for one in recorders} - {""}
            self.passed.update(passed)
            self.unexplained += not read and not passed
        if whole:
            self._ledger.succeeded()
        if begun or facts.unit is not None:
            self._compare(call, buffer)
        writer = self._storage.captures
        if writer is None or found is None:
            return
        try:
            self._captures.offer(call, found, ratio / call.inclusion_rows, writer)
        except Exception as error:
            self._ledger.failed(Stage.CAPTURE, error)

    def settle(self, buffer: WindowBuffer, *, everything: bool = False) -> None:
        """Count the units that took several calls and have ended; all with `everything`."""
        self._forward_ns += self._units.settle(buffer, everything=everything)

    def _is_unit(self, call: ObservedCall, *, good: bool) -> bool:
        """Whether a call is a unit of inference by itself."""
        return good and call.request is None and self._units.is_unit(call.context)

    def _observe_reference(self, call: ObservedCall) -> None:
        """Measure the ranges of one row on the reference, where the served model shows none."""
        if call.ranges is not None or self.reference is None or not self.reference.observes:
            return
        frame = call.frame
        if frame is not None and frame.rows > 1:
            frame = call.frame = frame.row(call.unit)
        one_row(call)
        call.ranges = Recorder(self._table, self._ledger, self._shelves, rows=1, frame=frame)
        self.reference.compare(call, self._ledger, call.ranges)
        call.ranges.finish()

    def _compare(self, call: ObservedCall, buffer: WindowBuffer) -> None:
        """Add how far the served output of a unit is from that of the reference."""
        if self.reference is not None and call.comparison is None:
            self.reference.compare(call, self._ledger)
        found, requests = call.comparison, buffer.requests
        if found is None:
            return
        requests[RequestColumn.COMPARED] += 1
        requests[RequestColumn.NOISE_PPB] += round(found.noise * _BILLION)
        requests[RequestColumn.DISTANCE_PPB] += round(found.distance * _BILLION)
        if found.agreed is not None:
            requests[RequestColumn.RANKED] += 1
            requests[RequestColumn.AGREED] += found.agreed

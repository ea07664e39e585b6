"""One observed call becomes counts in the open window."""

from collections import OrderedDict
from time import perf_counter_ns
from typing import Final, final

from calidrift_agent._observe import ObservedCall, Shadow
from calidrift_agent._state import WindowBuffer
from calidrift_agent._taps import CallFacts, Folder, Ledger, PointTable
from calidrift_agent._vocabulary import RequestColumn, Stage
from calidrift_agent._watch._captures import CaptureDesk
from calidrift_agent._watch._storage import Storage

_SESSIONS: Final = 1 << 16
"""Sessions that are remembered; each is one unit of inference."""


@final
class Tally:
    """Counts calls, and what they cost; used under the engine's lock.

    Args:
        table: Points and bounds.
        ledger: Errors and drops.
        storage: Where captures go.

    Attributes:
        shadow: Makes the readings of copied calls; None for strategy *instead*.
        calls: Calls since the last `take_cost`.
    """

    def __init__(self, table: PointTable, ledger: Ledger, storage: Storage) -> None:
        self._ledger = ledger
        self._storage = storage
        self._folder = Folder(table)
        self._captures = CaptureDesk(len(table), ledger)
        self.shadow: Shadow | None = None
        self.reset()

    def reset(self) -> None:
        """Forget sessions and costs, as the child of a fork must."""
        self._sessions: OrderedDict[int, None] = OrderedDict()
        self._calls = self._own_ns = self._forward_ns = 0

    def take_cost(self) -> tuple[int, int, int]:
        """Return calls, own time and forward time since the last time."""
        cost = (self._calls, self._own_ns, self._forward_ns)
        self._calls = self._own_ns = self._forward_ns = 0
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
            stage = Stage.DRAIN
            self._fold(call, buffer, ratio)
        except Exception as error:
            self._ledger.failed(stage, error)
        finally:
            for recorder in (call.ranges, call.clips):
                if recorder is not None:
                    recorder.release()
        self._calls += 1
        self._own_ns += call.own_ns + perf_counter_ns() - started
        self._forward_ns += call.forward_ns
        buffer.requests[RequestColumn.OVERHEAD_NS] += call.own_ns

    def _fold(self, call: ObservedCall, buffer: WindowBuffer, ratio: float) -> None:
        if call.ranges is None:
            return
        # A request of which a point could not be read must not be called covered.
        whole = not call.ranges.failed
        facts = CallFacts(
            rows=call.rows,
            unit=call.unit if whole and self._is_unit(call.context.session) else None,
            segment=call.context.segment,
        )
        found = self._folder.fold_ranges(call.ranges, facts, buffer)
        if call.clips is not None:
            self._folder.fold_clips(call.clips, buffer)
        buffer.requests[RequestColumn.OBSERVED] += 1
        if not call.ranges.failed:
            self._ledger.succeeded()
        writer = self._storage.captures
        if writer is None or found is None:
            return
        try:
            self._captures.offer(call, found, ratio / call.inclusion_rows, writer)
        except Exception as error:
            self._ledger.failed(Stage.CAPTURE, error)

    def _is_unit(self, session: str | None) -> bool:
        """Whether a call is a unit of inference: the first observed one of its session."""
        if session is None:
            return True
        key = hash(session)
        if key in self._sessions:
            self._sessions.move_to_end(key)
            return False
        self._sessions[key] = None
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return True

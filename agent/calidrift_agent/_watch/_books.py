"""What one process counted of a watch: observed calls become counts, counts become windows."""

import os
import time
from dataclasses import replace
from time import perf_counter_ns
from typing import Final, final

from calidrift_agent._observe import Beside, Instead, Intake, ReferenceModel, Shadow, Steps
from calidrift_agent._state import Window, WindowBuffer, flag_of
from calidrift_agent._taps import CopyKeeper
from calidrift_agent._vocabulary import AgentState, DropReason, RequestColumn, Stage
from calidrift_agent._watch._budget import OVERRUN_WINDOWS, BudgetController, OverrunGuard
from calidrift_agent._watch._parts import Parts
from calidrift_agent._watch._tally import Tally

_ERRORS: Final = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))
_DROPS: Final = slice(RequestColumn.DROP_FIRST, RequestColumn.DROP_FIRST + len(DropReason))


@final
class Books:
    """The counters of one watch in one process; used under the engine's lock.

    Args:
        parts: What the watch is made of.
        intake: Where observed calls wait.

    Attributes:
        meta: Who this process is.
        buffer: The open window; None in a forked child that has opened nothing yet.
        tally: Counts one call.
        observer: Observes calls; None before the watch has started.
        steps: Tells decode steps from requests; None where the model takes no cache.
        finished: The watch was closed: nothing is counted any more.
    """

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._parts = parts
        self._intake = intake
        self._controller = BudgetController(parts.options.budget, parts.sample_rate)
        self._guard = OverrunGuard(parts.options.budget)
        self.meta = parts.meta
        self.tally = Tally(parts.table, parts.ledger, parts.storage, parts.allowed)
        self.observer: Instead | Beside | None = None
        self.steps: Steps | None = None
        self.buffer: WindowBuffer | None = None
        self.finished = False
        self._unpriced = 0

    def begin(
        self,
        observer: Instead | Beside,
        shadow: Shadow | None,
        reference: ReferenceModel | None,
        steps: Steps | None,
    ) -> None:
        """Take in who observes."""
        self.observer, self.steps = observer, steps
        self.tally.shadow, self.tally.reference = shadow, reference

    def renew(self) -> None:
        """Begin anew, as the child of a fork must; opens nothing."""
        self.buffer = None
        self._unpriced = 0
        self.tally.reset()
        self._guard.reset()
        if self.observer is not None:
            self.observer.reset()
        if self.steps is not None:
            self.steps.reset()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences for the report, about inputs that came."""
        found = [] if self.observer is None else list(self.observer.remarks)
        tally = self.tally
        found += tally.remarks
        found += [
            f"{kind} were passed over in {calls} sampled calls: what is observed are dense tensors "
            "of real numbers"
            for kind, calls in tally.passed.items()
        ]
        if tally.unexplained:
            found.append(
                f"no point fired in {tally.unexplained} sampled calls, which do not count as "
                "observed: layers that run after forward has returned (a generator), or that are "
                "made anew at each call, cannot be seen"
            )
        if self._parts.allowed is not None:
            found += self._parts.allowed.remarks()
        return tuple(found)

    @property
    def ratio(self) -> float:
        """Probability with which a call is observed, while the watch is active."""
        return self._controller.ratio

    @property
    def price(self) -> tuple[float, float]:
        """Running means of own and forward time of an observed request, ns; 0: not known yet."""
        return self._controller.mean_own_ns, self._controller.mean_forward_ns

    @property
    def copy_bytes(self) -> int:
        """Memory that is kept for copies of tensors, not in use at this moment."""
        keepers: tuple[CopyKeeper | None, ...] = (self.observer, self.tally)
        return sum(one.copy_bytes for one in keepers if one is not None)

    @property
    def weight_bytes(self) -> int:
        """Memory that is kept for weights that shadow passes dequantized."""
        return self.observer.weight_bytes if isinstance(self.observer, Beside) else 0

    def open(self, *, strict: bool = False) -> WindowBuffer:
        """Return the buffer; in a child of a fork, make buffer and files first.

        Raises:
            ConfigurationError: The state directory cannot be used, and `strict` is set.
        """
        buffer = self.buffer
        if buffer is not None:
            return buffer
        now = time.time_ns()
        options = self._parts.options
        self.meta = replace(self.meta, started_ns=now, pid=os.getpid())
        buffer = WindowBuffer(
            len(self._parts.table), window_seconds=options.window_seconds, now_ns=now
        )
        self.buffer = buffer
        sweeping = options.retention_seconds is not None
        self._parts.storage.open(self.meta, strict=strict, sweeping=sweeping)
        return buffer

    def drain(self, state: AgentState) -> WindowBuffer:
        """Count what waits, and let the controller choose the ratio.

        Args:
            state: Whether the watch is active; the ratio of one that is not stays as it is.
        """
        started = perf_counter_ns()
        buffer = self.open()
        if self.finished:
            return buffer
        # Not more than waited when it began: a busy host must not keep the drain for ever.
        for _ in range(len(self._intake)):
            call = self._intake.take()
            if call is None:
                break
            self.tally.count(call, buffer, self._controller.ratio)
        self.tally.settle(buffer)
        self._balance(buffer, state)
        buffer.requests[RequestColumn.OVERHEAD_NS] += perf_counter_ns() - started
        return buffer

    def close_window(self) -> Window:
        """Close the open window and write it."""
        buffer = self.open()
        window = buffer.close(time.time_ns())
        self._parts.storage.write_closed(window, buffer.cumulative())
        return window

    def why_give_up(self, window: Window) -> str | None:
        """Why to let go after this closed window, where the budget cannot be kept at any ratio."""
        own = int(window.requests[RequestColumn.OVERHEAD_NS])
        forward = int(window.requests[RequestColumn.FORWARD_NS])
        budget = self._parts.options.budget
        if budget is None or not self._guard.over(own, forward, window.end_ns - window.start_ns):
            return None
        return (
            f"its own time was {own / forward:.1%} of the forward time, and far beyond the budget "
            f"of {budget:.1%} in {OVERRUN_WINDOWS} windows in a row"
        )

    def _balance(self, buffer: WindowBuffer, state: AgentState) -> None:
        """Take in the counters of requests, and let the controller choose the ratio."""
        parts, requests = self._parts, buffer.requests
        steps, active = self.steps, state is AgentState.ACTIVE
        seen, further = (parts.gate.take_seen(), 0) if steps is None else steps.take()
        requests[RequestColumn.SEEN] += seen
        requests[RequestColumn.STEPS] += further
        if self.observer is not None:
            requests[RequestColumn.SAMPLED] += self.observer.sampled.take()
            self.observer.verify()
        errors, drops = parts.ledger.take()
        requests[_ERRORS] += errors
        requests[_DROPS] += drops
        before = self._controller.ratio
        ratio = self._controller.update(self.tally.take_cost())
        # Requests that came before the first measurement are priced with it.
        self._unpriced += seen
        if self._controller.mean_forward_ns > 0.0:
            spent = round(self._unpriced * self._controller.mean_forward_ns)
            requests[RequestColumn.FORWARD_NS] += spent
            self._unpriced = 0
        if ratio != before:
            parts.sampler.ratio = ratio
            if active:
                parts.decider.renew()
        buffer.sampling_ratio = ratio if active else 0.0
        buffer.standing = flag_of(state)

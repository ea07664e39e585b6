"""The drain of one watch: observed calls become counts, counts become windows."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._observe import Beside, Gate, Instead, Intake, Sampler, Shadow
from calidrift_agent._state import StateMeta, Window, WindowBuffer, new_process_id
from calidrift_agent._taps import Ledger, PointTable
from calidrift_agent._vocabulary import DropReason, RequestColumn, Stage
from calidrift_agent._watch._budget import BudgetController
from calidrift_agent._watch._options import WatchOptions
from calidrift_agent._watch._storage import Storage
from calidrift_agent._watch._tally import Tally
from calidrift_agent._watch._thread import DrainThread

_PATIENCE_SECONDS: Final = 2.0
"""How long closing waits for a shadow pass that does not end."""
_ERRORS: Final = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))
_DROPS: Final = slice(RequestColumn.DROP_FIRST, RequestColumn.DROP_FIRST + len(DropReason))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What an engine is made of.

    Attributes:
        gate: The gate in the model.
        table: Points and bounds.
        sampler: Draws decisions and rows.
        ledger: Errors and drops.
        meta: Identity of the first process; a forked child gets one of its own.
        storage: Files.
        options: As given to `watch`.
        sample_rate: Upper limit of the sampling ratio.
    """

    gate: Gate
    table: PointTable
    sampler: Sampler
    ledger: Ledger
    meta: StateMeta
    storage: Storage
    options: WatchOptions
    sample_rate: float


@final
class Engine:
    """Counts what was observed, on its own thread or where somebody asks for it.

    Args:
        parts: What it is made of.
        pending: Calls that may wait for the drain.
    """

    def __init__(self, parts: Parts, pending: int) -> None:
        self._parts = parts
        self.intake = Intake(self, parts.ledger.dropped, pending)
        self._observer: Instead | Beside | None = None
        self._tally = Tally(parts.table, parts.ledger, parts.storage)
        self._controller = BudgetController(parts.options.budget, parts.sample_rate)
        self.meta = parts.meta
        self.stopped: str | None = None
        self._closed = self._finished = False
        self._begin()

    def _begin(self) -> None:
        """Everything that a forked child must have anew; opens nothing and starts nothing."""
        self._lock = threading.RLock()
        self._buffer: WindowBuffer | None = None
        self._thread: DrainThread | None = None
        self._unpriced = 0

    def start(self, observer: Instead | Beside, shadow: Shadow | None) -> None:
        """Open the files and let the gate decide. The thread starts with the first sample.

        Raises:
            ConfigurationError: The state directory cannot be used.
        """
        self._observer = observer
        self._tally.shadow = shadow
        with self._lock:
            self._open(strict=True)
        gate = self._parts.gate
        gate.observe = observer.observe
        gate.decisions = self._parts.sampler.draw()
        gate.attach()

    @property
    def ratio(self) -> float:
        """Probability with which a call is observed now; 0 while switched off."""
        return self._controller.ratio if self.stopped is None else 0.0

    def arrived(self, *, crowded: bool) -> None:
        """An observed call waits; from its request thread."""
        thread = self._thread
        if thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = DrainThread(self, self._parts.meta.model)
                thread = self._thread
        if crowded and thread is not None:
            thread.wake()

    def relieve(self) -> bool:
        """Drain in the thread of a request, where the watch must not drop anything."""
        if self._parts.options.budget is not None:
            return False
        self.tick()
        return True

    def wait_seconds(self) -> float:
        """How long the drain may sleep: to the next drain or the end of the window."""
        options = self._parts.options
        now = time.time()
        return min(
            options.drain_seconds, options.window_seconds - now % options.window_seconds + 0.001
        )

    def tick(self) -> None:
        """Count what waits, close the window if it is due, and write; never raises."""
        self._guarded(self._tick)

    def flush(self) -> Window:
        """Count what waits and close the window now; after `close`, return the sum of all."""
        with self._lock:
            buffer = self._drain()
            if self._finished:
                return buffer.total()
            return _close_window(buffer, self._parts.storage)

    def snapshot(self) -> tuple[StateMeta, Window]:
        """Return identity and sum of everything so far; waiting calls are counted first."""
        with self._lock:
            buffer = self._drain()
            return self.meta, buffer.total()

    def recent(self) -> tuple[StateMeta, Window, NDArray[np.float64], float | None]:
        """Return what a scrape needs, at one moment: see `ExportSnapshot` for the fields."""
        with self._lock:
            buffer = self._drain()
            age = self._parts.storage.age_seconds
            return self.meta, buffer.total(), buffer.recent_absmax(time.time_ns()), age

    def stop(self, reason: str) -> None:
        """Let go of the model; what was counted stays readable. From any thread."""
        if self.stopped is None:
            self.stopped = reason
        self._parts.gate.detach()

    def close(self) -> None:
        """Let go of the model, count what waits, close the last window and the files."""
        if self._closed:
            return
        self.stop("the watch was closed")
        self._closed = True
        thread = self._thread
        if thread is not None:
            thread.join()
        if self._buffer is None:
            return  # a forked child that never observed anything
        if self._lock.acquire(timeout=_PATIENCE_SECONDS):
            try:
                self._guarded(self.flush)
                self._finished = True
            finally:
                self._lock.release()
        self._parts.storage.close()

    def after_fork(self) -> None:
        """Begin anew in a child: counts, locks, identity; files and thread come with a sample."""
        parts = self._parts
        self._begin()
        self.intake.reset()
        self._tally.reset()
        parts.ledger.reset()
        parts.gate.reset()
        parts.storage.abandon()
        parts.sampler.reseed(os.getpid())
        if self._observer is not None:
            self._observer.reset()
        if self.stopped is None:
            parts.gate.decisions = parts.sampler.draw()
        self.meta = replace(self.meta, process=new_process_id(), pid=os.getpid())

    def __del__(self) -> None:
        with suppress(Exception):
            self._parts.storage.close()

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            with self._lock:
                action()
        except Exception as error:
            self._parts.ledger.failed(Stage.DRAIN, error)

    def _open(self, *, strict: bool = False) -> WindowBuffer:
        """Return the buffer; in a child of a fork, make buffer and files first."""
        buffer = self._buffer
        if buffer is not None:
            return buffer
        now = time.time_ns()
        self.meta = replace(self.meta, started_ns=now, pid=os.getpid())
        buffer = WindowBuffer(
            len(self._parts.table),
            window_seconds=self._parts.options.window_seconds,
            now_ns=now,
        )
        self._buffer = buffer
        self._parts.storage.open(self.meta, strict=strict)
        return buffer

    def _tick(self) -> None:
        buffer = self._drain()
        started = perf_counter_ns()
        storage = self._parts.storage
        if storage.killed:
            self.stop(f"the kill file {storage.kill_file} is there")
        due = buffer.due(time.time_ns())
        if due:
            _close_window(buffer, self._parts.storage)
        if due or buffer.requests[RequestColumn.SEEN] or buffer.requests[RequestColumn.OBSERVED]:
            storage.write_open(buffer)
            buffer.requests[RequestColumn.OVERHEAD_NS] += perf_counter_ns() - started

    def _drain(self) -> WindowBuffer:
        started = perf_counter_ns()
        buffer = self._open()
        if self._finished:
            return buffer
        # Not more than waited when it began: a busy host must not keep the drain for ever.
        for _ in range(len(self.intake)):
            call = self.intake.take()
            if call is None:
                break
            self._tally.count(call, buffer, self._controller.ratio)
        self._balance(buffer)
        buffer.requests[RequestColumn.OVERHEAD_NS] += perf_counter_ns() - started
        return buffer

    def _balance(self, buffer: WindowBuffer) -> None:
        """Take in the counters of requests, and let the controller choose the ratio."""
        parts, requests = self._parts, buffer.requests
        seen = parts.gate.take_seen()
        requests[RequestColumn.SEEN] += seen
        if self._observer is not None:
            requests[RequestColumn.SAMPLED] += self._observer.sampled.take()
            self._observer.verify()
        errors, drops = parts.ledger.take()
        requests[_ERRORS] += errors
        requests[_DROPS] += drops
        before = self._controller.ratio
        ratio = self._controller.update(*self._tally.take_cost())
        # Requests that came before the first measurement are priced with it.
        self._unpriced += seen
        if self._controller.mean_forward_ns > 0.0:
            spent = round(self._unpriced * self._controller.mean_forward_ns)
            requests[RequestColumn.FORWARD_NS] += spent
            self._unpriced = 0
        if ratio != before:
            parts.sampler.ratio = ratio
            if self.stopped is None:
                parts.gate.decisions = parts.sampler.draw()
        buffer.sampling_ratio = self.ratio


def _close_window(buffer: WindowBuffer, storage: Storage) -> Window:
    window = buffer.close(time.time_ns())
    storage.write_closed(window, buffer.cumulative())
    return window

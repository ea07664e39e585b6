"""The drain of one watch: observed calls become counts, counts become windows."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from time import perf_counter_ns
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from calidrift_agent._observe import (
    Beside,
    Instead,
    Intake,
    ReferenceModel,
    Shadow,
    Steps,
)
from calidrift_agent._state import StateMeta, Window, flag_of, new_process_id
from calidrift_agent._vocabulary import AgentState, DropReason, RequestColumn, Stage
from calidrift_agent._watch._books import Books
from calidrift_agent._watch._living import close_with_the_child
from calidrift_agent._watch._parts import Parts
from calidrift_agent._watch._taken_in import TakenIn
from calidrift_agent._watch._thread import DrainThread

_PATIENCE_SECONDS: Final = 2.0
"""How long closing waits for a shadow pass that does not end."""
_ERRORS: Final = slice(RequestColumn.ERROR_FIRST, RequestColumn.ERROR_FIRST + len(Stage))
_logger = logging.getLogger("calidrift_agent")
_DROPS: Final = slice(RequestColumn.DROP_FIRST, RequestColumn.DROP_FIRST + len(DropReason))


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
        self.books = Books(parts, self.intake)
        self.stopped: str | None = None
        self.state = AgentState.ACTIVE
        self.taken_in = TakenIn(parts.ledger, lambda: self.arrived(crowded=True))
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Everything that a forked child must have anew; opens nothing and starts nothing."""
        self._lock = threading.RLock()
        self._starter = threading.Lock()
        self._thread: DrainThread | None = None

    def start(
        self,
        observer: Instead | Beside,
        shadow: Shadow | None,
        reference: ReferenceModel | None = None,
        steps: Steps | None = None,
    ) -> None:
        """Open the files and let the gate decide. The thread starts with the first call.

        Raises:
            ConfigurationError: The state directory cannot be used.
        """
        self.books.begin(observer, shadow, reference, steps)
        with self._lock:
            self.books.open(strict=True)
        gate = self._parts.gate
        gate.observe = self._first_call
        gate.traced = self.taken_in
        self._parts.decider.start()
        gate.attach()

    def _first_call(self, decision: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The first call of a process, sampled or not: with it the thread starts.

        Otherwise requests would not be in a file before the first sampled one, and be lost where
        the process is killed before.
        """
        observer, gate = self.books.steps or self.books.observer, self._parts.gate
        if observer is None:
            return gate.original(*args, **kwargs)
        try:
            if self.stopped is None:
                gate.observe = observer.observe
            close_with_the_child()
            self.arrived(crowded=False)
        except Exception as error:
            self._parts.ledger.failed(Stage.SAMPLE, error)
        return observer.observe(decision, args, kwargs)

    @property
    def ratio(self) -> float:
        """Probability with which a call is observed now; 0 while switched off."""
        return self.books.ratio if self.stopped is None else 0.0

    def arrived(self, *, crowded: bool) -> None:
        """An observed call waits; from its request thread.

        Raises:
            StrictModeError: The drain failed since the last time, in strict mode only.
        """
        thread = self._thread
        if thread is None:
            thread = self._start_thread()
        if crowded and thread is not None:
            thread.wake()
        self._parts.ledger.raise_pending()

    def _start_thread(self) -> DrainThread | None:
        """Start the thread unless it is being started, by another thread or below this frame.

        The second happens where a signal handler calls the model: a lock that lets its own thread
        in again would let it start a second one here.
        """
        starter = self._starter
        if self._closed or not starter.acquire(blocking=False):
            return self._thread
        try:
            thread = self._thread = DrainThread(self, self._parts.meta.model)
        except BaseException:
            starter.release()
            raise
        if self._closed:
            thread.end()
        return thread

    def prepare(self) -> None:
        """Open what a forked child has not opened yet; in the thread, before it sleeps."""
        self._guarded(self.books.open)

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
            buffer = self.books.drain(self.state)
            if self.books.finished:
                return buffer.total()
            self.books.tally.settle(buffer, everything=True)
            window = self.books.close_window()
        self._parts.ledger.raise_pending()
        return window

    def snapshot(self) -> tuple[StateMeta, Window]:
        """Return identity and sum of everything so far; waiting calls are counted first."""
        with self._lock:
            buffer = self.books.drain(self.state)
            return self.books.meta, buffer.total()

    def recent(self) -> tuple[StateMeta, Window, NDArray[np.float64], float | None]:
        """Return what a scrape needs, at one moment: see `ExportSnapshot` for the fields."""
        with self._lock:
            buffer = self.books.drain(self.state)
            age = self._parts.storage.age_seconds
            return self.books.meta, buffer.total(), buffer.recent_absmax(time.time_ns()), age

    def stop(self, state: AgentState, reason: str) -> None:
        """Let go of the model; what was counted stays readable. From any thread.

        Args:
            state: What is reported from now on; the first reason stays.
            reason: The same as a sentence.
        """
        if self.stopped is None:
            self.stopped, self.state = reason, state
        self._parts.decider.stop()
        self._parts.gate.detach()

    def close(self) -> None:
        """Let go of the model, count what waits, close the last window and the files."""
        if self._closed:
            return
        self.stop(AgentState.CLOSED, "the watch was closed")
        self._closed = True
        thread = self._thread
        if thread is not None:
            thread.join()
        if self.books.buffer is None:
            return  # a forked child that never observed anything
        try:
            if self._lock.acquire(timeout=_PATIENCE_SECONDS):
                try:
                    self._guarded(self.flush)
                    self.books.finished = True
                finally:
                    self._lock.release()
        finally:
            self._parts.storage.close()

    def after_fork(self) -> None:
        """Begin anew in a child: counts, locks, identity; files and thread come with a sample."""
        parts = self._parts
        self._begin()
        self.intake.reset()
        self.books.renew()
        parts.ledger.reset()
        parts.gate.reset()
        parts.storage.abandon()
        parts.sampler.reseed(os.getpid())
        parts.decider.reset()
        if self.stopped is None:
            parts.gate.observe = self._first_call
            parts.decider.start()
        self.books.meta = replace(self.books.meta, process=new_process_id(), pid=os.getpid())

    def __del__(self) -> None:
        with suppress(Exception):
            self._parts.storage.close()

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            with self._lock:
                action()
        except Exception as error:
            self._parts.ledger.failed(Stage.DRAIN, error)

    def _tick(self) -> None:
        self.taken_in.say()
        buffer = self.books.drain(self.state)
        started = perf_counter_ns()
        storage = self._parts.storage
        if storage.killed:
            self.stop(AgentState.KILLED, f"the kill file {storage.kill_file} is there")
            buffer.standing = flag_of(self.state)
        storage.tidy()
        due = buffer.due(time.time_ns())
        if due:
            reason = self.books.why_give_up(self.books.close_window())
            if reason is not None and self.stopped is None:
                self.stop(AgentState.BUDGET, reason)
                with suppress(Exception):
                    _logger.warning(
                        "calidrift: %s is not watched any more: %s", self.books.meta.model, reason
                    )
            storage.sweep(self._parts.options.retention_seconds)
        if due or buffer.requests[RequestColumn.SEEN] or buffer.requests[RequestColumn.OBSERVED]:
            storage.write_open(buffer)
            buffer.requests[RequestColumn.OVERHEAD_NS] += perf_counter_ns() - started

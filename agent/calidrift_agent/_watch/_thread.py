"""The one thread of a watch."""

import threading
import weakref
from contextlib import suppress
from typing import Final, Protocol, final

_JOIN_SECONDS: Final = 2.0


class Drained(Protocol):
    """What the thread works for."""

    def prepare(self) -> None:
        """Do what must be done before the first sleep; never raises."""

    def wait_seconds(self) -> float:
        """How long the next sleep may be."""

    def tick(self) -> None:
        """Do what is to be done; never raises."""


@final
class DrainThread:
    """Calls `tick` of an engine now and then, until it is told to end or the engine is gone.

    A daemon, so that it never keeps a process alive.

    Args:
        engine: Only a weak reference is kept.
        model: Name of the watched model, for the name of the thread.
    """

    def __init__(self, engine: Drained, model: str) -> None:
        self._signal = _Signal()
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(engine), self._signal),
            name=f"calidrift-{model}",
            daemon=True,
        )
        self._thread.start()

    def wake(self) -> None:
        """Have it tick now. Safe in a signal handler, whatever it interrupted."""
        self._signal.give()

    def end(self) -> None:
        """Have it end after what it is doing."""
        self._signal.ended = True
        self._signal.give()

    def join(self) -> None:
        """End it, waiting at most 2 s for what it is doing."""
        self.end()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)


@final
class _Signal:
    """Wakes a thread that sleeps.

    `threading.Event` takes a lock in Python code: a signal handler that came in between and called
    the model would wait for itself.
    """

    __slots__ = ("_asleep", "ended")

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self.ended = False

    def give(self) -> None:
        """End the sleep, or the next one."""
        with suppress(RuntimeError):  # given before, and not taken yet
            self._asleep.release()

    def wait(self, seconds: float) -> None:
        """Sleep until it is given."""
        self._asleep.acquire(timeout=seconds)


def _run(reference: "weakref.ref[Drained]", signal: _Signal) -> None:
    engine = reference()
    if engine is not None:
        engine.prepare()
    while engine is not None:
        seconds = engine.wait_seconds()
        del engine
        signal.wait(seconds)
        engine = reference()
        if signal.ended or engine is None:
            return
        engine.tick()

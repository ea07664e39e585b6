"""The one thread of a watch."""

import threading
import weakref
from typing import Final, Protocol, final

_JOIN_SECONDS: Final = 2.0


class Drained(Protocol):
    """What the thread works for."""

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
        self._event = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(engine), self._event, self._end),
            name=f"calidrift-{model}",
            daemon=True,
        )
        self._thread.start()

    def wake(self) -> None:
        """Have it tick now."""
        self._event.set()

    def join(self) -> None:
        """End it, waiting at most 2 s for what it is doing."""
        self._end.set()
        self._event.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)


def _run(reference: "weakref.ref[Drained]", event: threading.Event, end: threading.Event) -> None:
    while True:
        engine = reference()
        if engine is None:
            return
        seconds = engine.wait_seconds()
        del engine
        event.wait(seconds)
        event.clear()
        if end.is_set():
            return
        engine = reference()
        if engine is None:
            return
        engine.tick()
        del engine

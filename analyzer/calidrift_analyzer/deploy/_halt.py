"""Ending what runs on another thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

__all__ = ["Halt"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """How one thing is ended: when it is asked to, and when it is forced to."""

    asked: Callable[[], None]
    forced: Callable[[], None]


@final
class Halt:
    """A switch that is turned once, and ends what is under way; turned further, it forces it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[_Ends] = []
        self._stopped = False
        self._forced = False

    @property
    def stopped(self) -> bool:
        """Whether it was turned."""
        return self._stopped

    def stop(self) -> None:
        """Turn it; a second call does nothing."""
        with self._lock:
            ends = [] if self._stopped else list(self._ends)
            self._stopped = True
        for one in ends:
            one.asked()

    def force(self) -> None:
        """Turn it as far as it goes."""
        self.stop()
        with self._lock:
            self._forced = True
            ends = list(self._ends)
        for one in ends:
            one.forced()

    @contextmanager
    def ending(
        self, end: Callable[[], None], force: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Have something ended where the switch is turned inside the block, or was.

        Args:
            end: Asks it to end.
            force: Ends it, whatever it does; `end` where left out.
        """
        one = _Ends(end, force or end)
        with self._lock:
            stopped, forced = self._stopped, self._forced
            self._ends.append(one)
        try:
            if stopped:
                one.asked()
            if forced:
                one.forced()
            yield
        finally:
            with self._lock:
                self._ends.remove(one)

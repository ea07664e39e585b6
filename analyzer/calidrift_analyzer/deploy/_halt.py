"""Ending what runs on another thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

__all__ = ["Halt"]


@final
class Halt:
    """A switch that is turned once, and ends what is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether it was turned."""
        return self._stopped

    def stop(self) -> None:
        """Turn it; a second call does nothing."""
        with self._lock:
            self._stopped = True
            ends, self._ends = self._ends, []
        for end in ends:
            end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have something ended by `end` where the switch is turned inside the block, or was."""
        with self._lock:
            stopped = self._stopped
            if not stopped:
                self._ends.append(end)
        if stopped:
            end()
        try:
            yield
        finally:
            with self._lock:
                if end in self._ends:
                    self._ends.remove(end)

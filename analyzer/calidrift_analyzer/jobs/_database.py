"""How a job reaches the store, whoever owns it."""

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar, final

from calidrift_analyzer.store import Store

__all__ = ["Database", "DirectDatabase"]

_T = TypeVar("_T")


class Database(Protocol):
    """Runs work on the one thread that may use the store."""

    def run(self, work: Callable[[Store], _T]) -> _T:
        """Run some work on the store and give what it gave.

        Raises:
            StoreError: The store cannot be used now.
        """
        ...


@final
class DirectDatabase:
    """A store that this process uses alone; for commands and tests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()

    def run(self, work: Callable[[Store], _T]) -> _T:
        """Run the work here, one at a time."""
        with self._lock:
            return work(self._store)

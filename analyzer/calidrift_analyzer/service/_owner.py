"""The one thread that uses the database; everybody else hands work to it."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, final

from calidrift_analyzer.errors import StoreError, StoreUnavailableError
from calidrift_analyzer.store import Store, while_busy

__all__ = ["StoreOwner"]

_T = TypeVar("_T")
_REOPEN_SECONDS: Final = 1.0
_MOST_WAITING: Final = 1_000
_ASK_SECONDS: Final = 10.0
_RUN_SECONDS: Final = 600.0
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class _Task:
    work: Callable[[Store], Any]
    answer: "Future[Any]"


@final
class StoreOwner:
    """Owns the database on a thread of its own: DuckDB has one process and one thread here.

    Where the database is lost (a full disk takes DuckDB down) it is opened again, as long as that
    takes; whoever asks meanwhile is told to come back.

    Args:
        path: The database file.
        open: Opens it; for tests.
        patience: For how many seconds to wait at first for another process that holds it.

    Raises:
        StoreBusyError: Another process holds it.
        StoreError: It cannot be used.
    """

    def __init__(
        self,
        path: Path,
        open: Callable[[Path], Store] = Store.open,
        *,
        patience: float = 0.0,
    ) -> None:
        self._path = path
        self._open = open
        self._patience = patience
        self._tasks: queue.Queue[_Task | None] = queue.Queue(_MOST_WAITING)
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._available = False
        self._thread = threading.Thread(target=self._serve, name="calidrift-store", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    @property
    def available(self) -> bool:
        """Whether the database is open now."""
        return self._available

    def close(self) -> None:
        """Close the database; what is still waiting is told that the service ends."""
        if not self._closed.is_set():
            self._closed.set()
            with suppress(queue.Full):  # it looks at the flag after each task anyway
                self._tasks.put_nowait(None)
        self._thread.join()

    def submit(self, work: Callable[[Store], _T]) -> "Future[_T]":
        """Hand over some work.

        Returns:
            What to wait for.

        Raises:
            StoreUnavailableError: The database is being opened again, too much waits already, or
                the service ends.
        """
        if self._closed.is_set():
            raise StoreUnavailableError("the service ends; ask again when it runs")
        if not self._available:
            raise StoreUnavailableError(
                f"the database {self._path} is being opened again; ask again in a moment"
            )
        answer: Future[_T] = Future()
        try:
            self._tasks.put_nowait(_Task(work, answer))
        except queue.Full:
            raise StoreUnavailableError(
                f"{_MOST_WAITING} requests wait for the database already; ask again in a moment"
            ) from None
        return answer

    def run(self, work: Callable[[Store], _T]) -> _T:
        """Run some work and wait for it; not for the event loop.

        Raises:
            StoreUnavailableError: See `submit`.
            StoreError: The database failed.
        """
        try:
            return self.submit(work).result(_RUN_SECONDS)
        except FutureTimeoutError:
            raise _overdue(_RUN_SECONDS) from None

    async def ask(self, work: Callable[[Store], _T]) -> _T:
        """Run some work and wait for it on the event loop.

        Raises:
            StoreUnavailableError: See `submit`; or it did not come to its turn in time.
            StoreError: The database failed.
        """
        answer = self.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), _ASK_SECONDS)
        except TimeoutError:
            raise _overdue(_ASK_SECONDS) from None

    def _serve(self) -> None:
        try:
            store = while_busy(lambda: self._open(self._path), self._patience)
        except BaseException as error:
            self._failure = error
            self._ready.set()
            return
        self._available = True
        self._ready.set()
        while not self._closed.is_set():
            task = self._tasks.get()
            if task is None:
                break
            if not task.answer.set_running_or_notify_cancel():
                continue
            lost = self._run_one(task, store)
            if lost and not _usable(store):
                replaced = self._reopen(store)
                if replaced is None:
                    break
                store = replaced
        self._available = False
        self._refuse_waiting("the service ends; ask again when it runs")
        store.close()

    def _run_one(self, task: _Task, store: Store) -> bool:
        """Do some work; True where the database may have been lost on the way."""
        try:
            result = task.work(store)
        except BaseException as error:
            with suppress(InvalidStateError):
                task.answer.set_exception(error)
            return isinstance(error, StoreError)
        with suppress(InvalidStateError):
            task.answer.set_result(result)
        return False

    def _reopen(self, lost: Store) -> Store | None:
        """Open the database again, however long that takes; None where the service ends."""
        self._available = False
        self._refuse_waiting(f"the database {self._path} is being opened again; ask again")
        with suppress(Exception):
            lost.close()
        while not self._closed.is_set():
            try:
                store = self._open(self._path)
            except StoreError as error:
                _log.warning("the database is not there yet: %s", error)
                self._closed.wait(_REOPEN_SECONDS)
                continue
            self._available = True
            _log.warning("the database %s was opened again", self._path)
            return store
        return None

    def _refuse_waiting(self, sentence: str) -> None:
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            if task is not None and task.answer.set_running_or_notify_cancel():
                task.answer.set_exception(StoreUnavailableError(sentence))


def _usable(store: Store) -> bool:
    try:
        store.next_batch()
    except StoreError:
        return False
    return True


def _overdue(seconds: float) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the database did not answer within {seconds:g} seconds; ask again in a moment"
    )

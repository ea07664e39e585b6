"""Windows into the database: the key that makes ingest exactly once, one transaction a process."""

import time
from collections.abc import Sequence
from typing import final

from calidrift_agent._state import NO_WINDOW, StateMeta, Window
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._rows import WindowRows, point_rows
from calidrift_analyzer.store._sql import query

__all__ = ["Writer"]

_Key = tuple[str, str, str]


@final
class Writer:
    """Stores windows of processes, and remembers how far each of them is.

    What it remembers is what this process, the only one that holds the database, has committed. It
    is forgotten whenever the database was reopened, and before anything is tried that can fail; the
    primary key of the table refuses a double in any case.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened = connection.opened
        self._known: dict[_Key, tuple[int, int]] = {}
        self._batches: set[int] = set()

    def forget(self) -> None:
        """Look everything up again: something else wrote windows."""
        self._known.clear()
        self._batches.clear()

    def last_number(self, meta: StateMeta) -> int:
        """Give the number of the last stored window of a process; `NO_WINDOW` without one."""
        found = self._find(meta)
        return NO_WINDOW if found is None else found[1]

    def is_known(self, meta: StateMeta) -> bool:
        """Whether the process was ever stored."""
        return self._find(meta) is not None

    def write(self, meta: StateMeta, windows: Sequence[Window], batch: int) -> None:
        """Store the windows that are newer than the last stored one, in one transaction.

        Args:
            meta: The process; stored with its points where it is new.
            windows: Windows in the order of their numbers.
            batch: Number of the collect run.
        """
        found = self._find(meta)
        last = NO_WINDOW if found is None else found[1]
        fresh = [window for window in windows if window.number > last]
        if found is not None and not fresh:
            return
        arrived = batch in self._batches
        self._known.pop(_key(meta), None)
        self._batches.discard(batch)
        with self._connection.transaction():
            process_id = _add_process(self._connection, meta) if found is None else found[0]
            if fresh:
                if not arrived:
                    now = {"batch": batch, "now": time.time_ns()}
                    self._connection.rows(query("batch_add"), now)
                rows = WindowRows(process_id, batch)
                for window in fresh:
                    rows.add(window)
                for name, table in rows.tables().items():
                    self._connection.insert(name, table)
        self._known[_key(meta)] = (process_id, fresh[-1].number if fresh else last)
        if fresh:
            self._batches.add(batch)

    def _find(self, meta: StateMeta) -> tuple[int, int] | None:
        """Give the key and the last number of a process; `None` where it was never stored."""
        if self._connection.opened != self._opened:
            self.forget()
            self._opened = self._connection.opened
        key = _key(meta)
        if key not in self._known:
            process_id = _find_process(self._connection, meta)
            if process_id is None:
                return None
            last = self._connection.rows(query("last_number"), {"process_id": process_id})[0][0]
            self._known[key] = (process_id, int(last))
        return self._known[key]


def _key(meta: StateMeta) -> _Key:
    return meta.process, meta.model, meta.profile


def _find_process(connection: Connection, meta: StateMeta) -> int | None:
    rows = connection.rows(
        query("process_find"),
        {"process": meta.process, "model": meta.model, "profile": meta.profile},
    )
    return int(rows[0][0]) if rows else None


def _add_process(connection: Connection, meta: StateMeta) -> int:
    connection.rows(
        query("process_add"),
        {
            "process": meta.process,
            "model": meta.model,
            "profile": meta.profile,
            "boot": meta.boot,
            "pid": meta.pid,
            "started": meta.started_ns,
            "instrument": meta.instrument.value,
            "strategy": meta.strategy.value,
            "agent_version": meta.agent_version,
            "window_seconds": meta.window_seconds,
        },
    )
    process_id = _find_process(connection, meta)
    if process_id is None:
        raise StoreError(f"process {meta.process} was added but is not there; check the disk")
    connection.insert("process_points", point_rows(process_id, meta))
    return process_id

"""Windows into the database: the key that makes ingest exactly once, one transaction a process."""

import time
from collections.abc import Sequence

from calidrift_agent._state import StateMeta, Window
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._rows import WindowRows, point_rows
from calidrift_analyzer.store._sql import query

__all__ = ["find_process", "last_number", "write_windows"]


def find_process(connection: Connection, meta: StateMeta) -> int | None:
    """Give the key of a process; `None` where it was never stored."""
    rows = connection.rows(
        query("process_find"),
        {"process": meta.process, "model": meta.model, "profile": meta.profile},
    )
    return int(rows[0][0]) if rows else None


def last_number(connection: Connection, process_id: int) -> int:
    """Give the number of the last stored window of a process, -1 without one."""
    return int(connection.rows(query("last_number"), {"process_id": process_id})[0][0])


def write_windows(
    connection: Connection, meta: StateMeta, windows: Sequence[Window], batch: int
) -> None:
    """Store the windows that are newer than the last stored one, in one transaction.

    Args:
        connection: The open database.
        meta: The process; stored with its points where it is new.
        windows: Windows in the order of their numbers.
        batch: Number of the collect run.
    """
    with connection.transaction():
        process_id = find_process(connection, meta)
        if process_id is None:
            process_id = _add_process(connection, meta)
        last = last_number(connection, process_id)
        fresh = [window for window in windows if window.number > last]
        if not fresh:
            return
        connection.rows(query("batch_add"), {"batch": batch, "now": time.time_ns()})
        rows = WindowRows(process_id, batch)
        for window in fresh:
            rows.add(window)
        for name, table in rows.tables().items():
            connection.insert(name, table)


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
    process_id = find_process(connection, meta)
    if process_id is None:
        raise StoreError(f"process {meta.process} was added but is not there; check the disk")
    connection.insert("process_points", point_rows(process_id, meta))
    return process_id

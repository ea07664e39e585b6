"""Another archive beside this one in the same instance of DuckDB, to be read and left as it is."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import calidrift_agent
from calidrift_analyzer.errors import StoreError, StoreVersionError
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import migrations

__all__ = ["INCOMING", "incoming"]

INCOMING: Final = "incoming_archive"
"""Name under which queries find the other archive."""

_SUFFIX: Final = ".merging"


@contextmanager
def incoming(connection: Connection, other: Path) -> Iterator[None]:
    """Attach another archive, read only, with the schema of this version.

    One of an older version is copied beside this database and migrated there; the copy goes
    afterwards.

    Args:
        connection: The open database.
        other: File of the other archive.

    Raises:
        StoreBusyError: Another process holds it; the message names its pid.
        StoreVersionError: A newer version wrote it.
        StoreError: It is not an archive, it is this database, or it cannot be read.
    """
    if not other.is_file():
        raise StoreError(f"there is no archive {other}; give the path of a database of calidrift")
    if other.samefile(connection.path):
        raise StoreError(f"{other} is this database itself; give the path of another archive")
    copy = connection.path.with_name(connection.path.name + _SUFFIX)
    _forget(copy)
    connection.attach(other, INCOMING)
    try:
        if not _is_current(connection, other):
            connection.copy_database(INCOMING, copy)
            connection.detach(INCOMING)
            Connection(copy).close()
            connection.attach(copy, INCOMING)
        yield
    finally:
        with suppress(StoreError):  # a dead instance has let go of it already
            connection.detach(INCOMING)
        _forget(copy)


def _is_current(connection: Connection, other: Path) -> bool:
    tables = f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{INCOMING}'"
    if ("schema_migrations",) not in connection.rows(tables):
        raise StoreError(
            f"{other} is no archive of calidrift; it was left as it was: give the path of a "
            "database that calidrift wrote"
        )
    ledger = f"SELECT number, name, written_by FROM {INCOMING}.schema_migrations ORDER BY number"
    applied = {int(row[0]): row[1:] for row in connection.rows(ledger)}
    newest = migrations()[-1].number
    if max(applied, default=0) > newest:
        name, writer = applied[max(applied)]
        raise StoreVersionError(
            f"the archive {other} was written by calidrift {writer} (schema {max(applied)}, "
            f"{name!r}); this is calidrift {calidrift_agent.__version__}, which knows schemas up "
            f"to {newest}: upgrade calidrift, or name another archive"
        )
    return {step.number for step in migrations()} <= set(applied)


def _forget(copy: Path) -> None:
    copy.unlink(missing_ok=True)
    copy.with_name(copy.name + ".wal").unlink(missing_ok=True)

"""Gives the disk what deleted rows took: a copy of what is left, put in place of the file.

DuckDB reuses freed blocks but hardly ever shortens a file (RAN on 1.5.6 and 2.0: deleting 95 % of
the rows and CHECKPOINT left 48 MB; the copy took 3 MB). The copy is put in place while the old file
is still locked: another process that opens the path afterwards finds the whole new one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import query

__all__ = ["compact", "is_worth_it"]

FREE_SHARE: Final = 0.25
"""A file is written anew when at least this share of its blocks is free,"""
FREE_BYTES: Final = 4 << 20
"""and these are at least so many bytes, or the file is larger than it may be."""

_SUFFIX: Final = ".compacting"


def is_worth_it(connection: Connection, max_bytes: int | None) -> bool:
    """Whether enough blocks of the file hold nothing, after a checkpoint.

    Args:
        connection: The open database.
        max_bytes: What the file may take; `None` for no limit.
    """
    connection.rows("CHECKPOINT")
    free, total = (int(size) for size in connection.rows(query("database_size"))[0])
    over = max_bytes is not None and connection.path.stat().st_size > max_bytes
    return total > 0 and free >= FREE_SHARE * total and (over or free >= FREE_BYTES)


def compact(connection: Connection, replace: Callable[[Path, Path], None] = os.replace) -> None:
    """Write the database anew and continue on the new file.

    A kill at any moment leaves the old file or the new one, both whole. Needs as much free disk as
    the new file takes.

    Args:
        connection: The open database; it continues on the new file.
        replace: Puts the new file in the place of the old one; for tests.

    Raises:
        StoreError: There is no room for the copy, or the new file cannot be put in place; the old
            one stays as it was.
        StoreBusyError: Another process took the database in the moment between the two files;
            nothing is lost.
    """
    path = connection.path
    copy = path.with_name(path.name + _SUFFIX)
    _forget(copy)
    try:
        connection.copy_to(copy)
        replace(copy, path)
    except OSError as error:
        _forget(copy)
        raise StoreError(
            f"the smaller copy {copy} cannot take the place of {path} ({error.strerror}); the "
            "database stays as it was: check that its folder can be written"
        ) from error
    except BaseException:
        _forget(copy)
        raise
    _settle(path.parent)
    connection.reopen()


def _forget(copy: Path) -> None:
    copy.unlink(missing_ok=True)
    copy.with_name(copy.name + ".wal").unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Make the new name durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

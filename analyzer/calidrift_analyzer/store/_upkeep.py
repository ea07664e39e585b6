"""What an operator does to the database as a whole: check, compact, merge."""

from pathlib import Path
from typing import final

from calidrift_analyzer.store._checking import CheckReport, check
from calidrift_analyzer.store._compaction import compact
from calidrift_analyzer.store._connection import Connection, StoreLostError
from calidrift_analyzer.store._merging import MergeReport, merge_archive
from calidrift_analyzer.store._writing import Writer

__all__ = ["Upkeep"]


@final
class Upkeep:
    """Care for the database as a whole; reached as `Store.upkeep`."""

    def __init__(self, connection: Connection, writer: Writer) -> None:
        self._connection = connection
        self._writer = writer

    def check(self) -> CheckReport:
        """Hold the database against its rules and ledgers; nothing is changed.

        Raises:
            StoreError: A part of the file cannot be read at all.
        """
        return check(self._connection)

    def compact(self) -> tuple[int, int]:
        """Write the file anew, without what deleted rows took; needs free disk of its new size.

        Returns:
            Size before and after, in bytes.

        Raises:
            StoreError: There is no room for the copy; the database stays as it was.
        """
        self._connection.rows("CHECKPOINT")
        before = self._connection.path.stat().st_size
        compact(self._connection)
        return before, self._connection.path.stat().st_size

    def merge(self, other: Path) -> MergeReport:
        """Take over what another archive has and this one has not, each window exactly once.

        Merging again, in any order, or both ways, doubles nothing and loses nothing, whatever
        either has rolled up. The other archive is only read. May be killed at any moment.

        Args:
            other: File of the other archive.

        Returns:
            What was new.

        Raises:
            StoreBusyError: Another process holds the other archive.
            StoreVersionError: A newer version wrote it.
            StoreError: It cannot be read, or this database failed; repeat the call.

        Cost: as an ingest of what is new.
        """
        self._writer.forget()
        try:
            return merge_archive(self._connection, other)
        except StoreLostError:
            return merge_archive(self._connection, other)

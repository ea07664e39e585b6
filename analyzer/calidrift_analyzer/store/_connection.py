"""The one connection to the DuckDB file: opening, errors by name, transactions, reopening.

DuckDB lets one process hold a file; a second one gets `StoreBusyError` with the holder's pid.
After a fatal error (a full disk during a checkpoint) the whole instance is dead although the commit
may be durable: the connection is closed and reopened, and the caller checks what is there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

import duckdb
import pyarrow as pa

from calidrift_analyzer.errors import StoreBusyError, StoreError, StoreVersionError
from calidrift_analyzer.store._migrations import migrate

__all__ = ["Connection", "StoreLostError"]

_SETTINGS: Final[dict[str, str]] = {
    # A file made by DuckDB 2 with its own default cannot be read by 1.5, which is supported too.
    "storage_compatibility_version": "v1.5.0",
    # Nothing is ever fetched from the network behind the operator's back.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
# DuckDB has one exception class for all of these; only its text tells them apart.
_LOCKED: Final = re.compile(r"Could not set lock on file")
_HOLDER: Final = re.compile(r"\(PID (\d+)\)")
_MAGIC: Final = b"DUCK"
"""Bytes 8 to 11 of every DuckDB file."""
_CUT: Final = re.compile(r"Could not read enough bytes|[Cc]hecksum")
_REFUSED: Final = re.compile(r"Cannot open file|Permission denied|[Rr]ead-only")
_STORAGE: Final = re.compile(r"version number (\d+)")


@final
class StoreLostError(StoreError):
    """A commit or DuckDB itself failed; the database is open again, the commit may be there."""


@final
class Connection:
    """One open database file with the schema of this version. For one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inner = _connect(path)
        self.opened = 1
        """How often it was opened; what was remembered before the last time may not be there."""
        try:
            self.migrated = migrate(self._inner, str(path))
        except duckdb.Error as error:
            self._inner.close()
            reason = str(error).splitlines()[0]
            if _CUT.search(reason):
                raise _named(error, path) from error
            raise StoreError(
                f"the database {path} cannot be brought to the schema of this version ({reason}); "
                "it was left as it was: check free space and permissions, or name a new database"
            ) from error
        except BaseException:
            self._inner.close()
            raise

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        self._inner.close()

    def copy_to(self, target: Path) -> None:
        """Write everything into a new file, in the storage format of this version.

        Raises:
            StoreError: There is no room, or the file exists.
        """
        self.rows("CHECKPOINT")
        self.copy_database(self.name, target)

    def copy_database(self, name: str, target: Path) -> None:
        """Write an attached database into a new file, in the storage format of this version.

        Raises:
            StoreError: There is no room, or the file exists.
        """
        storage = _SETTINGS["storage_compatibility_version"]
        self.rows(f"ATTACH {_quoted(str(target))} AS compacted (STORAGE_VERSION '{storage}')")
        try:
            self.rows(f"COPY FROM DATABASE {_identifier(name)} TO compacted")
        finally:
            with suppress(StoreError):  # a dead instance has let go of it already
                self.detach("compacted")

    @property
    def name(self) -> str:
        """What the database is called in statements."""
        return str(self.rows("SELECT current_database()")[0][0])

    def attach(self, path: Path, name: str) -> None:
        """Make another database readable under a name.

        Raises:
            StoreBusyError: Another process holds it.
            StoreVersionError: A newer DuckDB wrote it.
            StoreError: It cannot be opened.
        """
        try:
            self._inner.execute(f"ATTACH {_quoted(str(path))} AS {name} (READ_ONLY)")
        except duckdb.Error as error:
            raise _named(error, path) from error

    def detach(self, name: str) -> None:
        """Let go of an attached database."""
        self.rows(f"DETACH {name}")

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Read from an attached database: inside, names without a database are its own."""
        own = self.name
        self.rows(f"USE {name}")
        try:
            yield
        finally:
            with suppress(StoreError):  # a fresh instance uses its own database anyway
                self.rows(f"USE {_identifier(own)}")

    def reopen(self) -> None:
        """Close the database and open what lies under its path now."""
        self._inner.close()
        self.opened += 1
        self._inner = _connect(self._path)

    def rows(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement and fetch everything; for small results."""
        with self._guard():
            return self._inner.execute(sql, parameters).fetchall()

    def table(self, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
        """Run one query and fetch it as an Arrow table; for large results."""
        with self._guard():
            return self._inner.sql(sql, params=dict(parameters)).to_arrow_table()

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append an Arrow table whose column names are columns of `table`."""
        if not rows.num_rows:
            return
        columns = ", ".join(rows.column_names)
        with self._guard():
            self._inner.register("incoming", rows)
            try:
                self._inner.execute(f"INSERT INTO {table} ({columns}) SELECT * FROM incoming")
            finally:
                with suppress(duckdb.Error):  # a dead instance cannot unregister either
                    self._inner.unregister("incoming")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing.

        Raises:
            StoreLostError: DuckDB died on the way. Whether the commit is durable must be looked up.
        """
        self.rows("BEGIN TRANSACTION")
        try:
            yield
            self._commit()
        except StoreLostError:
            raise
        except BaseException:
            with suppress(StoreError):  # a failed COMMIT has rolled back already
                self.rows("ROLLBACK")
            raise

    def _commit(self) -> None:
        """Commit; where that fails go on with a fresh instance.

        A commit that could not be written to the log (full disk) leaves keys of its rows in the
        memory of DuckDB, and a checkpoint at closing would write them: later commits then lose
        rows or are refused as doubled (RAN on 1.5.6 and 2.0, RLIMIT_FSIZE). So it is thrown away.
        """
        try:
            self.rows("COMMIT")
        except StoreLostError:
            raise
        except StoreError as error:
            with suppress(StoreError):
                self.rows("PRAGMA disable_checkpoint_on_shutdown")
            self.reopen()
            raise StoreLostError(str(error)) from error

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.FatalException, duckdb.InternalException) as error:
            reason = str(error).splitlines()[0]
            self.reopen()
            raise StoreLostError(
                f"the database {self._path} failed ({reason}); it was reopened: free some disk "
                "space and repeat the command, nothing is counted twice"
            ) from error
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"the database {self._path} refused a step ({reason}); nothing of it was stored: "
                "check free space and permissions, then repeat the command"
            ) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), config=dict(_SETTINGS))
    except duckdb.Error as error:
        raise _named(error, path) from error


def _named(error: duckdb.Error, path: Path) -> StoreError:
    text = str(error).splitlines()[0]
    if _LOCKED.search(text):
        holder = _HOLDER.search(text)
        who = f"process {holder.group(1)}" if holder else "another process"
        return StoreBusyError(
            f"the database {path} is held by {who}; one analyzer at a time can use it: wait until "
            "it has finished, stop it, or name another database"
        )
    storage = _STORAGE.search(text)
    if storage:
        return StoreVersionError(
            f"the database {path} has storage version {storage.group(1)}, which DuckDB "
            f"{duckdb.__version__} cannot read; install the DuckDB that wrote it, or name another "
            "database"
        )
    damaged = _damaged(text, path)
    if damaged is not None:
        return damaged
    return StoreError(
        f"the database {path} cannot be opened ({text}); give the path of a DuckDB file, or of a "
        "new file in a folder that can be written"
    )


def _damaged(text: str, path: Path) -> StoreError | None:
    """What to do with a file that DuckDB wrote and cannot read; `None` where it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return None
    if head[8:] != _MAGIC or _REFUSED.search(text):
        return None
    return StoreError(
        f"the database {path} is damaged or was cut ({text}); nothing was changed: keep a copy, "
        "then merge an archive that is whole into a new database (calidrift store merge), or go on "
        "with a new one"
    )

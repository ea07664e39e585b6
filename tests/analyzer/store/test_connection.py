import os
import subprocess
import sys
import textwrap

import duckdb
import pytest

import calidrift_agent
from calidrift_analyzer.errors import StoreBusyError, StoreError, StoreVersionError
from calidrift_analyzer.store import Store, _migrations
from calidrift_analyzer.store._columns import COUNT_NAMES, REQUEST_NAMES, VALUE_NAMES
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._sql import Migration, migrations


def table(path, sql):
    connection = duckdb.connect(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


class TestOpen:
    def test_new_file_has_the_current_schema_and_readable_storage(self, store):
        path = store.path
        store.close()
        assert [row[0] for row in table(path, "SELECT number FROM schema_migrations")] == [
            step.number for step in migrations()
        ]
        tags = table(path, "SELECT tags FROM duckdb_databases() WHERE NOT internal")[0][0]
        assert tags["storage_version"].startswith("v1.5.0")

    def test_columns_are_the_vocabulary(self, store):
        path = store.path
        store.close()
        for name, columns in (
            ("windows", REQUEST_NAMES),
            ("point_windows", COUNT_NAMES + VALUE_NAMES),
            ("rollups", REQUEST_NAMES),
            ("rollup_points", COUNT_NAMES + VALUE_NAMES),
            ("recorded", REQUEST_NAMES),
            ("recorded_points", COUNT_NAMES + VALUE_NAMES),
        ):
            found = [row[1] for row in table(path, f"PRAGMA table_info('{name}')")]
            assert sorted(column for column in found if column in columns) == sorted(columns)

    def test_no_time_needs_pytz(self, store):
        path = store.path
        store.close()
        kinds = {row[0] for row in table(path, "SELECT DISTINCT data_type FROM duckdb_columns()")}
        assert "TIMESTAMP_NS" in kinds
        assert "TIMESTAMP WITH TIME ZONE" not in {
            row[0]
            for row in table(path, "SELECT data_type FROM duckdb_columns() WHERE NOT internal")
        }

    def test_reopening_migrates_nothing(self, tmp_path):
        path = tmp_path / "x.duckdb"
        first = Connection(path)
        assert first.migrated == tuple(step.number for step in migrations())
        first.close()
        second = Connection(path)
        assert second.migrated == ()
        second.close()

    def test_migrations_are_numbered_without_gaps(self):
        assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))

    def test_a_newer_database_is_refused_by_name_and_left_alone(self, store):
        path = store.path
        store.close()
        table(
            path,
            "INSERT INTO schema_migrations "
            "VALUES (999, 'from_the_future', '9.9', TIMESTAMP '2040-01-01')",
        )
        before = path.read_bytes()
        with pytest.raises(StoreVersionError, match=r"calidrift 9\.9 .*999.*from_the_future"):
            Store.open(path)
        assert path.read_bytes() == before

    def test_newer_storage_is_refused_by_name(self, tmp_path, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise duckdb.IOException(
                "Trying to read a database file with version number 999, but we can only read "
                "versions between 64 and 68."
            )

        monkeypatch.setattr(duckdb, "connect", refuse)
        with pytest.raises(StoreVersionError, match="storage version 999"):
            Store.open(tmp_path / "x.duckdb")

    def test_a_failing_migration_leaves_nothing(self, tmp_path, monkeypatch):
        good = migrations()[0]
        bad = Migration(2, "bad", "CREATE TABLE half (x INTEGER); SELECT nonsense FROM nowhere;")
        monkeypatch.setattr(_migrations, "migrations", lambda: (good, bad))
        path = tmp_path / "x.duckdb"
        with pytest.raises(StoreError, match="cannot be brought"):
            Store.open(path)
        monkeypatch.undo()
        with Store.open(path):
            pass
        assert table(path, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'half'") == [
            (0,)
        ]
        done = table(path, "SELECT number FROM schema_migrations ORDER BY number")
        assert done == [(step.number,) for step in migrations()]

    def test_second_process_is_told_who_holds_it(self, store):
        code = textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            from calidrift_analyzer.errors import StoreBusyError
            from calidrift_analyzer.store import Store
            try:
                Store.open(Path(sys.argv[1]))
            except StoreBusyError as error:
                print(error)
                sys.exit(7)
            """
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(store.path)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 7, ended.stderr
        assert f"held by process {os.getpid()}" in ended.stdout
        assert "wait" in ended.stdout

    def test_busy_without_a_pid_still_says_so(self, tmp_path, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise duckdb.IOException('IO Error: Could not set lock on file "x": conflicting')

        monkeypatch.setattr(duckdb, "connect", refuse)
        with pytest.raises(StoreBusyError, match="held by another process"):
            Store.open(tmp_path / "x.duckdb")

    def test_a_foreign_file_is_refused(self, tmp_path):
        path = tmp_path / "notes.txt"
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(StoreError, match=r"notes\.txt cannot be opened.*path of a DuckDB file"):
            Store.open(path)

    @pytest.mark.parametrize("kept", [12, 5_000, 20_000, 0.5])
    def test_a_cut_database_is_told_from_a_foreign_file(self, store, kept):
        path = store.path
        store.close()
        whole = path.read_bytes()
        left = whole[: kept if kept > 1 else int(kept * len(whole))]
        path.write_bytes(left)
        with pytest.raises(StoreError, match=r"is damaged or was cut .*keep a copy, then merge"):
            Store.open(path)
        assert path.read_bytes() == left

    def test_a_database_that_may_not_be_opened_is_not_called_damaged(self, store, monkeypatch):
        path = store.path
        store.close()

        def refuse(*_args, **_kwargs):
            raise duckdb.IOException(f'IO Error: Cannot open file "{path}": Permission denied')

        monkeypatch.setattr(duckdb, "connect", refuse)
        with pytest.raises(StoreError, match="cannot be opened"):
            Store.open(path)

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="folder of the database"):
            Store.open(tmp_path / "file" / "x.duckdb")


def test_the_ledger_names_the_writer(store):
    path = store.path
    store.close()
    rows = table(path, "SELECT DISTINCT written_by FROM schema_migrations")
    assert rows == [(calidrift_agent.__version__,)]


def test_the_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "sales.duckdb"
    with duckdb.connect(str(path)) as theirs:
        theirs.execute("CREATE TABLE invoices (number INTEGER)")
    with pytest.raises(StoreError, match=r"belongs to something else .*'invoices'"):
        Store.open(path)
    with duckdb.connect(str(path)) as theirs:
        assert theirs.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [
            ("invoices",)
        ]

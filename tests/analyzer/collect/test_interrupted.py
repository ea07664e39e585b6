"""A collect run that dies anywhere is made up for by the next one."""

import shutil
import subprocess
import sys
import textwrap

import pytest

from calidrift_agent._state import NO_WINDOW
from calidrift_analyzer.collect import collect
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store import Store
from calidrift_analyzer.store._connection import Connection
from calidrift_analyzer.store._writing import Writer


@pytest.fixture
def house(traffic, folder, captures, process):
    """Two processes (one overrun, one dead), a profile and captures."""
    late = process(slots=4).windows(12)
    dead = process().windows(3).open_window().die()
    profile = traffic.profile({"a:input": traffic.rng.normal(size=(40, 8))})
    (folder / "profiles").mkdir()
    profile.save(folder / "profiles" / f"{profile.digest}.json")
    captures(5)
    return late, dead, profile


class InjectedError(Exception):
    pass


@pytest.mark.slow
def test_a_fault_after_any_step_neither_loses_nor_doubles(house, desk, tmp_path, monkeypatch):
    """Every statement that reaches the database is a step; the run dies right behind each."""
    late, dead, profile = house
    rows, insert = Connection.rows, Connection.insert
    empty = tmp_path / "empty.duckdb"
    Store.open(empty).close()
    step, died = 0, True
    while died:
        step += 1
        countdown = [step]

        def tick(countdown=countdown):
            countdown[0] -= 1
            if countdown[0] == 0:
                raise InjectedError

        def dying_rows(self, sql, parameters=(), tick=tick):
            found = rows(self, sql, parameters)
            if not sql.startswith("ROLLBACK"):
                tick()
            return found

        def dying_insert(self, table, incoming, tick=tick):
            insert(self, table, incoming)
            tick()

        desk.database = shutil.copy(empty, tmp_path / f"step{step}.duckdb")
        monkeypatch.setattr(Connection, "rows", dying_rows)
        monkeypatch.setattr(Connection, "insert", dying_insert)
        try:
            desk.run()
            died = False
        except InjectedError:
            died = True
        monkeypatch.undo()
        with Store.open(desk.database) as store:
            collect([desk.folder], store)
            desk.assert_stored(store, late, dead)
            assert store.profile_digests() == (profile.digest,)
            assert len(store.captures()) == 2
    assert step > 20


def test_doubling_would_be_seen(house, desk, monkeypatch):
    """The comparison above can fail: with the key ignored, a second run doubles."""
    late, dead, _ = house
    desk.run()
    find = Writer._find

    def careless(self, meta):
        found = find(self, meta)
        return found and (found[0], NO_WINDOW)

    monkeypatch.setattr(Writer, "_find", careless)
    with pytest.raises(StoreError, match=r"(?i)duplicate|constraint"):
        desk.run()
    monkeypatch.undo()
    desk.assert_complete(late, dead)


KILLED = """
import os, signal, sys
from pathlib import Path
from calidrift_analyzer.collect import collect
from calidrift_analyzer.store import Store
from calidrift_analyzer.store._connection import Connection


def counted(original):
    def call(*arguments):
        global left
        found = original(*arguments)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call


Connection.rows = counted(Connection.rows)
Connection.insert = counted(Connection.insert)
folder, databases = map(Path, sys.argv[1:])
step = 1
while True:
    child = os.fork()
    if child == 0:
        left = step
        with Store.open(databases / f"{step}.duckdb") as store:
            collect([folder], store)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        sys.exit(status)
    step += 3
"""


@pytest.mark.slow
def test_a_kill_between_two_steps_loses_and_doubles_nothing(
    folder, tmp_path, house, desk, unmeasured
):
    late, dead, _ = house
    databases = tmp_path / "databases"
    databases.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(databases)],
        capture_output=True,
        timeout=300,
        env=unmeasured(),
    )
    assert ended.returncode == 0, ended.stderr
    killed = sorted(databases.glob("*.duckdb"))
    assert len(killed) > 6
    for database in killed:
        desk.database = database
        desk.run()
        desk.assert_complete(late, dead)

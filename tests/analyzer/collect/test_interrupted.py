"""A collect run that dies anywhere is made up for by the next one."""

import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from calidrift_analyzer.collect import collect
from calidrift_analyzer.errors import StoreError
from calidrift_analyzer.store import Store, _store, _writing
from calidrift_analyzer.store._connection import Connection


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
    for module in (_store, _writing):
        monkeypatch.setattr(module, "last_number", lambda connection, process_id: -1)
    with pytest.raises(StoreError, match=r"(?i)duplicate|constraint"):
        desk.run()
    monkeypatch.undo()
    desk.assert_complete(late, dead)


KILLED = """
import os, signal, sys
from pathlib import Path
from calidrift_analyzer.collect import collect
from calidrift_analyzer.store import Store, _store, _writing
from calidrift_analyzer.store._connection import Connection

left = int(sys.argv[3])

def counted(original):
    def call(*arguments):
        global left
        found = original(*arguments)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return call

store = Store.open(Path(sys.argv[2]))
Connection.rows = counted(Connection.rows)
Connection.insert = counted(Connection.insert)
collect([Path(sys.argv[1])], store)
store.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 7, 11, 13, 15, 17, 21, 25, 29])
def test_a_kill_between_two_steps_loses_and_doubles_nothing(folder, database, house, desk, step):
    late, dead, _ = house
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(database), str(step)],
        capture_output=True,
        timeout=300,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    desk.run()
    desk.assert_complete(late, dead)

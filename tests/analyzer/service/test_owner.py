"""The one thread of the database: work in order, errors to whom they belong, a way back."""

import asyncio
import threading

import pytest

from calidrift_analyzer.errors import StoreBusyError, StoreError, StoreUnavailableError
from calidrift_analyzer.service import _owner
from calidrift_analyzer.service._owner import StoreOwner
from calidrift_analyzer.store import Store

DEADLINE = 30.0


@pytest.fixture
def owner(tmp_path):
    made = StoreOwner(tmp_path / "calidrift.duckdb")
    yield made
    made.close()


def test_all_work_runs_on_one_thread(owner):
    ran = {owner.run(lambda store: threading.get_ident()) for _ in range(5)}

    assert len(ran) == 1
    assert ran != {threading.get_ident()}


def test_an_error_goes_to_who_asked_and_to_nobody_else(owner):
    with pytest.raises(ZeroDivisionError):
        owner.run(lambda store: 1 // 0)

    assert owner.run(lambda store: store.next_batch()) == 1


def test_many_ask_at_once(owner):
    answers = []

    def ask(number):
        answers.append(owner.run(lambda store: number * store.next_batch()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert sorted(answers) == list(range(20))


def test_on_the_event_loop_it_does_not_block(owner):
    async def both():
        return await asyncio.gather(
            *(owner.ask(lambda store, n=n: store.next_batch() + n) for n in range(3))
        )

    assert asyncio.run(both()) == [1, 2, 3]


def test_who_waits_too_long_is_told_to_come_back(owner, monkeypatch):
    monkeypatch.setattr(_owner, "_ASK_SECONDS", 0.01)
    monkeypatch.setattr(_owner, "_RUN_SECONDS", 0.01)
    goes_on = threading.Event()
    owner.submit(lambda store: goes_on.wait(DEADLINE))

    with pytest.raises(StoreUnavailableError, match="did not answer within"):
        asyncio.run(owner.ask(lambda store: 1))
    with pytest.raises(StoreUnavailableError, match="did not answer within"):
        owner.run(lambda store: 1)
    goes_on.set()


def test_a_crowd_is_told_to_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(_owner, "_MOST_WAITING", 2)
    owner = StoreOwner(tmp_path / "calidrift.duckdb")
    goes_on, begun = threading.Event(), threading.Event()
    owner.submit(lambda store: begun.set() or goes_on.wait(DEADLINE))
    assert begun.wait(DEADLINE)
    owner.submit(lambda store: 1)
    owner.submit(lambda store: 1)

    with pytest.raises(StoreUnavailableError, match="2 requests wait"):
        owner.submit(lambda store: 1)
    goes_on.set()
    owner.close()


def test_a_second_process_is_told_who_holds_the_database(owner):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path\n"
        "from calidrift_analyzer.service._owner import StoreOwner\n"
        "StoreOwner(Path(sys.argv[1]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(owner.path)], capture_output=True, text=True, timeout=120
    )

    assert "StoreBusyError" in ended.stderr
    assert "is held by process" in ended.stderr


def test_what_cannot_be_opened_is_told_at_once(tmp_path):
    (tmp_path / "calidrift.duckdb").write_text("this is a letter to my aunt" * 100)

    with pytest.raises(StoreError, match="cannot be opened"):
        StoreOwner(tmp_path / "calidrift.duckdb")


class Doors:
    """Opens a store; some tries fail, and the first store can be broken."""

    def __init__(self):
        self.opened = []
        self.failures = 0
        self.waiting = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, path):
        if self.failures:
            self.failures -= 1
            self.waiting.set()
            assert self.go_on.wait(DEADLINE)
            raise StoreBusyError("not yet")
        self.opened.append(Store.open(path))
        return self.opened[-1]


def test_a_lost_database_is_opened_again_and_meanwhile_everybody_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_owner, "_REOPEN_SECONDS", 0.001)
    doors = Doors()
    owner = StoreOwner(tmp_path / "calidrift.duckdb", doors)
    assert owner.available
    doors.failures = 2

    def break_it(store):
        store.close()  # as DuckDB after a fatal error: nothing works any more
        return store.next_batch()

    with pytest.raises(StoreError):
        owner.run(break_it)
    assert doors.waiting.wait(DEADLINE)
    assert not owner.available
    with pytest.raises(StoreUnavailableError, match="being opened again"):
        owner.run(lambda store: 1)
    doors.go_on.set()
    waited = threading.Event()
    for _ in range(3_000):
        if owner.available:
            break
        waited.wait(0.01)

    assert owner.run(lambda store: store.next_batch()) == 1
    assert len(doors.opened) == 2
    owner.close()


def test_a_refused_statement_is_no_lost_database(owner):
    def refused(store):
        raise StoreError("a step was refused")

    with pytest.raises(StoreError, match="a step was refused"):
        owner.run(refused)
    assert owner.available
    assert owner.run(lambda store: store.next_batch()) == 1


def test_what_waits_when_the_service_ends_is_told(tmp_path):
    owner = StoreOwner(tmp_path / "calidrift.duckdb")
    begun, goes_on = threading.Event(), threading.Event()
    owner.submit(lambda store: begun.set() or goes_on.wait(DEADLINE))
    assert begun.wait(DEADLINE)
    waiting = owner.submit(lambda store: 1)
    closing = threading.Thread(target=owner.close)
    closing.start()
    until = threading.Event()
    for _ in range(3_000):
        if owner._closed.is_set():
            break
        until.wait(0.01)
    goes_on.set()
    closing.join(DEADLINE)

    with pytest.raises(StoreUnavailableError, match="the service ends"):
        waiting.result(DEADLINE)
    with pytest.raises(StoreUnavailableError, match="the service ends"):
        owner.run(lambda store: 1)
    owner.close()
    with Store.open(tmp_path / "calidrift.duckdb"):
        pass  # others can have it

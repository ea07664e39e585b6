"""Requests are in a file soon after the first one, sampled or not, however the process ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from calidrift_agent._state import scan
from calidrift_agent._vocabulary import RequestColumn
from calidrift_agent._watch import WatchOptions
from calidrift_agent._watch import _engine as engine_module
from calidrift_agent._watch import _living as living_module
from calidrift_agent._watch._thread import DrainThread, _Signal

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SOON = WatchOptions(budget=None, drain_seconds=0.02, window_seconds=3600.0)
LATE = WatchOptions(budget=None, drain_seconds=3600.0, window_seconds=3600.0)


def seen(folder, pid):
    """Requests in the file of a process; None where there is none."""
    for reader in scan(folder):
        with reader:
            if reader.meta.pid == pid:
                return int(reader.total().requests[RequestColumn.SEEN])
    return None


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def serve(net, x, calls):
    with torch.no_grad():
        for _ in range(calls):
            net(x)


@pytest.fixture
def drain_threads():
    """The drain threads that were started since the test began."""
    before = set(threading.enumerate())

    def started():
        found = set(threading.enumerate()) - before
        return [one for one in found if one.name == "calidrift-net"]

    return started


def test_the_first_request_starts_the_thread_though_it_is_not_sampled(
    net, x, watch_all, tmp_path, drain_threads
):
    watch = watch_all(net, state_dir=tmp_path, sample_rate=0.0, options=SOON)
    assert drain_threads() == []
    serve(net, x, 3)
    assert len(drain_threads()) == 1
    assert wait_for(lambda: seen(tmp_path, os.getpid()) == 3)
    assert watch.snapshot()[1].requests[RequestColumn.SAMPLED] == 0


def in_child(work):
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            work()
        finally:
            os._exit(70)
    return child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "end",
    [
        lambda: os._exit(0),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
    ],
    ids=["_exit", "SIGTERM", "SIGKILL"],
)
def test_a_worker_that_ends_without_a_word(net, x, watch_all, tmp_path, end):
    """What came before its last drain is in its file, what came after it is lost: no more."""
    watch_all(net, state_dir=tmp_path, sample_rate=0.0, options=SOON)

    def work():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve(net, x, 5)
        if not wait_for(lambda: seen(tmp_path, os.getpid()) == 5):
            os._exit(71)
        serve(net, x, 3)
        end()

    child, status = in_child(work)
    assert status in (0, -signal.SIGTERM, -signal.SIGKILL)
    assert 5 <= seen(tmp_path, child) <= 8


def test_the_parent_asks_for_no_finalizer(net, x, watch_all, monkeypatch):
    monkeypatch.setattr(living_module, "_finalized", -1)
    made = []
    monkeypatch.setattr(multiprocessing.util, "Finalize", lambda *a, **k: made.append(a))
    watch_all(net)
    serve(net, x, 1)
    assert made == []


CHILDREN = """
import multiprocessing, sys
import torch
from torch import nn
from calidrift_agent import WatchOptions, watch

def serve(folder, calls):
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    options = WatchOptions(budget=None, drain_seconds=3600.0, window_seconds=3600.0)
    watch(model, name="net", sample_rate=0.5, state_dir=folder, options=options)
    for _ in range(calls):
        model(torch.ones(1, 3))

def go_on(model):
    for _ in range(7):
        model(torch.ones(1, 3))

if __name__ == "__main__":
    spawned = multiprocessing.get_context("spawn").Process(target=serve, args=(sys.argv[1], 9))
    spawned.start()
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    watch(model, name="net", sample_rate=0.5, state_dir=sys.argv[1])
    model(torch.ones(1, 3))
    forked = multiprocessing.get_context("fork").Process(target=go_on, args=(model,))
    forked.start()
    for process in (spawned, forked):
        process.join()
        print(process.pid, process.exitcode)
"""


@pytest.mark.slow
def test_children_of_multiprocessing_write_at_their_end(tmp_path):
    """A forked one leaves with os._exit and runs no atexit function."""
    (tmp_path / "main.py").write_text(CHILDREN)
    ended = subprocess.run(
        [sys.executable, tmp_path / "main.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for line, requests in zip(ended.stdout.splitlines(), (9, 7), strict=True):
        pid, status = map(int, line.split())
        assert status == 0
        assert seen(tmp_path, pid) == requests


def test_the_hooks_of_a_fork_start_and_open_and_log_nothing(
    net, x, watch_all, tmp_path, caplog, drain_threads
):
    watch_all(net, state_dir=tmp_path)
    serve(net, x, 1)
    before = set(tmp_path.iterdir())
    own = {path.resolve() for path in tmp_path.glob("*.state")}

    def work():
        opened = set()
        for entry in os.scandir("/proc/self/fd"):
            try:
                opened.add(os.path.realpath(entry.path))
            except OSError:
                continue
        quiet = not {str(path) for path in own} & opened
        quiet = quiet and set(tmp_path.iterdir()) == before
        quiet = quiet and drain_threads() == [] and not caplog.records
        mapped = Path("/proc/self/maps").read_text()
        quiet = quiet and not any(str(path) in mapped for path in own)
        os._exit(0 if quiet else 1)

    assert in_child(work)[1] == 0


def test_a_fork_while_another_thread_starts_the_drain(
    net, x, watch_all, monkeypatch, drain_threads
):
    watch = watch_all(net)
    engine = watch._active.engine
    inside, go_on = threading.Event(), threading.Event()

    class Slow(DrainThread):
        def __init__(self, *args):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                assert go_on.wait(60)
            super().__init__(*args)

    monkeypatch.setattr(engine_module, "DrainThread", Slow)
    first = threading.Thread(target=serve, args=(net, x, 1))
    first.start()
    assert inside.wait(20)

    def work():
        serve(net, x, 1)
        os._exit(0 if engine._thread is not None and len(drain_threads()) == 1 else 1)

    try:
        assert in_child(work)[1] == 0
        serve(net, x, 1)  # nor does another thread of the parent start a second one
        assert drain_threads() == []
    finally:
        go_on.set()
        first.join()
    assert len(drain_threads()) == 1


def test_a_signal_handler_starts_no_second_thread(net, x, watch_all, monkeypatch):
    watch = watch_all(net)
    made = []

    class Interrupted(DrainThread):
        def __init__(self, engine, model):
            made.append(self)
            if len(made) < 5:
                engine.arrived(crowded=True)  # as a handler does that calls the model now
            super().__init__(engine, model)

    monkeypatch.setattr(engine_module, "DrainThread", Interrupted)
    serve(net, x, 2)
    assert len(made) == 1
    assert watch._active.engine._thread is made[0]


def test_a_thread_that_cannot_start_is_tried_again(net, x, watch_all, monkeypatch, drain_threads):
    watch = watch_all(net)

    def full(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "DrainThread", full)
        serve(net, x, 2)
    assert drain_threads() == []
    serve(net, x, 1)
    assert len(drain_threads()) == 1
    assert watch.snapshot()[1].requests[RequestColumn.SEEN] == 3


def test_a_thread_that_starts_while_the_watch_is_closed_ends(
    net, x, watch_all, monkeypatch, drain_threads
):
    watch = watch_all(net)

    class Late(DrainThread):
        def __init__(self, *args):
            watch.close()
            super().__init__(*args)

    monkeypatch.setattr(engine_module, "DrainThread", Late)
    serve(net, x, 1)
    assert wait_for(lambda: drain_threads() == [])


def test_waking_while_waking():
    """`threading.Event.set` would wait for itself in a handler that interrupts it."""
    signal_ = _Signal()
    lock = signal_._asleep

    class Interrupting:
        depth = 0

        def acquire(self, **options):
            return lock.acquire(**options)

        def release(self):
            self.depth += 1
            if self.depth < 4:
                signal_.give()
            lock.release()

    signal_._asleep = Interrupting()
    signal_.give()
    signal_.wait(10.0)
    assert lock.locked()
    signal_.wait(0.0)  # several wakings are one
    signal_.give()
    signal_.wait(10.0)

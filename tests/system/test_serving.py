"""The demo service behind real servers, loaded, with workers killed: the counts add up."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from calidrift_agent._state import StateDirectory, SweepOptions, sweep
from calidrift_agent._vocabulary import RequestColumn

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def serving():
    """The module that starts servers and load."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("serving")
    sys.path.remove(str(BENCHMARKS))
    sys.modules.pop("serving", None)


@pytest.fixture
def serve(serving, tmp_path):
    """Starts the demo service; it is gone at the end of the test."""
    servers = []

    def start(kind, workers=4):
        server = serving.Server(
            kind,
            tmp_path / "state",
            tmp_path / "log",
            workers=workers,
            environment={"DEMO_SAMPLE_RATE": "0.3"},
        )
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start
    for server in servers:
        server.kill()


def seen_by_all(state: Path) -> dict[str, int]:
    models = StateDirectory(state).read()
    return {one.meta.model: int(one.total.requests[RequestColumn.SEEN]) for one in models}


def kill_and_watch(server, load, kills, seconds):
    """SIGKILL workers under load. Returns the killed, and what scrapes said meanwhile."""
    killed: set[int] = set()
    scrapes: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    moments = [time.monotonic() + seconds * (number + 1) / (kills + 1) for number in range(kills)]
    while time.monotonic() < end:
        if moments and time.monotonic() > moments[0]:
            moments.pop(0)
            victim = next(pid for pid in server.workers() if pid not in killed)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        scrapes.append(server.seen())
        time.sleep(0.15)
    return killed, [scrape for scrape in scrapes if scrape]


def settle(server, seconds=20.0):
    """Wait until the killed workers were replaced and the living have written what they counted."""
    deadline = time.monotonic() + seconds
    while len(server.workers()) < server.workers_wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)  # a drain comes each second


@pytest.mark.parametrize(("kind", "workers", "kills"), [("POST_FORK", 2, 1), ("UVICORN", 4, 2)])
def test_counts_add_up_whatever_happens_to_workers(serving, serve, kind, workers, kills):
    """Models that are watched in the master are those of the soak."""
    server = serve(getattr(serving, kind), workers)
    with serving.Load(server) as load:
        killed, scrapes = kill_and_watch(server, load, kills, seconds=1.0 + 1.5 * kills)
    settle(server)
    assert len(killed) == kills
    assert min(load.total().values()) > 20

    # While the survivors live ...
    files = serving.counted(server.state)
    assert serving.disagreements(load, files, killed) == []
    # ... any worker's /metrics reports all of them, and never less than before ...
    for model in serving.ENDPOINTS:
        numbers = [scrape.get(model, 0.0) for scrape in (*scrapes, server.seen())]
        assert numbers == sorted(numbers)
        assert numbers[-1] == sum(one.seen for key, one in files.items() if key[0] == model)

    # ... and after an orderly end. uvicorn reports the signal that it was ended with.
    assert server.stop() in (0, -signal.SIGTERM)
    files = serving.counted(server.state)
    assert not any(one.alive for one in files.values())
    assert serving.disagreements(load, files, killed) == []
    before = seen_by_all(server.state)
    # A worker that was killed while it started has no file yet, and answered nothing.
    left = len(list(server.state.glob("*.state")))
    assert left >= 2 * workers
    assert sweep(server.state, SweepOptions(retention_seconds=0.0)).merged == left
    assert not list(server.state.glob("*.state"))
    assert seen_by_all(server.state) == before


def test_a_lost_or_doubled_count_would_be_found(serving):
    """What the tests of counts rest on."""

    seen = SimpleNamespace(
        answered={("text", 1): [1.0, 2.0, 3.0], ("text", 2): [1.0, 2.0, 3.0]},
        unanswered={"text": 1, "image": 0},
    )

    def found(first, second, written=2.5, extra=0):
        files = {
            ("text", 1): serving.Counted(first, 9.0, True),
            ("text", 2): serving.Counted(second, written, False),
            ("image", 3): serving.Counted(extra, 9.0, True),
        }
        return len(serving.disagreements(seen, files, killed={2}))

    assert [found(3, number) for number in (2, 3, 4)] == [0, 0, 0]
    assert [found(3, number) for number in (1, 5)] == [1, 1]
    assert [found(number, 3) for number in (2, 4)] == [1, 1]
    assert found(3, 3, extra=1) == 1
    assert found(3, 0, written=1.2) == 0
    assert len(serving.disagreements(seen, {}, killed={2})) == 1


def test_the_master_of_preforked_workers_is_left_alone(serving, serve):
    server = serve(serving.PRELOADED)
    with serving.Load(server, clients=2):
        time.sleep(1.5)
    master = psutil.Process(server.process.pid)
    assert master.num_threads() == 1
    own = {str(path) for path in server.state.glob("*.state")}
    held = {one.path for one in master.open_files()} & own
    assert len(held) == 2  # one of each model
    for pid in server.workers():
        opened = {one.path for one in psutil.Process(pid).open_files()}
        assert not opened & held
        assert len(opened & own) <= 2  # none before its first request
    # The lock on the master's files went to nobody: it dies, they are dead.
    files = serving.counted(server.state)
    assert [files[model, master.pid].seen for model in serving.ENDPOINTS] == [0, 0]
    master.kill()
    server.process.wait(20)
    files = serving.counted(server.state)
    assert not any(files[model, master.pid].alive for model in serving.ENDPOINTS)

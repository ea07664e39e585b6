"""From requests to windows, in memory and in the state file, and to Prometheus."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from calidrift_agent import request_context
from calidrift_agent._state import StateReader, scan
from calidrift_agent._vocabulary import CountColumn, RequestColumn, WindowFlag
from calidrift_agent._watch import WatchOptions


def test_flush_closes_a_window_and_writes_it(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    window = watch.flush()
    assert (window.number, int(window.requests[RequestColumn.OBSERVED])) == (0, 1)
    assert WindowFlag.EARLY in window.flags
    net(x)
    net(x)
    watch.flush()
    (reader,) = scan(tmp_path)
    assert reader.alive
    windows = reader.windows(-1).windows
    assert [int(one.requests[RequestColumn.OBSERVED]) for one in windows] == [1, 2]
    assert windows[0].equals(window)
    total = watch.snapshot()[1]
    assert np.array_equal(windows[0].cells + windows[1].cells, total.cells)
    watch.close()
    assert not reader.alive
    reader.close()


def test_close_writes_what_waits(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    path = watch.report().state_file
    for _ in range(3):
        net(x)
    watch.close()
    reader = StateReader.open(path)
    (window,) = reader.windows(-1).windows
    assert window.requests[RequestColumn.OBSERVED] == 3
    assert reader.meta.model == "net"
    assert [point.name for point in reader.meta.points] == ["conv:input", "fc:input"]
    reader.close()


def test_the_open_window_survives_without_closing(net, x, watch_all, tmp_path):
    watch = watch_all(net, state_dir=tmp_path)
    net(x)
    watch._active.engine.tick()
    (reader,) = scan(tmp_path)
    assert reader.live().requests[RequestColumn.OBSERVED] == 1
    reader.close()


def test_the_thread_closes_aligned_windows_by_itself(net, x, watch_all, tmp_path):
    watch = watch_all(
        net,
        state_dir=tmp_path,
        options=WatchOptions(budget=None, window_seconds=0.2, drain_seconds=0.05),
    )
    (reader,) = scan(tmp_path)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with torch.no_grad():
            net(x)
        windows = reader.windows(-1).windows
        if len(windows) >= 3:
            break
        time.sleep(0.02)
    assert [one.number for one in windows] == list(range(len(windows)))
    for before, after in itertools.pairwise(windows):
        assert before.end_ns == after.start_ns
        assert after.end_ns % 200_000_000 == 0
        assert WindowFlag.EARLY not in after.flags
    watch.close()
    total = reader.cumulative()
    seen, _, observed = total.requests[: RequestColumn.OBSERVED + 1].tolist()
    assert seen == observed == watch.snapshot()[1].requests[RequestColumn.SEEN]
    reader.close()


def test_the_thread_has_a_name_is_a_daemon_and_comes_with_the_first_sample(net, x, watch_all):
    watch = watch_all(net)
    names = {thread.name for thread in threading.enumerate()}
    assert "calidrift-net" not in names
    net(x)
    (thread,) = [one for one in threading.enumerate() if one.name == "calidrift-net"]
    assert thread.daemon
    watch.close()
    assert not thread.is_alive()


def test_a_crowded_queue_wakes_the_thread(net, x, watch_all):
    watch = watch_all(net)  # would drain by itself after an hour
    engine = watch._active.engine
    with torch.no_grad():
        for _ in range(20):
            net(x)
    deadline = time.monotonic() + 20
    while len(engine.intake) > 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(engine.intake) <= 4


def test_segments_and_sessions(net, x, bounded, watch_all):
    watch = watch_all(net, profile=bounded(conv__input=1e6, fc__input=1e-9))
    with request_context(segment="day"):
        net(x)
        with request_context(segment="night", session="s1"):
            for _ in range(3):
                net(x)
        with request_context(session="s2"):
            net(x)
    net(x)
    _, total = watch.snapshot()
    assert {one.name: (one.units, one.covered) for one in total.segments} == {
        "day": (2, 0),
        "night": (1, 0),
    }
    assert total.requests[RequestColumn.UNITS] == 4  # the three of s1 are one
    assert total.requests[RequestColumn.OBSERVED] == 6
    assert total.counts[0, CountColumn.ROWS] == 24  # but all of them feed the sketches


def test_sessions_are_remembered_within_limits(net, x, bounded, watch_all, monkeypatch):
    from calidrift_agent._watch import _units

    monkeypatch.setattr(_units, "_REMEMBERED", 2)
    watch = watch_all(net, profile=bounded(conv__input=1e6, fc__input=1e6))
    for session in ("a", "b", "a", "c", "a", "b"):
        with request_context(session=session):
            net(x)
    assert watch.snapshot()[1].requests[RequestColumn.UNITS] == 4  # b was forgotten, a was not


@pytest.mark.parametrize("budget", [None, 1.0])
def test_windows_are_closed_in_idle_times_too(net, x, watch_all, budget):
    watch = watch_all(net, options=WatchOptions(budget=budget, window_seconds=0.1))
    net(x)
    engine = watch._active.engine
    deadline = time.monotonic() + 20
    while engine.books.buffer.number < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert engine.books.buffer.number >= 3


def test_prometheus(net, x, bounded, watch_all):
    from prometheus_client import CollectorRegistry, generate_latest

    watch = watch_all(net, profile=bounded(conv__input=0.5, fc__input=1e6))
    registry = CollectorRegistry()
    registry.register(watch.collector())
    net(x)
    text = generate_latest(registry).decode()
    assert 'calidrift_observed_requests_total{model="net"} 1.0' in text
    assert 'calidrift_exceedances_total{model="net",point="conv:input"} 1.0' in text
    assert 'calidrift_observed_bound{model="net",point="conv:input"} 0.5' in text


def test_concurrent_scrapes_and_requests(net, x, watch_all):
    watch = watch_all(net)
    collector, failures = watch.collector(), []

    def scrape():
        for _ in range(10):
            try:
                assert list(collector.collect())
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    with torch.no_grad():
        for _ in range(50):
            net(x)
    for thread in threads:
        thread.join()
    assert failures == []
    assert watch.snapshot()[1].requests[RequestColumn.OBSERVED] == 50


def test_the_last_window_is_written_at_exit(tmp_path):
    import subprocess
    import sys

    program = """
import sys, torch, calidrift_agent
net = torch.nn.Sequential(torch.nn.Linear(2, 2))
calidrift_agent.watch(net, name="net", sample_rate=1.0, state_dir=sys.argv[1])
for _ in range(3):
    net(torch.ones(1, 2))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    (reader,) = scan(tmp_path)
    assert not reader.alive
    (window,) = reader.windows(-1).windows
    assert window.requests[RequestColumn.OBSERVED] == 3
    reader.close()

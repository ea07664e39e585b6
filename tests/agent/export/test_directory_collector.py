"""One collector for all workers that share a state directory."""

from __future__ import annotations

import logging
import os
import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from calidrift_agent import StateDirectoryCollector
from calidrift_agent._export import CATALOGUE, Emitter
from calidrift_agent._state import (
    PointMeta,
    StateMeta,
    StateOptions,
    StateWriter,
    SweepOptions,
    WindowBuffer,
    boot_id,
    new_process_id,
    sweep,
)
from calidrift_agent._vocabulary import (
    CountColumn,
    Instrument,
    RequestColumn,
    Strategy,
    ValueColumn,
    WindowFlag,
)
from calidrift_agent.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SECOND = 1_000_000_000
NOW = 1_000_000.0
POINTS = (PointMeta("conv:input", 2.0, -3.0, 1.0), PointMeta("fc:input"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Makes state files of workers that counted something; gives their writers."""
    monkeypatch.setattr("calidrift_agent._state._directory.time.time_ns", lambda: now())
    clock = [NOW]

    def now():
        return round(clock[0] * SECOND)

    writers = []

    def make(requests, absmax, *, model="net", points=POINTS, flags=WindowFlag.NONE, alive=True):
        meta = StateMeta(
            new_process_id(),
            boot_id(),
            1,
            now() - SECOND,
            model,
            "",
            Instrument.RANGE,
            Strategy.INSTEAD,
            "0.1.0",
            10.0,
            points,
        )
        writer = StateWriter.create(tmp_path, meta, StateOptions(slots=4))
        buffer = WindowBuffer(len(points), window_seconds=10.0, now_ns=now() - SECOND)
        buffer.requests[RequestColumn.SEEN] = requests
        buffer.counts[:, CountColumn.ROWS] = requests
        buffer.counts[:, CountColumn.EXCEEDANCES] = 1
        buffer.values[:, ValueColumn.HIGHEST] = absmax
        buffer.sampling_ratio = requests / 100
        buffer.standing = flags
        writer.write_open(buffer, now())
        writers.append(writer)
        if not alive:
            writer.close()
        return writer

    make.clock = clock
    make.now = now
    yield make
    for writer in writers:
        writer.close()


def scrape(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "le")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_any_worker_reports_for_all(work, tmp_path):
    collector = StateDirectoryCollector(tmp_path)
    work(10, 3.0)
    work(30, 5.0)
    work(7, 9.0, alive=False)
    work(5, 1.0, model="other")
    found = scrape(collector)
    assert found["calidrift_agent_seen_requests_total", "net"] == 47
    assert found["calidrift_agent_seen_requests_total", "other"] == 5
    assert found["calidrift_exceedances_total", "net", "conv:input"] == 3
    # The peak of a worker that has just died is still one of the last two minutes.
    assert found["calidrift_activation_absmax", "net", "conv:input"] == 9.0
    assert found["calidrift_agent_sampling_ratio", "net"] == pytest.approx(0.2)
    assert found["calidrift_agent_points_expected", "net"] == 2
    assert found["calidrift_agent_state", "net", "active"] == 2
    assert found["calidrift_agent_state", "net", "errors"] == 0
    assert found["calidrift_agent_state_age_seconds", "net"] == 0.0


def test_counters_do_not_go_down_and_gauges_do(work, tmp_path):
    collector = StateDirectoryCollector(tmp_path)
    work(10, 3.0)
    work(30, 5.0).close()
    sums = [scrape(collector)["calidrift_agent_seen_requests_total", "net"]]
    sweep(tmp_path, SweepOptions(retention_seconds=0.0), now_ns=work.now())
    sums.append(scrape(collector)["calidrift_agent_seen_requests_total", "net"])
    work(2, 4.0)
    work.clock[0] += 200.0
    found = scrape(collector)
    sums.append(found["calidrift_agent_seen_requests_total", "net"])
    assert sums == [40, 40, 42]
    assert ("calidrift_activation_absmax", "net", "conv:input") not in found
    assert found["calidrift_agent_state_age_seconds", "net"] == 200.0


def test_of_dead_processes_nothing_is_said_about_now(work, tmp_path):
    work(10, 3.0, alive=False)
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_agent_seen_requests_total", "net"] == 10
    now = ("sampling_ratio", "points_expected", "points_observed", "state", "build_info")
    assert not [key for key in found if key[0] in {f"calidrift_agent_{name}" for name in now}]


@pytest.mark.parametrize(
    ("flag", "state"),
    [
        (WindowFlag.KILLED, "killed"),
        (WindowFlag.ERRORS, "errors"),
        (WindowFlag.BUDGET, "budget"),
        (WindowFlag.CLOSED, "closed"),
    ],
)
def test_why_a_worker_stopped(work, tmp_path, flag, state):
    work(1, 1.0)
    work(1, 1.0, flags=flag)
    found = scrape(StateDirectoryCollector(tmp_path))
    states = {key[2]: value for key, value in found.items() if key[0] == "calidrift_agent_state"}
    assert states == {
        **dict.fromkeys(("active", "killed", "errors", "budget", "closed"), 0),
        "active": 1,
        state: 1,
    }


def test_names_are_claimed_without_reading(tmp_path, monkeypatch):
    collector = StateDirectoryCollector(tmp_path / "not there yet")
    monkeypatch.setattr(collector._directory, "read", lambda: pytest.fail("read at registration"))
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    described = {family.name for family in collector.describe()}
    wanted = {e.name.removesuffix("_total") for e in CATALOGUE if e.emitter is Emitter.AGENT}
    assert described == wanted


def test_no_scrape_ever_fails(work, tmp_path, caplog):
    (tmp_path / "file").touch()
    collector = StateDirectoryCollector(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        for number in (1, 2):
            assert scrape(collector) == {("calidrift_agent_scrape_errors_total",): number}
    assert len(caplog.records) == 1
    work(3, 1.0)
    (tmp_path / "1-net.state").write_bytes(b"somebody's")
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_agent_seen_requests_total", "net"] == 3
    assert found["calidrift_agent_scrape_errors_total",] == 1


def test_one_model_that_cannot_be_shown_leaves_the_others(work, tmp_path, monkeypatch):
    work(3, 1.0)
    work(4, 1.0, model="other")
    original = "calidrift_agent._export._directory.add_snapshot"
    from calidrift_agent._export._families import add_snapshot

    def failing(table, snapshot, rows):
        if snapshot.meta.model == "net":
            raise ValueError("no")
        add_snapshot(table, snapshot, rows)

    monkeypatch.setattr(original, failing)
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_agent_seen_requests_total", "other"] == 4
    assert ("calidrift_agent_seen_requests_total", "net") not in found
    assert found["calidrift_agent_scrape_errors_total",] == 1


def test_many_points(work, tmp_path):
    points = tuple(PointMeta(f"p{i}:input", 1.0) for i in range(10))
    work(3, 1.0, points=points)
    found = scrape(StateDirectoryCollector(tmp_path, max_points=4))
    assert found["calidrift_agent_points_omitted", "net"] == 8
    assert found["calidrift_agent_points_expected", "net"] == 10
    with pytest.raises(ConfigurationError, match="max_points"):
        StateDirectoryCollector(tmp_path, max_points=-1)


def test_a_newcomer_without_a_profile_hides_nobodys_bound(work, tmp_path):
    work(10, 3.0)
    work.clock[0] += 5.0
    newcomer = work(4, 1.0, points=tuple(PointMeta(point.name) for point in POINTS))
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_observed_bound", "net", "conv:input"] == 2.0
    assert found["calidrift_exceedances_total", "net", "conv:input"] == 2
    assert found["calidrift_clip_bound", "net", "conv:input"] == 3.0
    newcomer.close()
    work.clock[0] += 5.0
    work(1, 1.0, points=(PointMeta("conv:input", 7.0), PointMeta("fc:input")))
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_observed_bound", "net", "conv:input"] == 7.0, "the newest that has one"


def test_bounds_of_the_dead_are_not_those_of_the_living(work, tmp_path):
    work(10, 3.0, alive=False)
    assert ("calidrift_clip_bound", "net", "conv:input") in scrape(
        StateDirectoryCollector(tmp_path)
    )
    work.clock[0] += 5.0
    work(4, 1.0, points=(PointMeta("conv:input", 5.0),))
    found = scrape(StateDirectoryCollector(tmp_path))
    assert found["calidrift_observed_bound", "net", "conv:input"] == 5.0
    assert ("calidrift_clip_bound", "net", "conv:input") not in found


def test_scraped_by_many_threads_and_in_a_forked_child(work, tmp_path):
    work(3, np.float64(1.0))
    collector = StateDirectoryCollector(tmp_path)
    results = []
    threads = [threading.Thread(target=lambda: results.append(scrape(collector))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 4
    with collector._failures.lock, collector._directory._lock:
        child = os.fork()
        if not child:
            os._exit(int(scrape(collector)["calidrift_agent_seen_requests_total", "net"]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3

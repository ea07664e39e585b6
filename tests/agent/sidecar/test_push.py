"""OTLP: what arrives, and what happens where it does not."""

from __future__ import annotations

import logging
import signal
import threading
import time

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from calidrift_agent._export import CATALOGUE
from calidrift_agent._sidecar import Exposition, PushOptions, SidecarOptions
from calidrift_agent._sidecar._figures import PushFigures
from calidrift_agent._sidecar._push import Pusher, require_exporter
from calidrift_agent._sketch import HALF, MagnitudeSketch, bucket_bounds
from calidrift_agent._state import StateDirectories, SweepOptions, sweep
from calidrift_agent.errors import ConfigurationError

MAGNITUDE = "calidrift.activation.magnitude"
OTEL = {entry.otel: entry for entry in CATALOGUE}


def traffic(seed, count=4000):
    """Values of both signs over forty octaves, with everything that has no bucket."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=count) * 2.0 ** rng.uniform(-30, 18, count)).astype(np.float32)
    return np.concatenate(
        (values, np.float32([0, -0.0, 2.0**-24, -(2.0**-30), 2.0**16, 2.0**17, np.nan, -np.inf]))
    )


def by_bound(buckets):
    """Counts by the lower bound of their bucket, from offset and counts."""
    return {
        buckets.offset + place: count for place, count in enumerate(buckets.bucket_counts) if count
    }


def stored(cells):
    """The same from a half of a sketch: cell 2 is bucket -384, cell 642 all that lies beyond."""
    return {cell - 2 - 384: int(cells[cell]) for cell in range(2, 643) if cells[cell]}


class Clock:
    """A clock on which each look is two seconds later, so that nothing is cached."""

    now = 0.0

    def __call__(self):
        self.now += 2.0
        return self.now


@pytest.fixture
def pusher(receiver, tmp_path):
    """Makes a pusher for `tmp_path`; its thread is ended at the end of the test."""
    made = []

    def make(interval=0.1, url=None, read=None):
        figures = PushFigures()
        options = SidecarOptions((tmp_path,))
        exposition = Exposition(options, figures, Clock())
        push = PushOptions(url or receiver.url, interval)
        made.append(Pusher(push, read or exposition.reading, figures, (tmp_path,)))
        made[-1].start()
        return made[-1], figures

    yield make
    for one in made:
        one.stop(20.0)
        assert not one._thread.is_alive()


def test_sketches_arrive_bucket_for_bucket(worker, receiver, pusher, tmp_path, decode):
    first, second = worker(), worker()
    first.see(traffic(1))
    second.see(traffic(2))
    pusher()
    receiver.wait(lambda: receiver.taken)
    [model] = StateDirectories([tmp_path]).read()
    found = decode(receiver.taken[-1])
    assert set(found[MAGNITUDE]) == {("net", "conv:input"), ("net", "fc:input")}
    values = np.concatenate((traffic(1), traffic(2)))
    finite = values[np.isfinite(values)]
    for row, point in enumerate(model.meta.points):
        sent = found[MAGNITUDE]["net", point.name]
        cells = model.total.cells[row]
        assert sent.scale == 4
        assert by_bound(sent.positive) == stored(cells[:HALF])
        assert by_bound(sent.negative) == stored(cells[HALF:])
        assert sent.zero_count == int((np.abs(finite) <= 2.0**-24).sum())
        assert sent.count == finite.size
        assert sent.count == sent.zero_count + sum(
            (*sent.positive.bucket_counts, *sent.negative.bucket_counts)
        )
        assert (sent.min, sent.max) == (finite.min(), finite.max())
        assert sent.start_time_unix_nano == first.meta.started_ns
        assert sent.start_time_unix_nano < sent.time_unix_nano


def test_bounds_are_those_of_the_protocol_and_the_sum_is_near(worker, receiver, pusher, decode):
    """An oracle from the specification: bucket i holds (base**i, base**(i + 1)], base 2**(1/16)."""
    values = np.abs(np.random.default_rng(3).normal(size=2000)).astype(np.float32)
    values = np.concatenate((values, np.float32([1.0, 2.0, 4.0, 0.5])))  # on the bounds themselves
    worker().see(values)
    pusher()
    receiver.wait(lambda: receiver.taken)
    sent = decode(receiver.taken[0])[MAGNITUDE]["net", "fc:input"]
    bounds = bucket_bounds()
    index = np.searchsorted(bounds, values.astype(np.float64), side="left") - 1 - 384
    wanted = dict(zip(*(one.tolist() for one in np.unique(index, return_counts=True)), strict=True))
    assert by_bound(sent.positive) == wanted
    assert not sent.negative.bucket_counts
    # 2.2 % at the most; where values lie evenly in their buckets, ten times less.
    assert sent.sum == pytest.approx(values.sum(), rel=0.003)


def test_sums_gauges_and_histograms_come_from_the_catalogue(worker, receiver, pusher, decode):
    worker().see(np.float32([1.0, 3.0]), requests=7)
    pusher()
    receiver.wait(lambda: receiver.taken)
    found = decode(receiver.taken[0])
    assert set(found) <= set(OTEL)
    assert found["calidrift.agent.seen_requests"]["net",].as_int == 7
    assert found["calidrift.agent.sampling"]["net",].as_double == 0.5
    assert found["calidrift.activation.absmax"]["net", "fc:input"].as_double == 3.0
    ratio = found["calidrift.activation.range_ratio"]["net", "conv:input"]
    assert list(ratio.bucket_counts) == [0, 1, *[0] * 9]
    assert list(ratio.explicit_bounds) == [0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0]
    assert (ratio.count, ratio.sum, ratio.HasField("max")) == (1, 0.5, False)
    assert found["calidrift.agent.exports"][()].as_int == 0
    [resource] = receiver.taken[0].resource_metrics
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "calidrift"
    assert len(named["service.instance.id"]) == 36
    for metric in resource.scope_metrics[0].metrics:
        kind, entry = metric.WhichOneof("data"), OTEL[metric.name]
        assert (metric.unit, metric.description) == (entry.unit, entry.help)
        words = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}
        assert kind == words.get(entry.type, entry.type)
        if kind != "gauge":
            assert getattr(metric, kind).aggregation_temporality == 2, "cumulative"
        assert kind != "sum" or metric.sum.is_monotonic


def test_a_point_that_never_fired_is_absent(worker, receiver, pusher, decode):
    one = worker()
    one.buffer.requests[0] += 1
    one.writer.write_open(one.buffer, time.time_ns())
    pusher()
    receiver.wait(lambda: receiver.taken)
    found = decode(receiver.taken[0])
    assert found["calidrift.agent.seen_requests"]["net",].as_int == 1
    assert MAGNITUDE not in found
    assert "calidrift.activation.range_ratio" not in found


def test_counts_go_on_over_the_death_of_a_process_and_its_sweep(
    worker, receiver, pusher, tmp_path, decode
):
    def latest():
        found = decode(receiver.taken[-1])
        sketch = found[MAGNITUDE]["net", "fc:input"]
        return found["calidrift.agent.seen_requests"]["net",].as_int, sketch

    dying = worker(started_ns=time.time_ns() - 5_000_000_000)
    dying.see(np.float32([1.0, 2.0]), requests=3)
    pusher()
    receiver.wait(lambda: receiver.taken)
    before = latest()
    dying.die()
    worker().see(np.float32([-1.0]), requests=4)
    assert sweep(tmp_path, SweepOptions(retention_seconds=0.0)).merged == 1
    already = len(receiver.taken)
    receiver.wait(lambda: len(receiver.taken) >= already + 2)
    after = latest()
    assert (before[0], after[0]) == (3, 7)
    assert (before[1].count, after[1].count) == (2, 3)
    assert after[1].start_time_unix_nano == before[1].start_time_unix_nano == dying.meta.started_ns
    assert (after[1].min, after[1].max) == (-1.0, 2.0)


def test_a_lost_sum_begins_anew(worker, receiver, pusher, tmp_path, decode):
    worker().see(np.float32([1.0]), requests=9)
    pusher()
    receiver.wait(lambda: receiver.taken)
    before = decode(receiver.taken[-1])["calidrift.agent.seen_requests"]["net",]
    for path in tmp_path.glob("*.state"):
        path.unlink()
    worker().see(np.float32([1.0]), requests=2)
    already = len(receiver.taken)
    receiver.wait(lambda: len(receiver.taken) >= already + 2)
    after = decode(receiver.taken[-1])["calidrift.agent.seen_requests"]["net",]
    assert (before.as_int, after.as_int) == (9, 2)
    assert after.start_time_unix_nano >= before.time_unix_nano


def test_failures_are_tried_again_counted_and_told_once(worker, receiver, start, tmp_path, decode):
    """503 and a reset are got over by the exporter; 400 is not, and shows in `/metrics`."""
    from urllib.request import ProxyHandler, build_opener

    worker().see(np.float32([1.0]), requests=5)
    receiver.plan = [400, 400, 503, "reset", "slow"]
    running = start(
        "--state-dir", tmp_path, "--otlp", receiver.url, "--interval", "0.1", OTEL_SERVICE_NAME="me"
    )
    receiver.wait(lambda: len(receiver.taken) >= 2)
    assert {path for path, _ in receiver.asked} == {"/v1/metrics"}
    assert len(receiver.asked) >= 6
    last = decode(receiver.taken[-1])
    assert last["calidrift.agent.seen_requests"]["net",].as_int == 5
    assert last[MAGNITUDE]["net", "fc:input"].count == 1, "nothing was lost or counted twice"
    assert last["calidrift.agent.export_failures"][()].as_int == 2
    with build_opener(ProxyHandler({})).open(running.url) as answer:
        assert b"calidrift_agent_export_failures_total 2.0\n" in answer.read()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=20) == 0
    [resource] = receiver.taken[-1].resource_metrics
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "me"
    told = running.process.stderr.read().splitlines()
    assert len(told) == 2
    assert told[0].startswith(f"calidrift: figures cannot be pushed to {receiver.url}/v1/metrics (")
    assert "400" in told[0]
    assert told[1] == "calidrift: the OTLP receiver takes figures again"


def test_a_push_that_a_second_try_gets_through_is_no_failure(worker, receiver, pusher, caplog):
    worker().see(np.float32([1.0]))
    receiver.plan = [503, "reset"]
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        one, figures = pusher()
        receiver.wait(lambda: len(receiver.taken) >= 2)
        one.stop(20)
    assert figures.failed == 0
    assert figures.accepted >= 2
    assert caplog.messages == []


def test_what_was_counted_last_is_pushed_at_the_end(worker, receiver, pusher, decode):
    one, figures = pusher(interval=86_400.0)
    worker().see(np.float32([1.0]), requests=6)
    one.stop(20)
    [request] = receiver.taken
    assert decode(request)["calidrift.agent.seen_requests"]["net",].as_int == 6
    assert (figures.accepted, figures.failed) == (1, 0)


def rejection():
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 3
    answer.partial_success.error_message = "too many"
    return answer.SerializeToString()


@pytest.mark.parametrize(
    ("plan", "answer", "told"),
    [
        ([], rejection(), "it rejected 3 points: too many"),
        ([302], b"", "a redirect"),
        ([], b"not protobuf", None),
    ],
    ids=["rejected points", "redirect", "somebody's words"],
)
def test_success_that_is_none(worker, receiver, pusher, caplog, plan, answer, told):
    worker().see(np.float32([1.0]))
    receiver.plan, receiver.answer = plan, answer
    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        _, figures = pusher(interval=0.2)
        receiver.wait(lambda: len(receiver.asked) >= 2)
        deadline = time.monotonic() + 20
        while figures.accepted + figures.failed < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert bool(figures.failed) is (told is not None)
    assert (told or "") in caplog.text


def test_a_reading_that_fails_is_a_failed_push(pusher, caplog):
    tried = threading.Event()

    def broken():
        tried.set()
        raise OSError("no")

    with caplog.at_level(logging.WARNING, "calidrift_agent"):
        one, figures = pusher(read=broken)
        assert tried.wait(20)
        one.stop(20)
    assert figures.failed >= 1
    assert figures.accepted == 0
    assert caplog.text.count("OSError: no") <= 1


def test_a_broken_installation_is_told(pusher, monkeypatch, caplog):
    def broken(*_):
        raise ImportError("half installed")

    monkeypatch.setattr("calidrift_agent._sidecar._push._Delivery.exporter", broken)
    one, figures = pusher()
    one._thread.join(20)
    assert figures.failed == 1
    assert "nothing is pushed any more: ImportError: half installed" in caplog.text


@pytest.mark.parametrize("error", [ImportError, None])
def test_without_the_exporter_the_extra_is_named(monkeypatch, error):
    def absent(name):
        if error is not None:
            raise error(name)

    monkeypatch.setattr("calidrift_agent._sidecar._push.find_spec", absent)
    with pytest.raises(ConfigurationError, match=r'pip install "calidrift\[otlp\]"'):
        require_exporter()


def test_a_path_of_the_users_own_stays():
    assert PushOptions("https://c/opentelemetry/v1/metrics").endpoint.endswith(
        "c/opentelemetry/v1/metrics"
    )
    assert PushOptions("http://c:1/").endpoint == "http://c:1/v1/metrics"


def test_the_sketch_sent_is_the_sketch_of_the_values(worker, tmp_path):
    """The store itself: otherwise 'equal to the store' would prove nothing."""
    worker().see(traffic(5))
    [model] = StateDirectories([tmp_path]).read()
    wanted = MagnitudeSketch()
    wanted.update(traffic(5))
    assert np.array_equal(model.total.cells[1], wanted.cells)

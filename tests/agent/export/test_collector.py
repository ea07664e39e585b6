from __future__ import annotations

import logging
import subprocess
import sys
import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from calidrift_agent._export import CATALOGUE, Emitter, ExportSnapshot, WatchCollector
from calidrift_agent._state import PointMeta, StateMeta, WindowBuffer
from calidrift_agent._vocabulary import (
    RATIO_BOUNDS,
    RATIO_COLUMNS,
    CountColumn,
    DropReason,
    Instrument,
    RequestColumn,
    Stage,
    Strategy,
    ValueColumn,
)
from calidrift_agent.errors import ConfigurationError

SECOND = 1_000_000_000
POINTS = (
    PointMeta("conv:input", observed_bound=2.0, clip_lo=-3.0, clip_hi=1.0),
    PointMeta("fc:input", observed_bound=None),
    PointMeta("silent:input", observed_bound=4.0, clip_lo=0.0, clip_hi=4.0),
)


def make_meta(model: str = "net", points=POINTS) -> StateMeta:
    return StateMeta(
        process="0" * 32,
        boot="",
        pid=1,
        started_ns=0,
        model=model,
        profile="",
        instrument=Instrument.RANGE,
        strategy=Strategy.INSTEAD,
        agent_version="0.1.0",
        window_seconds=10.0,
        points=points,
    )


def make_snapshot(model: str = "net", points=POINTS, age: float | None = 1.5) -> ExportSnapshot:
    buffer = WindowBuffer(len(points), window_seconds=10.0, now_ns=0)
    buffer.sampling_ratio = 0.01
    buffer.requests[RequestColumn.SEEN] = 1000
    buffer.requests[RequestColumn.SAMPLED] = 12
    buffer.requests[RequestColumn.OBSERVED] = 10
    buffer.requests[RequestColumn.OVERHEAD_NS] = 250_000_000
    buffer.requests[RequestColumn.FORWARD_NS] = 40 * SECOND
    buffer.requests[RequestColumn.COMPARED : RequestColumn.AGREED + 1] = 8, 4, 3
    buffer.requests[RequestColumn.NOISE_PPB] = 80_000_000
    buffer.requests[RequestColumn.DISTANCE_PPB] = 400_000_000
    buffer.requests[RequestColumn.ERROR_FIRST + list(Stage).index(Stage.TAP)] = 2
    buffer.requests[RequestColumn.DROP_FIRST + list(DropReason).index(DropReason.DISK_FULL)] = 3
    for row in range(min(2, len(points))):
        counts = buffer.counts[row]
        counts[CountColumn.UNITS] = 10
        counts[CountColumn.ROWS] = 20
        counts[CountColumn.EXCEEDANCES] = 4
        counts[CountColumn.ELEMENTS] = 5000
        counts[CountColumn.CLIP_LOW] = 7
        counts[CountColumn.CLIP_HIGH] = 8
        counts[CountColumn.NAN] = 1
        counts[CountColumn.RATIO_FIRST : CountColumn.RATIO_FIRST + 4] = (1, 2, 0, 3)
        counts[RATIO_COLUMNS.stop - 1] = 4
        buffer.values[row, ValueColumn.RATIO_SUM] = 12.5
        buffer.values[row, ValueColumn.LOWEST] = -6.5
        buffer.values[row, ValueColumn.HIGHEST] = 3.0
    return ExportSnapshot(make_meta(model, points), buffer.total(), buffer.recent_absmax(1), age)


def scrape(collector: WatchCollector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, "no series may appear twice"
            samples[key] = sample.value
    return samples


def value(samples, name, **labels):
    return samples.get((f"calidrift_{name}", tuple(sorted({"model": "net", **labels}.items()))))


def test_figures_of_a_point():
    samples = scrape(WatchCollector(make_snapshot))
    point = {"point": "conv:input"}
    assert value(samples, "activation_absmax", **point) == 6.5
    assert value(samples, "observed_bound", **point) == 2.0
    assert value(samples, "clip_bound", **point) == 3.0
    assert value(samples, "exceedances_total", **point) == 4
    assert value(samples, "observed_elements_total", **point) == 5000
    assert value(samples, "saturated_elements_total", **point, rail="low") == 7
    assert value(samples, "saturated_elements_total", **point, rail="high") == 8
    assert value(samples, "nonfinite_elements_total", **point, kind="nan") == 1
    assert value(samples, "nonfinite_elements_total", **point, kind="inf") == 0


def test_the_range_ratio_is_a_cumulative_histogram():
    samples = scrape(WatchCollector(make_snapshot))
    buckets = [
        value(samples, "activation_range_ratio_bucket", point="conv:input", le=str(bound))
        for bound in (*RATIO_BOUNDS, "+Inf")
    ]
    assert buckets == [1, 3, 3, 6, 6, 6, 6, 6, 6, 6, 10]
    assert value(samples, "activation_range_ratio_count", point="conv:input") == 10
    assert value(samples, "activation_range_ratio_sum", point="conv:input") == 12.5


def test_the_comparison_with_a_reference():
    snapshot = make_snapshot()
    requests = snapshot.total.requests
    samples = scrape(WatchCollector(lambda: snapshot))
    assert value(samples, "reference_compared_total") == 8
    assert value(samples, "reference_sqnr_db") == pytest.approx(20.0)
    assert value(samples, "reference_agreement_ratio") == 0.75
    assert value(samples, "reference_cosine") == pytest.approx(0.9)
    requests[[RequestColumn.RANKED, RequestColumn.AGREED]] = 0
    assert value(scrape(WatchCollector(lambda: snapshot)), "reference_agreement_ratio") is None
    requests[RequestColumn.COMPARED] = 0
    absent = scrape(WatchCollector(lambda: snapshot))
    assert not any(name.startswith("calidrift_reference") for name, _ in absent)


def test_figures_of_a_model():
    samples = scrape(WatchCollector(make_snapshot))
    assert value(samples, "observed_requests_total") == 10
    assert value(samples, "agent_seen_requests_total") == 1000
    assert value(samples, "agent_sampled_requests_total") == 12
    assert value(samples, "agent_sampling_ratio") == 0.01
    assert value(samples, "agent_overhead_seconds_total") == 0.25
    assert value(samples, "agent_forward_seconds_total") == 40.0
    assert value(samples, "agent_errors_total", stage="tap") == 2
    assert value(samples, "agent_errors_total", stage="drain") == 0
    assert value(samples, "agent_dropped_total", reason="disk_full") == 3
    assert value(samples, "agent_points_expected") == 3
    assert value(samples, "agent_points_observed") == 2
    assert value(samples, "agent_points_omitted") == 0
    assert value(samples, "agent_state_age_seconds") == 1.5
    build = {"version": "0.1.0", "instrument": "range", "strategy": "instead"}
    assert value(samples, "agent_build_info", **build) == 1
    assert samples[("calidrift_agent_scrape_errors_total", ())] == 0


def test_no_data_is_no_sample():
    samples = scrape(WatchCollector(lambda: make_snapshot(age=None)))
    of_point: dict[str, set[str]] = {point.name: set() for point in POINTS}
    for name, labels in samples:
        if "point" in dict(labels):
            of_point[dict(labels)["point"]].add(name)
    # A point that never fired shows its bounds, and neither maxima nor zeros.
    assert of_point["silent:input"] == {"calidrift_observed_bound", "calidrift_clip_bound"}
    # Without bounds there are no exceedances, ratios or saturation to speak of.
    assert of_point["fc:input"] == {
        "calidrift_activation_absmax",
        "calidrift_observed_elements_total",
        "calidrift_nonfinite_elements_total",
    }
    assert value(samples, "agent_state_age_seconds") is None
    assert not any(name.startswith("calidrift_analyzer") for name, _ in samples)


def test_a_point_without_recent_data_keeps_its_counters_only():
    snapshot = make_snapshot()
    quiet = ExportSnapshot(snapshot.meta, snapshot.total, np.full(3, -np.inf))
    samples = scrape(WatchCollector(lambda: quiet))
    assert value(samples, "activation_absmax", point="conv:input") is None
    assert value(samples, "exceedances_total", point="conv:input") == 4


def test_a_dead_activation_is_zero_and_not_absent():
    snapshot = make_snapshot()
    dead = ExportSnapshot(snapshot.meta, snapshot.total, np.zeros(3))
    samples = scrape(WatchCollector(lambda: dead))
    assert value(samples, "activation_absmax", point="conv:input") == 0.0


class Large:
    """A watch of 10 points whose figures a test sets, scraped with room for 4."""

    def __init__(self, bound: float | None = 2.0, limit: int = 4):
        self.points = tuple(PointMeta(f"layer{row}:input", bound, -1.0, 1.0) for row in range(10))
        self.buffer = WindowBuffer(10, window_seconds=10.0, now_ns=0)
        self.recent = np.full(10, -np.inf)
        self.collector = WatchCollector(self.snapshot, max_points=limit)

    def snapshot(self) -> ExportSnapshot:
        return ExportSnapshot(make_meta(points=self.points), self.buffer.total(), self.recent)

    def fire(self, **magnitudes: float) -> None:
        self.buffer.counts[:, [CountColumn.ROWS, CountColumn.CLIP_ELEMENTS]] += 100
        self.recent = np.full(10, 0.5)
        for name, magnitude in magnitudes.items():
            self.recent[int(name.removeprefix("layer"))] = magnitude

    def shown(self) -> set[str]:
        samples = scrape(self.collector)
        names = {dict(labels)["point"] for _, labels in samples if "point" in dict(labels)}
        assert value(samples, "agent_points_omitted") == 10 - len(names)
        assert value(samples, "agent_points_expected") == 10
        return {name.removesuffix(":input") for name in names}


class TestLargeModels:
    def test_half_of_the_places_go_to_the_worst_points_at_once(self):
        large = Large()
        assert large.shown() == set(), "nothing observed yet: no order to go by"
        large.fire(layer7=1.9, layer3=1.2, layer5=1.0)
        assert large.shown() == {"layer7", "layer3"}

    def test_a_point_that_leaves_its_bound_later_joins_and_nobody_leaves(self):
        large = Large()
        large.fire(layer7=1.9, layer3=1.2)
        assert large.shown() == {"layer7", "layer3"}
        large.fire(layer0=2.1)  # chance, not drift
        assert large.shown() == {"layer7", "layer3"}
        large.fire(layer1=2.6, layer8=9.0, layer9=3.0)
        assert large.shown() == {"layer7", "layer3", "layer8", "layer9"}
        large.fire(layer2=99.0)
        assert large.shown() == {"layer7", "layer3", "layer8", "layer9"}

    def test_a_point_beyond_a_bound_of_zero_is_the_worst(self):
        large = Large(limit=2)
        large.points = (*large.points[:9], PointMeta("layer9:input", 0.0))
        large.fire(layer4=50.0, layer9=0.1)
        assert large.shown() == {"layer4", "layer9"}
        large = Large(limit=1)
        large.points = (*large.points[:9], PointMeta("layer9:input", 0.0))
        large.fire(layer9=0.0)
        assert large.shown() == {"layer0"}

    def test_without_bounds_the_share_of_clipped_elements_decides(self):
        large = Large(bound=None)
        large.fire(layer2=1000.0)
        large.buffer.counts[[4, 5, 6, 8], CountColumn.CLIP_LOW] = (1, 4, 2, 3)
        large.buffer.counts[9, CountColumn.CLIP_HIGH] = 5
        assert large.shown() == {"layer5", "layer6", "layer8", "layer9"}

    def test_with_equal_ratios_the_share_of_clipped_elements_decides(self):
        large = Large()
        large.fire()
        large.buffer.counts[[4, 8], CountColumn.CLIP_HIGH] = (1, 4)
        assert large.shown() == {"layer4", "layer8"}

    def test_a_limit_of_nothing_shows_no_point(self):
        large = Large(limit=0)
        large.fire(layer1=99.0)
        assert large.shown() == set()
        with pytest.raises(ConfigurationError, match="max_points"):
            WatchCollector(max_points=-1)

    def test_a_model_that_just_fits_is_shown_whole(self):
        assert len(Large(limit=10).shown()) == 10


def test_registering_does_not_collect_and_claims_every_name():
    called = []

    def source():
        called.append(1)
        return make_snapshot()

    collector = WatchCollector(source)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    assert not called
    described = {family.name for family in collector.describe()}
    wanted = {e.name.removesuffix("_total") for e in CATALOGUE if e.emitter is Emitter.AGENT}
    assert described == wanted
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(WatchCollector(make_snapshot))
    collected = {family.name for family in collector.collect()}
    assert collected <= described


def test_everything_an_agent_can_report_is_reported():
    names = {family.name for family in WatchCollector(make_snapshot).collect()}
    assert names == {family.name for family in WatchCollector(make_snapshot).describe()}


def test_several_watches_share_one_collector():
    first = WatchCollector(make_snapshot)
    second = WatchCollector(lambda: make_snapshot("other"))
    samples = scrape(first.joined_with(second))
    for model in ("net", "other"):
        key = (("model", model), ("point", "conv:input"))
        assert samples[("calidrift_activation_absmax", key)] == 6.5


def test_openmetrics_accepts_it_too():
    registry = CollectorRegistry()
    registry.register(WatchCollector(make_snapshot))
    text = openmetrics.generate_latest(registry).decode()
    families = {family.name: family for family in parse_openmetrics(text)}
    assert families["calidrift_exceedances"].type == "counter"
    assert families["calidrift_activation_range_ratio"].type == "histogram"


class TestFailures:
    def test_a_raising_source_does_not_fail_the_scrape(self, caplog):
        def broken():
            raise RuntimeError("lost")

        collector = WatchCollector(broken, lambda: make_snapshot("healthy"))
        with caplog.at_level(logging.WARNING, logger="calidrift_agent"):
            first, second = scrape(collector), scrape(collector)
        key = ("calidrift_agent_scrape_errors_total", ())
        assert (first[key], second[key]) == (1, 2)
        assert ("calidrift_agent_seen_requests_total", (("model", "healthy"),)) in first
        assert len(caplog.records) == 1, "logged once per kind"
        assert "lost" in caplog.text

    def test_alone_it_leaves_only_the_error_count(self):
        samples = scrape(WatchCollector(lambda: 1 / 0))
        assert samples == {("calidrift_agent_scrape_errors_total", ()): 1.0}

    def test_a_snapshot_that_breaks_half_way_leaves_nothing_behind(self):
        snapshot = make_snapshot()
        short = ExportSnapshot(snapshot.meta, snapshot.total, np.zeros(0))
        samples = scrape(WatchCollector(lambda: short))
        assert samples == {("calidrift_agent_scrape_errors_total", ()): 1.0}

    def test_another_collector_of_the_host_is_untouched(self):
        from prometheus_client import Counter

        registry = CollectorRegistry()
        Counter("host_requests", "Of the host.", registry=registry).inc()
        registry.register(WatchCollector(lambda: 1 / 0))
        assert b"host_requests_total 1.0" in generate_latest(registry)


def test_concurrent_scrapes_see_whole_snapshots():
    lock = threading.Lock()
    buffer = WindowBuffer(3, window_seconds=10.0, now_ns=0)
    stop = threading.Event()

    def drain():
        while not stop.is_set():
            with lock:
                buffer.requests[RequestColumn.SEEN] += 1
                buffer.requests[RequestColumn.SAMPLED] += 1
                buffer.counts[0, CountColumn.ROWS] += 1
                buffer.counts[0, CountColumn.ELEMENTS] += 1

    def source():
        with lock:
            return ExportSnapshot(make_meta(), buffer.total(), buffer.recent_absmax(1))

    registry = CollectorRegistry()
    registry.register(WatchCollector(source))
    failures: list[BaseException | str] = []

    def scraper():
        try:
            last = 0.0
            for _ in range(30):
                get = registry.get_sample_value
                text = generate_latest(registry).decode()
                seen = {
                    sample.name: sample.value
                    for family in text_string_to_metric_families(text)
                    for sample in family.samples
                }
                now = seen["calidrift_agent_seen_requests_total"]
                if now != seen["calidrift_agent_sampled_requests_total"] or now < last:
                    failures.append(f"torn or falling: {seen}")
                last = now
                if get("calidrift_agent_scrape_errors_total") != 0:
                    failures.append("a scrape failed")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=scraper) for _ in range(4)]
    writer = threading.Thread(target=drain)
    writer.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    writer.join(60)
    assert failures == []


def test_exporting_needs_no_torch():
    code = "import sys, calidrift_agent._export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

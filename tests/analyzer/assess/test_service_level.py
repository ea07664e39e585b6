import math
from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._state import SegmentCount
from calidrift_agent.errors import ConfigurationError
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.assess._service_level import effective_tolerance, service_levels
from calidrift_analyzer.assess._tolerance import log_tolerance_evidence
from calidrift_analyzer.records import ModelHistory, SegmentHistory


def history(units, outside, segments=()):
    """Windows of one point; segments as (name, {look: (units, outside)})."""
    units, outside = np.array(units, np.int64), np.array(outside, np.int64)
    return ModelHistory(
        model="net",
        profile="p",
        points=("a:input",),
        end_ns=np.arange(1, units.size + 1, dtype=np.int64) * 10**9,
        seen=units * 100,
        request_units=units,
        request_covered=units - outside,
        units=units[:, None],
        exceedances=outside[:, None],
        segments=tuple(
            SegmentHistory(
                name,
                np.array(list(found), np.int64),
                np.array([pair[0] for pair in found.values()], np.int64),
                np.array([pair[0] - pair[1] for pair in found.values()], np.int64),
            )
            for name, found in segments
        ),
    )


@pytest.fixture
def profile(traffic):
    return traffic.profile({"a:input": traffic.rng.normal(size=(512, 8))})


def test_a_breach_is_the_first_look_at_which_the_evidence_passes(profile):
    units, outside = [10] * 30, [0] * 20 + [2] * 10
    (level,) = service_levels(history(units, outside), profile, AssessRules())

    sums = log_tolerance_evidence(np.cumsum(outside), np.cumsum(units), 0.01)
    first = int(np.flatnonzero(sums >= math.log(2 / 0.05))[0])
    assert level.breach is not None
    assert level.breach.end_ns == (first + 1) * 10**9
    assert (level.breach.units, level.breach.outside) == ((first + 1) * 10, (first - 19) * 2)
    assert level.log10_evidence == pytest.approx(float(sums.max()) / math.log(10))
    assert level.changes_ns
    assert level.share is not None
    assert level.share.estimate == pytest.approx(20 / 300)
    assert level.share.low < level.share.estimate < level.share.high


def test_calm_traffic_breaks_nothing(profile):
    (level,) = service_levels(history([10] * 200, [0] * 200), profile, AssessRules())
    assert level.breach is None
    assert level.changes_ns == ()
    assert level.log10_evidence == 0.0
    assert level.units_to_breach is not None


def test_drift_of_one_small_segment_is_found_where_the_total_hides_it(profile):
    """2 % of 10,000 requests drift: 200 observed requests of the segment must be enough."""
    rng = np.random.default_rng(0)
    windows = 200
    total = np.full(windows, 50)
    inside = rng.binomial(1, 0.3, windows)  # one request of the segment in each window
    segments = [
        ("large", dict.fromkeys(range(windows), (49, 0))),
        ("small", {look: (1, int(inside[look])) for look in range(windows)}),
    ]
    whole, first, second = service_levels(history(total, inside, segments), profile, AssessRules())
    assert (whole.segment, whole.breach) == (None, None)
    assert (first.segment, second.segment) == ("small", "large")
    assert first.breach is not None
    assert first.breach.units <= 200
    assert second.breach is None


def test_segments_share_one_false_alarm_probability(profile):
    """However many segments come, their shares of alpha add up to half of it at most."""
    segments = [(f"s{number}", {number: (1, 0)}) for number in range(40)]
    levels = service_levels(history([1] * 40, [0] * 40, segments), profile, AssessRules())
    spent = sum(10.0**-level.log10_threshold for level in levels if level.segment is not None)
    assert len(levels) == 41
    assert 0.024 < spent < 0.025
    assert 10.0 ** -levels[0].log10_threshold == pytest.approx(0.025)


def test_a_small_reference_does_not_cry_wolf(traffic):
    """Exchangeable traffic leaves 20 independent points more often than 1 % of the time."""
    rng = np.random.default_rng(3)
    broken = naive = 0
    for _ in range(20):
        values = np.abs(rng.standard_normal((256 + 2000, 20)))
        outside = (values[256:] > values[:256].max(axis=0)).any(axis=1).reshape(200, 10).sum(1)
        tensors = {f"p{i}:input": values[:256, i : i + 1] for i in range(20)}
        profile = traffic.profile(tensors)
        (level,) = service_levels(history([10] * 200, outside), profile, AssessRules())
        broken += level.breach is not None
        sums = log_tolerance_evidence(np.cumsum(outside), np.arange(1, 201) * 10, 0.01)
        naive += bool((sums >= math.log(40)).any())
    assert effective_tolerance(profile, 0.01) > 0.05
    assert broken <= 1
    assert naive >= 18  # planted mutant: the declared tolerance as it is


def test_without_bounds_there_is_nothing_to_judge(profile, traffic):
    assert service_levels(history([10], [0]), None, AssessRules()) == ()
    assert effective_tolerance(None, 0.01) is None
    tiny = traffic.profile({f"p{i}:input": np.ones((2, 1)) for i in range(5)})
    assert effective_tolerance(tiny, 0.01) is None
    assert service_levels(history([], []), profile, AssessRules()) == ()


@pytest.mark.parametrize(
    "wrong", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"average_run_length": 0.5}]
)
def test_impossible_rules_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        AssessRules(**wrong)


def test_segments_come_back_from_the_store_look_by_look(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    windows = []
    night = (SegmentCount("night", 4, 1), SegmentCount("day", 6, 6))
    for number, segments in enumerate([(SegmentCount("day", 10, 10),), (), night]):
        window = bench.traffic.unit_window(number, [bench.normal(10)], [100.0])
        windows.append(replace(window, segments=segments))
    bench.store.ingest(bench.meta, windows, batch=1)

    found = bench.store.history("net", bench.profile.digest)

    assert found.request_covered.tolist() == [10, 10, 10]
    assert [one.name for one in found.segments] == ["day", "night"]
    day, night = found.segments
    assert (day.looks.tolist(), day.units.tolist(), day.covered.tolist()) == (
        [0, 2],
        [10, 6],
        [10, 6],
    )
    assert (night.looks.tolist(), night.units.tolist(), night.covered.tolist()) == ([2], [4], [1])
    levels = bench.assess().service_levels
    assert [level.segment for level in levels] == [None, "night", "day"]


def test_points_that_stand_out_now_are_listed(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    bench.send(bench.normal(40, scale=5.0), bench.normal(40))
    assert bench.assess().standing_out == ("a:input",)
    bench.send(bench.normal(4000), bench.normal(4000), units_per_window=500)
    later = bench.assess()
    assert later.point("a:input").log10_evidence_now < later.point("a:input").log10_evidence

import math
from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import ObservedBound, ReferenceOrigin
from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import ReferenceSource
from calidrift_agent.errors import ConfigurationError
from calidrift_analyzer.assess import AssessRules
from calidrift_analyzer.assess._service_level import service_levels
from calidrift_analyzer.assess._tolerance import (
    confidence_sequence,
    log_tolerance_evidence,
    reference_tolerance,
    units_to_breach,
)
from calidrift_analyzer.records import ModelHistory, SegmentHistory

PROVISIONAL = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)


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
    first = int(np.flatnonzero(sums >= math.log(4 / 0.05))[0])
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


def counted(found, **units):
    """The same history, with the units of each segment in the reference."""
    segments = (replace(one, reference_units=units[one.name]) for one in found.segments)
    return replace(found, segments=tuple(segments))


def test_drift_of_one_small_segment_is_found_where_the_total_hides_it(profile):
    """2 % of 10,000 requests drift: 200 observed requests of the segment must be enough."""
    rng = np.random.default_rng(0)
    windows = 200
    total = np.full(windows, 50)
    inside = rng.binomial(1, 0.3, windows)  # one request of the segment in each window
    segments = [
        ("small", {look: (1, int(inside[look])) for look in range(windows)}),
        ("large", dict.fromkeys(range(windows), (49, 0))),
    ]
    found = history(total, inside, segments)
    whole, first, second = service_levels(
        counted(found, small=32, large=480), profile, AssessRules()
    )
    assert (whole.segment, whole.breach) == (None, None)
    assert (first.segment, second.segment) == ("small", "large")
    assert first.breach is not None
    assert first.breach.units <= 200
    assert (first.reference_units, second.reference_units) == (32, 480)
    assert second.breach is None


@pytest.mark.parametrize(
    ("points", "left", "reference_units"),
    [(1, 0.3, 25), (1, 1.0, 2), (5, 0.5, 29), (50, 1.0, 56)],
)
def test_how_many_reference_units_of_a_segment_make_that_possible(
    points, left, reference_units, traffic
):
    """The table in the README: drift of the first segment is found within 200 of its units."""
    profile = traffic.profile({f"p{i}:input": np.ones((512, 1)) for i in range(points)})
    found = history([50], [0], [("small", {0: (1, 0)})])
    needed = {}
    for units in (reference_units, reference_units - 1):
        _, small = service_levels(counted(found, small=units), profile, AssessRules())
        threshold = small.log10_threshold * math.log(10.0)
        needed[units] = (
            units_to_breach(left, small.tolerance, threshold) if small.tolerance < 1.0 else None
        )
    assert needed[reference_units] <= 200
    assert (needed[reference_units - 1] or math.inf) > 200


def test_a_segment_that_the_reference_hardly_knows_is_held_against_its_share(traffic):
    """2 % of the traffic: 5 points promise 2.2 % of all, so anything of it."""
    profile = traffic.profile({f"p{i}:input": np.ones((512, 1)) for i in range(5)})
    found = history([50] * 100, [1] * 100, [("small", dict.fromkeys(range(100), (1, 1)))])
    for units in (0, 5, None):
        whole, small = service_levels(counted(found, small=units), profile, AssessRules())
        assert small.reference_units is None
        assert (small.tolerance, small.breach, small.log10_evidence) == (1.0, None, 0.0)
        assert (small.changes_ns, small.units_to_breach) == ((), None)
        assert whole.tolerance < 1.0
    _, small = service_levels(counted(found, small=40), profile, AssessRules())
    assert small.breach is not None


def test_where_nobody_counted_the_segment_its_share_of_the_traffic_decides(traffic):
    """2 % of the traffic: of 20,000 reference units that promise 0.03 % of all, 1.4 % of it."""
    small = dict.fromkeys(range(400), (1, 0))
    for units, strict in ((512, False), (20_000, True)):
        profile = traffic.profile({"a:input": traffic.rng.random((units, 1))})
        found = history([50] * 400, [0] * 400, [("small", small)])
        whole, level = service_levels(found, profile, AssessRules())
        assert level.reference_units is None
        promised = reference_tolerance(1, units, 1 - 0.05 / 4)
        assert whole.tolerance == max(0.01, promised)
        low = confidence_sequence(400, 20_000, 0.05 / 8).low
        assert level.tolerance == pytest.approx(max(0.01, promised / low))
        assert (level.tolerance < 0.02) is strict


def test_a_point_that_few_units_reach_does_not_loosen_the_tolerance(profile, traffic):
    """Few units of its own: a unit that does not come by cannot leave it either."""
    values = traffic.rng.normal(size=(512, 8))
    both = traffic.profile({"a:input": values, "rare:input": values})
    top = both.points["rare:input"].observed_bound.value

    def tolerance(rank, units):
        bound = ObservedBound(value=top, rank=rank, units=units, top=(top,))
        points = dict(both.points)
        points["rare:input"] = replace(points["rare:input"], observed_bound=bound)
        found = service_levels(history([10], [0]), replace(both, points=points), AssessRules())
        return found[0].tolerance

    assert [tolerance(1, units) for units in (512, 40, 3)] == [tolerance(1, 512)] * 3
    assert tolerance(1, 3) < 0.013
    # One rank more is one block more, not one for every point.
    assert tolerance(11, 512) == reference_tolerance(12, 512, 1 - 0.05 / 4) < 0.05


def test_that_no_service_level_can_be_promised_is_said(bench):
    bench.calibrate({f"p{i}:input": bench.normal(10, elements=4) for i in range(12)})
    bench.send(*(bench.normal(40, elements=4) for _ in range(12)))
    found = bench.assess()
    (level,) = found.service_levels
    assert (level.tolerance, level.breach, level.reference_units) == (1.0, None, 10)
    assert (
        "no service level is in force: a reference of 10 units promises none over 12 points; more "
        "than 12 are needed, better ten times that (`calidrift reference learn --units`)"
    ) in found.sentence
    bench.calibrate({"a:input": bench.normal(512)})
    bench.send(bench.normal(40))
    assert "service level" not in bench.assess().sentence


def test_segments_share_one_false_alarm_probability(profile):
    """However many segments come, their shares of alpha add up to half of it at most."""
    segments = [(f"s{number}", {number: (1, 0)}) for number in range(40)]
    levels = service_levels(history([1] * 40, [0] * 40, segments), profile, AssessRules())
    spent = sum(10.0**-level.log10_threshold for level in levels if level.segment is not None)
    assert len(levels) == 41
    # The other half of each share is for what the tolerance rests on.
    assert 0.012 < spent < 0.0125
    assert 10.0 ** -levels[0].log10_threshold == pytest.approx(0.0125)
    provisional = replace(profile, reference=PROVISIONAL)
    (level,) = service_levels(history([1], [0]), provisional, AssessRules())
    assert 10.0**-level.log10_threshold == pytest.approx(0.025)


def test_a_small_reference_does_not_cry_wolf(traffic):
    """Exchangeable traffic leaves 20 independent points more often than 1 % of the time."""
    rng = np.random.default_rng(3)
    broken = naive = 0
    tolerance = reference_tolerance(20, 256, 1 - 0.05 / 4)
    for _ in range(20):
        values = np.abs(rng.standard_normal((256 + 2000, 20)))
        outside = (values[256:] > values[:256].max(axis=0)).any(axis=1).reshape(200, 10).sum(1)
        tensors = {f"p{i}:input": values[:256, i : i + 1] for i in range(20)}
        profile = traffic.profile(tensors)
        (level,) = service_levels(history([10] * 200, outside), profile, AssessRules())
        assert level.tolerance == tolerance > 0.05
        broken += level.breach is not None
        sums = log_tolerance_evidence(np.cumsum(outside), np.arange(1, 201) * 10, 0.01)
        naive += bool((sums >= math.log(40)).any())
    assert broken <= 1
    assert naive >= 18  # planted mutant: the declared tolerance as it is


def test_without_bounds_there_is_nothing_to_judge(profile):
    assert service_levels(history([10], [0]), None, AssessRules()) == ()
    bare = replace(profile.points["a:input"], observed_bound=None)
    ranges = replace(profile, points={"a:input": bare})
    assert service_levels(history([10], [0]), ranges, AssessRules()) == ()
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
    assert [level.segment for level in levels] == [None, "day", "night"]
    assert {one.reference_units for one in found.segments} == {None}
    bench.store.references.put_segments(bench.profile.digest, {"day": 400, "": 112})
    found = bench.store.history("net", bench.profile.digest)
    assert [one.reference_units for one in found.segments] == [400, 0]
    _, day, night = bench.assess().service_levels
    assert (day.segment, day.reference_units) == ("day", 400)
    assert (night.segment, night.reference_units) == ("night", None)


def test_points_that_stand_out_now_are_listed(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    bench.send(bench.normal(40, scale=5.0), bench.normal(40))
    assert bench.assess().standing_out == ("a:input",)
    bench.send(bench.normal(4000), bench.normal(4000), units_per_window=500)
    later = bench.assess()
    assert later.point("a:input").log10_evidence_now < later.point("a:input").log10_evidence

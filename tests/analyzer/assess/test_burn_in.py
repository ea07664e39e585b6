"""After a promotion: learning, with the tolerance alarm alone, until units are enough."""

from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import ReferenceOrigin
from calidrift_agent._state import SegmentCount
from calidrift_agent._vocabulary import CountColumn, ReferenceSource, RequestColumn, ValueColumn
from calidrift_analyzer.assess import AssessRules, assess_stored
from calidrift_analyzer.records import BurnIn, Verdict, needs_action

PROVISIONAL = ReferenceOrigin(source=ReferenceSource.PROVISIONAL)
POINTS = ("a:input", "b:input")


@pytest.fixture
def promoted(bench):
    """A bench after a promotion: bounds of a recalibration."""

    def make(origin=PROVISIONAL, **options):
        bench.calibrate({name: bench.normal(512) for name in POINTS}, **options)
        bench.profile = replace(bench.profile, reference=origin)
        bench.meta = replace(bench.meta, profile=bench.profile.digest)
        return bench

    return make


def test_the_words_say_how_far_it_is(promoted):
    bench = promoted()
    bench.send(*(bench.normal(212) * 0.9 for _ in POINTS))
    found = bench.assess()
    assert found.verdict is Verdict.LEARNING
    assert found.sentence == (
        "learning: 212 of 512 random units since this version was promoted; until then only the "
        "tolerance alarm speaks"
    )
    assert found.next_step.startswith(
        "nothing to do yet; run `calidrift reference learn` when they are complete, in about "
    )
    assert found.burn_in == BurnIn(
        units=212, wanted=512, seconds_left=pytest.approx(300 * 22 / 212), provisional=True
    )
    assert not found.burn_in.complete


def test_nothing_is_concluded_from_a_provisional_bound(promoted):
    bench = promoted()
    bench.send(bench.normal(60), bench.normal(60, scale=9.0))
    found = bench.assess(tolerance=0.999)  # whatever leaves is tolerated
    assert {point.verdict for point in found.points} == {Verdict.LEARNING}
    for point in found.points:
        assert point.log10_evidence is point.alarm is point.detectable_exceedance is None
    assert found.alarm is found.detectable_exceedance is found.units_to_detect is None
    assert found.standing_out == ()
    # What is measured is told all the same.
    assert found.point("b:input").exceedances == 60
    assert found.point("b:input").sentence.startswith("60 of 60 units left the provisional range")


def test_the_same_traffic_alarms_with_a_random_reference(promoted):
    bench = promoted(ReferenceOrigin())
    bench.send(bench.normal(60), bench.normal(60, scale=9.0))
    found = bench.assess()
    assert found.point("b:input").alarm is not None
    assert found.burn_in is None


def test_when_units_are_enough_the_next_step_is_to_learn(promoted):
    bench = promoted()
    bench.send(*(bench.normal(80) * 0.9 for _ in POINTS))
    found = bench.assess(reference_units=80)
    assert found.verdict is Verdict.LEARNING
    assert found.burn_in.complete
    assert "80 random units since this version was promoted are enough" in found.sentence
    assert found.next_step == "run `calidrift reference learn`"


def test_harmful_drift_is_found_by_the_tolerance_alarm(promoted):
    bench = promoted()
    bench.send(bench.normal(40) * 0.9, bench.normal(40) * 0.9)
    assert bench.assess().verdict is Verdict.LEARNING
    bench.send(bench.normal(100), bench.normal(100, scale=20.0))
    found = bench.assess()
    assert found.service_levels[0].breach is not None
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert found.sentence.startswith("traffic left the calibrated range at 1 point of 2, with harm")
    assert found.sentence.endswith("until then only the tolerance alarm speaks")
    assert "learning: 140 of 512 random units" in found.sentence
    assert found.next_step.startswith("run `calidrift select`, then `calidrift recalibrate`")
    worst, calm = found.points
    assert (worst.name, worst.verdict) == ("b:input", Verdict.DRIFTED_HARMFUL)
    assert "left the provisional range, more than is tolerated" in worst.sentence
    assert calm.verdict is Verdict.LEARNING
    assert worst.alarm == found.alarm
    assert worst.alarm.observed == found.service_levels[0].breach.units
    assert 0 < worst.alarm.exceedances <= found.service_levels[0].breach.outside
    assert worst.alarm.served >= worst.alarm.observed
    assert worst.log10_evidence == found.service_levels[0].log10_evidence
    assert worst.log10_evidence_now is None  # the evidence itself stays silent
    assert needs_action(found)


def test_the_drift_is_judged_on_the_traffic_since_it_began(promoted):
    bench = promoted()
    bench.send(bench.normal(300) * 0.9, bench.normal(300) * 0.9)
    bench.send(bench.normal(100), bench.normal(100, scale=20.0))
    calm_ns = bench.store.history("net", bench.profile.digest).end_ns[29]
    bench.store.put_profile(bench.profile)
    found = assess_stored(bench.store, "net")
    assert found.alarm.since_ns == calm_ns
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert found.points[0].sqnr_change_db < bench.assess().points[0].sqnr_change_db


def test_harmless_drift_may_become_the_reference(promoted):
    bench = promoted()
    peak = bench.profile.points["b:input"].observed_bound.value
    wide = np.full((100, 64), peak * 1.0001)
    bench.send(bench.normal(100) * 0.5, wide)
    found = bench.assess(harm_db=60.0)
    assert found.verdict is Verdict.DRIFTED_HARMLESS
    assert "--force" in found.next_step
    assert not needs_action(found)


@pytest.mark.parametrize("points", [50, 70])
def test_many_points_and_few_units_leave_an_alarm_that_can_speak(bench, points):
    """What 64 *random* units could promise is 85 % at 50 points, and nothing at 70."""
    names = [f"l{number}:input" for number in range(points)]
    bench.calibrate({name: bench.normal(64, elements=8) for name in names})
    bench.profile = replace(bench.profile, reference=PROVISIONAL)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    scale = np.where(bench.traffic.rng.random((60, 1)) < 0.38, 5.0, 0.3)
    bench.send(*(bench.normal(60, elements=8) * scale for _ in names))
    found = bench.assess()
    assert found.service_levels[0].tolerance == 0.01
    assert found.service_levels[0].breach is not None
    assert found.verdict is Verdict.DRIFTED_HARMFUL


def test_without_any_bound_no_alarm_is_said_to_speak(promoted):
    bench = promoted()
    points = {n: replace(p, observed_bound=None) for n, p in bench.profile.points.items()}
    bench.profile = replace(bench.profile, points=points)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    bench.send(*(bench.normal(30) for _ in POINTS))
    found = bench.assess()
    assert found.service_levels == ()
    assert found.sentence.endswith(
        "until then no alarm can speak, because the profile has no observed bounds"
    )


def test_suspected_traffic_is_not_told_to_be_learned(promoted):
    bench = promoted()
    bench.send(bench.normal(60) * 0.9, bench.normal(60, scale=9.0))
    found = bench.assess(tolerance=0.999, reference_units=60)
    assert found.points[0].suspected
    assert "only with --force" in found.next_step


def test_units_with_nan_make_the_alarm_harmful(promoted):
    bench = promoted()
    spoil(bench, 6)
    found = bench.assess()
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert needs_action(found)
    assert found.next_step.startswith("find out where NaN and Inf come from")


def spoil(bench, units):
    """Calm windows of 20 units, of which so many hold a NaN at the second point."""
    bounds = [one.observed_bound.value for one in bench.profile.points.values()]
    windows = []
    for number in range(10):
        window = bench.traffic.unit_window(number, [bench.normal(20) * 0.5 for _ in POINTS], bounds)
        for column in (CountColumn.EXCEEDANCES, CountColumn.NAN, CountColumn.UNITS_NOT_FINITE):
            window.counts[1, column] += units
        window.requests[RequestColumn.UNITS_COVERED] -= units
        windows.append(window)
    bench.store.ingest(bench.meta, windows, batch=bench.store.next_batch())


def test_with_a_random_reference_as_well(promoted):
    bench = promoted(ReferenceOrigin())
    spoil(bench, 6)
    found = bench.assess()
    worst = found.point("b:input")
    assert abs(worst.sqnr_change_db) < 6.0  # finite values are well
    assert worst.verdict is found.verdict is Verdict.DRIFTED_HARMFUL
    assert needs_action(found)
    assert "what that costs cannot be predicted" in found.sentence
    assert "60 NaN among its values, and what they cost cannot be predicted" in worst.sentence
    assert found.next_step == (
        "find out where NaN and Inf come from; new ranges cannot repair them"
    )


def test_a_segment_alone_raises_it_too(promoted):
    bench = promoted()
    bench.calibrate({name: bench.normal(20_000, elements=8) for name in POINTS})
    bench.profile = replace(bench.profile, reference=PROVISIONAL)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    bounds = [one.observed_bound.value for one in bench.profile.points.values()]
    windows = []
    for number in range(20):  # one unit in two hundred, the only one by night
        values = [bench.normal(200, elements=8) * 0.5 for _ in POINTS]
        values[1][-1] *= 100.0
        window = bench.traffic.unit_window(number, values, bounds)
        segments = (SegmentCount("day", 199, 199), SegmentCount("night", 1, 0))
        windows.append(replace(window, segments=segments))
    bench.store.ingest(bench.meta, windows, batch=bench.store.next_batch())
    found = bench.assess()
    broken = [level.segment for level in found.service_levels if level.breach]
    assert broken == ["night"]
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert [point.name for point in found.points if point.alarm] == ["b:input"]


def in_the_burn_in(bench, values, night):
    """Windows of 100 units of two points; `night`: which of them are of that segment."""
    bounds = [one.observed_bound.value for one in bench.profile.points.values()]
    windows = []
    for number in range(len(night) // 100):
        part = slice(number * 100, number * 100 + 100)
        mine = [one[part] for one in values]
        window = bench.traffic.unit_window(number, mine, bounds)
        pairs = zip(mine, bounds, strict=True)
        inside = np.all([np.abs(one).max(axis=1) <= bound for one, bound in pairs], axis=0)
        segments = tuple(
            SegmentCount(name, int(chosen.sum()), int((chosen & inside).sum()))
            for name, chosen in (("day", ~night[part]), ("night", night[part]))
        )
        windows.append(replace(window, segments=segments))
    bench.store.ingest(bench.meta, windows, batch=bench.store.next_batch())
    bench.store.put_profile(bench.profile)


def leave(bench, values, units, point):
    """Let some units leave the provisional bound of a point by a hair."""
    name = POINTS[point]
    values[point][units, 0] = bench.profile.points[name].observed_bound.value * 1.01


def test_a_broken_segment_names_no_point_that_it_may_not_be_about(promoted):
    """By night units leave b; by day as many leave a, which is tolerated by day."""
    bench = promoted()
    bench.calibrate({name: bench.normal(4_000, elements=8) for name in POINTS})
    bench.profile = replace(bench.profile, reference=PROVISIONAL)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    values = [bench.normal(10_000, elements=8) * 0.4 for _ in POINTS]
    place = np.arange(10_000)
    night = place % 100 < 2
    leave(bench, values, night & (place % 200 < 100), 1)  # 100 of 200
    leave(bench, values, place % 100 == 50, 0)  # 100 of 9,800
    in_the_burn_in(bench, values, night)
    found = bench.assess(tolerance=0.02)
    broken = [level.segment for level in found.service_levels if level.breach]
    assert broken == ["night"]
    assert [point.name for point in found.points if point.alarm] == []
    assert found.verdict is Verdict.LEARNING
    assert found.sentence.startswith("segment night breaks the service level since ")
    assert "100 of 200 units left a range" in found.sentence
    assert found.next_step.startswith(
        "look with `calidrift coverage` which points the traffic of segment night leaves"
    )
    assert found.next_step.endswith("`calidrift reference learn --force` makes it the reference")


def test_the_point_that_alone_accounts_for_a_broken_segment_is_named(promoted):
    bench = promoted()
    bench.calibrate({name: bench.normal(4_000, elements=8) for name in POINTS})
    bench.profile = replace(bench.profile, reference=PROVISIONAL)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    values = [bench.normal(10_000, elements=8) * 0.4 for _ in POINTS]
    place = np.arange(10_000)
    night = place % 100 < 2
    leave(bench, values, night & (place % 200 < 100), 1)
    leave(bench, values, place % 1_000 == 50, 0)  # 10: 90 of the 100 must have left b
    in_the_burn_in(bench, values, night)
    found = assess_stored(bench.store, "net", rules=AssessRules(tolerance=0.02))
    assert [point.name for point in found.points if point.alarm] == ["b:input"]
    assert found.sentence.startswith(
        "segment night (2 % of the traffic; the rest is in order) left"
    )


def test_what_many_points_break_together_names_none_of_them(promoted):
    """0.8 % of the units leave a, 0.8 % others leave b: 1.6 % in all, and 1 % is tolerated."""
    bench = promoted()
    values = [bench.normal(20_000, elements=8) * 0.4 for _ in POINTS]
    place = np.arange(20_000)
    leave(bench, values, place % 125 == 0, 0)
    leave(bench, values, place % 125 == 60, 1)
    in_the_burn_in(bench, values, np.zeros(20_000, bool))
    found = bench.assess()
    assert [level.segment for level in found.service_levels if level.breach] == [None]
    assert all(point.alarm is None for point in found.points)
    assert found.verdict is Verdict.LEARNING
    assert found.sentence.startswith("all traffic breaks the service level since ")
    assert not needs_action(found)


def test_a_segment_that_was_always_wider_does_not_alarm_in_the_burn_in(promoted):
    bench = promoted()
    place = np.arange(10_000)
    night = place % 50 == 0
    values = [bench.normal(10_000) * np.where(night, 1.5, 1.0)[:, None] for _ in POINTS]
    bench.calibrate({name: one[:512] for name, one in zip(POINTS, values, strict=True)})
    bench.profile = replace(bench.profile, reference=PROVISIONAL)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    in_the_burn_in(bench, values, night)
    found = bench.assess()
    assert found.segments[0].name == "night"
    assert found.segments[0].coverage.estimate < 0.95  # far more than 1 % of it leave
    assert not any(level.breach for level in found.service_levels)
    assert found.verdict is Verdict.LEARNING


def test_windows_of_an_older_agent_ask_for_an_update(promoted):
    bench = promoted()
    bounds = [one.observed_bound.value for one in bench.profile.points.values()]
    window = bench.traffic.unit_window(0, [bench.normal(10) * 0.5 for _ in POINTS], bounds)
    window.counts[:, CountColumn.UNITS_MEASURED] = 0
    window.values[:, ValueColumn.UNIT_HIGHEST] = -np.inf
    bench.store.ingest(bench.meta, [window], batch=bench.store.next_batch())
    found = bench.assess()
    assert found.verdict is Verdict.LEARNING
    assert found.burn_in.seconds_left is None
    assert "earlier ones do not measure" in found.next_step


def test_a_blind_point_stays_blind(promoted):
    bench = promoted()
    bounds = [one.observed_bound.value for one in bench.profile.points.values()]
    window = bench.traffic.unit_window(0, [bench.normal(10) * 0.5 for _ in POINTS], bounds)
    window.counts[1] = 0
    window.cells[1] = 0
    bench.store.ingest(bench.meta, [window], batch=bench.store.next_batch())
    found = bench.assess()
    assert found.verdict is Verdict.BLIND
    assert "never fired" in found.sentence
    assert "learning: 10 of 512" in found.sentence


def test_ranges_only_say_how_a_reference_can_be_had(bench):
    bench.calibrate({name: bench.normal(64) for name in POINTS}, sketches=False)
    points = {n: replace(p, observed_bound=None) for n, p in bench.profile.points.items()}
    bench.profile = replace(bench.profile, points=points)
    bench.meta = replace(bench.meta, profile=bench.profile.digest)
    bench.send(*(bench.normal(30) for _ in POINTS))
    found = bench.assess()
    assert found.verdict is Verdict.NO_REFERENCE
    assert found.burn_in.units == 30
    assert not found.burn_in.provisional
    assert "`calidrift reference learn` when 512 random units were observed (30 so" in (
        found.next_step
    )
    assert "calidrift calibrate" in found.next_step
    ready = bench.assess(reference_units=30)
    assert ready.next_step == (
        "run `calidrift reference learn`: 30 random units are enough for a reference"
    )


def test_every_profile_starts_afresh(promoted):
    # What alarmed under one profile says nothing under the next one.
    bench = promoted(ReferenceOrigin())
    bench.send(bench.normal(60), bench.normal(60, scale=9.0))
    assert bench.assess().alarm is not None
    bench.calibrate({name: bench.normal(512, scale=2.0) for name in POINTS})
    bench.send(*(bench.normal(20) for _ in POINTS))
    found = bench.assess()
    assert found.alarm is None
    assert found.units == 20
    assert found.service_levels[0].units == 20
    assert found.verdict is Verdict.NOT_DRIFTED

import math
from dataclasses import replace

import numpy as np
import pytest

from calidrift_agent._profile import CalibrationProfile
from calidrift_analyzer.assess import assess
from calidrift_analyzer.records import Verdict


def test_calm_traffic_is_not_drift(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    bench.send(bench.normal(400), bench.normal(400), seen_per_unit=20)
    found = bench.assess()
    assert found.verdict is Verdict.NOT_DRIFTED
    assert {point.verdict for point in found.points} == {Verdict.NOT_DRIFTED}
    assert found.alarm is None
    assert (found.units, found.served, found.sampling_ratio) == (400, 8000, 0.05)
    point = found.point("a:input")
    assert abs(point.sqnr_change_db) < 1.0
    assert point.coverage.low <= point.coverage.estimate <= point.coverage.high
    assert point.coverage.estimate == pytest.approx(1 - point.exceedance.estimate)
    assert point.mass_coverage > 0.999
    assert point.log10_evidence < found.log10_threshold
    assert found.log10_threshold == pytest.approx(math.log10(2 / 0.05))
    assert found.request_coverage_low < found.request_coverage.estimate
    assert found.detectable_exceedance == pytest.approx(0.0193, abs=2e-3)
    assert found.units_to_detect > 0
    rate = found.units / ((found.last_ns - found.first_ns) / 1e9)
    assert found.seconds_to_detect == pytest.approx(found.units_to_detect / rate)
    assert "as chance has it" in point.sentence
    with pytest.raises(KeyError):
        found.point("nowhere")


def test_clipping_drift_is_harmful_and_worst_first(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    bench.send(bench.normal(100), bench.normal(100))
    bench.send(bench.normal(50), bench.normal(50, scale=4.0), seen_per_unit=10)
    found = bench.assess()
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert found.worst_point == "b:input"
    worst = found.points[0]
    assert worst.verdict is Verdict.DRIFTED_HARMFUL
    assert worst.sqnr_change_db < -10
    assert worst.sqnr_change_db == pytest.approx(
        worst.sqnr_production_db - worst.sqnr_calibration_db
    )
    assert worst.overload_production > worst.overload_calibration
    assert worst.clipped_energy == pytest.approx(worst.overload_production, rel=0.2)
    assert "predicted at the frozen range: SQNR fell" in worst.sentence
    assert "calidrift select" in found.next_step
    # 100 calm units, then the first window of ten that drifted.
    assert found.alarm == worst.alarm
    assert (found.alarm.units, found.alarm.observed, found.alarm.served) == (110, 110, 200)
    assert found.alarm.exceedances <= 10
    assert found.points[1].verdict is Verdict.NOT_DRIFTED
    assert "at 1 point of 2, with harm" in found.sentence


def test_an_exceedance_that_costs_nothing_is_harmless(bench):
    """A clip range with headroom: units leave the observed bound, but nothing is clipped."""
    rng = bench.traffic.rng
    bench.calibrate({"a:input": rng.uniform(-1.0, 1.0, (512, 64))})
    points = {
        name: replace(
            point,
            clip_bound=type(point.clip_bound).of_quantizer(4.0 / 255, 128, 0, 255, "uint8"),
        )
        for name, point in bench.profile.points.items()
    }
    bench.profile = replace(bench.profile, points=points)
    bench.meta = bench.traffic.meta(points=("a:input",), profile=bench.profile.digest)
    bench.send(rng.uniform(-1.3, 1.3, (100, 64)))
    found = bench.assess()
    assert found.verdict is Verdict.DRIFTED_HARMLESS
    assert found.points[0].sqnr_change_db > 0
    assert found.points[0].overload_production == 0.0
    assert "little harm" in found.points[0].sentence
    assert "without harm" in found.sentence
    assert "nothing to repair" in found.next_step


def test_weaker_signals_alone_are_no_drift(bench):
    """SQNR falls because the signal is small; nothing is clipped, nothing exceeds."""
    bench.calibrate({"a:input": bench.normal(512)})
    bench.send(bench.normal(300, scale=0.05))
    found = bench.assess()
    assert found.verdict is Verdict.NOT_DRIFTED
    assert found.points[0].sqnr_change_db < -10


def test_the_drift_that_ks_does_not_see(bench):
    """One element in a thousand times 20: KS below 0.005, our alarm and the harm at once."""
    rng = bench.traffic.rng
    bench.calibrate({"a:input": rng.standard_t(4, size=(512, 1024))})
    drifted = rng.standard_t(4, size=(200, 1024))
    drifted[rng.random(drifted.shape) < 1e-3] *= 20.0
    calm = np.sort(rng.standard_t(4, size=drifted.size))
    merged = np.concatenate([calm, drifted.ravel()])
    ks = np.abs(
        np.searchsorted(calm, merged, side="right") / calm.size
        - np.searchsorted(np.sort(drifted.ravel()), merged, side="right") / drifted.size
    ).max()
    assert ks < 0.005
    bench.send(drifted)
    found = bench.assess()
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert found.alarm.observed <= 50
    assert found.points[0].sqnr_change_db < -1


def test_small_reference_is_learning(bench):
    bench.calibrate({"a:input": bench.normal(8)})
    bench.send(np.zeros((50, 64)))
    found = bench.assess()
    assert found.verdict is Verdict.LEARNING
    assert "only 8 units" in found.points[0].sentence
    assert "more random units" in found.next_step


def test_a_reference_of_one_unit_can_never_alarm(bench):
    bench.calibrate({"a:input": bench.normal(1)})
    bench.send(bench.normal(50, scale=9.0))
    found = bench.assess()
    assert found.verdict is Verdict.LEARNING
    assert found.detectable_exceedance is None
    assert found.units_to_detect is None
    assert "at any rate" in found.points[0].sentence


def test_learning_never_hides_an_alarm(bench):
    bench.calibrate({"a:input": bench.normal(20)})
    bench.send(bench.normal(60, scale=9.0))
    assert bench.assess().verdict is Verdict.DRIFTED_HARMFUL


def without_bounds(profile: CalibrationProfile) -> CalibrationProfile:
    points = {
        name: replace(point, observed_bound=None, sketch=None)
        for name, point in profile.points.items()
    }
    return replace(profile, points=points, units=0)


def test_ranges_alone_are_no_reference(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    bench.profile = without_bounds(bench.profile)
    bench.meta = bench.traffic.meta(points=("a:input",), profile=bench.profile.digest)
    bench.send(bench.normal(50, scale=5.0))
    found = bench.assess()
    assert found.verdict is Verdict.NO_REFERENCE
    point = found.points[0]
    assert (point.coverage, point.exceedance, point.log10_evidence) == (None, None, None)
    assert found.request_coverage is None
    assert found.request_coverage_low is None
    assert point.mass_coverage < 1.0
    assert point.sqnr_production_db is not None
    assert point.sqnr_change_db is None
    assert "no observed bounds" in found.sentence


def test_no_profile_is_no_reference(bench, store, traffic):
    bench.calibrate({"a:input": bench.normal(16)})
    for digest, words in (("", "has no calibration profile"), ("e" * 64, "not been collected")):
        meta = traffic.meta(points=("a:input",), profile=digest)
        store.ingest(meta, [traffic.unit_window(0, [bench.normal(5)], [None])], batch=1)
        found = assess(store.totals("net", digest), store.history("net", digest), None)
        assert found.verdict is Verdict.NO_REFERENCE
        assert words in found.sentence
        assert found.detectable_exceedance is None


def test_no_windows_is_no_data(bench, store):
    bench.calibrate({"a:input": bench.normal(64)})
    found = bench.assess()
    assert found.verdict is Verdict.NO_DATA
    assert found.sampling_ratio is None
    assert [point.verdict for point in found.points] == [Verdict.NO_DATA]
    assert "state_dirs" in found.next_step
    store.ingest(bench.meta, [], batch=1)
    assert bench.assess().verdict is Verdict.NO_DATA


def silent(window, row):
    """The window as if the point had never fired."""
    window.counts[row] = 0
    window.cells[row] = 0
    return window


def test_a_point_that_never_fires_is_blind(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    window = bench.traffic.unit_window(0, [bench.normal(50), bench.normal(50)], [9.0, 9.0])
    bench.store.ingest(bench.meta, [silent(window, 1)], batch=1)
    found = bench.assess()
    assert found.verdict is Verdict.BLIND
    assert found.points[0].name == "b:input"
    assert found.points[0].verdict is Verdict.BLIND
    assert found.points[1].verdict is Verdict.NOT_DRIFTED
    assert "1 point of 2 never fired" in found.sentence


def test_a_point_the_agent_does_not_even_list_is_blind(bench):
    bench.calibrate({"a:input": bench.normal(512), "gone:input": bench.normal(512)})
    meta = bench.traffic.meta(points=("a:input",), profile=bench.profile.digest)
    bench.store.ingest(meta, [bench.traffic.unit_window(0, [bench.normal(20)], [9.0])], batch=1)
    found = bench.assess()
    assert found.point("gone:input").verdict is Verdict.BLIND


def test_an_unexpected_silent_point_is_only_without_data(bench):
    """A point that did not fire in calibration either (a training-only head) blinds nobody."""
    bench.calibrate({"a:input": bench.normal(512), "aux:input": bench.normal(512)})
    points = dict(bench.profile.points)
    points["aux:input"] = replace(points["aux:input"], observed_bound=None, sketch=None)
    bench.profile = replace(bench.profile, points=points)
    bench.meta = bench.traffic.meta(points=tuple(points), profile=bench.profile.digest)
    window = bench.traffic.unit_window(0, [bench.normal(20)] * 2, [9.0, None])
    bench.store.ingest(bench.meta, [silent(window, 1)], batch=1)
    found = bench.assess()
    assert found.point("aux:input").verdict is Verdict.NO_DATA
    assert found.verdict is Verdict.NOT_DRIFTED
    assert found.log10_threshold == pytest.approx(math.log10(1 / 0.05))


def test_harm_outranks_blindness_and_both_are_said(bench):
    bench.calibrate({"a:input": bench.normal(512), "b:input": bench.normal(512)})
    bound = bench.profile.points["a:input"].observed_bound.value
    values = [bench.normal(50, scale=5.0), bench.normal(50)]
    window = silent(bench.traffic.unit_window(0, values, [bound, 9.0]), 1)
    bench.store.ingest(bench.meta, [window], batch=1)
    found = bench.assess()
    assert found.verdict is Verdict.DRIFTED_HARMFUL
    assert "never fired" in found.sentence


DRIFTED = np.r_[[9.0] * 4, [0.5] * 6][:, None]
LONE = np.r_[9.0, [0.5] * 9][:, None]
CALM = np.full((10, 1), 0.5)


@pytest.mark.parametrize(
    ("after", "over"),
    [
        ([CALM] * 40, True),
        ([CALM] * 30 + [LONE] + [CALM] * 30, True),  # as chance has it
        ([CALM] * 2, False),  # too few to tell
        ([CALM, DRIFTED] * 20, False),  # half as often, and still a drift
        ([CALM, LONE] * 20, False),  # an eighth, and still more than the reference explains
        ([], False),
    ],
    ids=["over", "but one", "too few", "weaker", "weak", "at once"],
)
def test_a_drift_that_ended_is_told_to_have_ended(bench, after, over):
    bench.calibrate({"a:input": bench.normal(512)})
    scales = np.concatenate([CALM] * 10 + [DRIFTED] * 5 + after)
    bench.send(bench.normal(len(scales)) * scales)
    found = bench.assess()
    point = found.point("a:input")
    assert point.alarm is not None, "an alarm is never taken back"
    assert (point.ended_ns is not None) is over
    assert ("inside the range again since about" in point.sentence) is over
    assert ("inside the range again since about" in found.sentence) is over
    assert point.next_step.startswith("it is over for now") is over
    if over:
        history = bench.store.history("net", bench.profile.digest)
        assert point.ended_ns == history.end_ns[14]
        left = sum(one is LONE for one in after)
        assert f"({left} of {10 * len(after)} units left it)" in point.sentence

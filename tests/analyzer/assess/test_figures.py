from dataclasses import fields, replace

import numpy as np
import pytest

from calidrift_agent._vocabulary import RATIO_BOUNDS, CountColumn, Instrument
from calidrift_agent.errors import ConfigurationError, ProfileMismatchError
from calidrift_analyzer.assess import assess
from calidrift_analyzer.records import ModelHistory, Verdict, record_document


def test_an_alias_is_the_same_point(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    points = {"a:input": replace(bench.profile.points["a:input"], aliases=("a2:input",))}
    bench.profile = replace(bench.profile, points=points)
    bench.meta = bench.traffic.meta(points=("a2:input",), profile=bench.profile.digest)
    bench.send(bench.normal(50, scale=5.0))
    found = bench.assess()
    assert [point.name for point in found.points] == ["a2:input"]
    assert found.verdict is Verdict.DRIFTED_HARMFUL


def test_without_a_range_the_absmax_range_is_assumed_and_said(bench):
    bench.calibrate({"a:input": bench.normal(512)}, clip=False)
    bench.send(bench.normal(50, scale=5.0))
    point = bench.assess().points[0]
    assert point.verdict is Verdict.DRIFTED_HARMFUL
    assert point.clip_assumed
    assert point.clipped_energy is None
    assert "absmax quantizer" in point.sentence


def test_unknown_cost_counts_as_harm(bench):
    bench.calibrate({"a:input": bench.normal(512)}, clip=False, sketches=False)
    bench.send(bench.normal(50, scale=5.0))
    point = bench.assess().points[0]
    assert point.verdict is Verdict.DRIFTED_HARMFUL
    assert point.sqnr_change_db is None
    assert "cannot be predicted" in point.sentence


def test_constant_zero_point_has_no_sqnr(bench):
    bench.calibrate({"a:input": np.zeros((64, 4))}, clip=False)
    bench.send(np.zeros((20, 4)))
    point = bench.assess().points[0]
    assert point.verdict is Verdict.NOT_DRIFTED
    assert point.sqnr_change_db is None


def test_an_alarm_is_never_taken_back(bench):
    bench.calibrate({"a:input": bench.normal(128)})
    bench.send(bench.normal(20, scale=5.0))
    first = bench.assess()
    for _ in range(5):
        bench.send(bench.normal(400, scale=0.5))
    later = bench.assess()
    assert later.points[0].verdict is not Verdict.NOT_DRIFTED
    assert later.alarm == first.alarm
    assert later.points[0].log10_evidence >= first.points[0].log10_evidence


def test_a_late_calm_process_cannot_hide_an_alarm(bench, traffic):
    """Windows that arrive late are older in time, but later in the order of looks."""
    bench.calibrate({"a:input": bench.normal(128)})
    bench.number = 10_000
    bench.send(bench.normal(20, scale=5.0))
    first = bench.assess()
    bench.meta = traffic.meta(points=("a:input",), profile=bench.profile.digest)
    bench.number = 0
    bench.send(bench.normal(4000, scale=0.1))
    assert bench.assess().alarm == first.alarm


def test_alarms_are_recorded_once(bench, store):
    bench.calibrate({"a:input": bench.normal(128)})
    bench.send(bench.normal(20, scale=5.0))
    first = bench.assess()
    store.outcomes.record_assessment(first, "{}")
    bench.send(bench.normal(20, scale=5.0))
    store.outcomes.record_assessment(bench.assess(), "{}")
    rows = store.outcomes.alarms("net", bench.profile.digest)
    assert [(row.point, row.end_ns, row.units) for row in rows] == [
        ("a:input", first.alarm.end_ns, first.alarm.units)
    ]
    assert rows[0].log10_evidence == first.points[0].log10_evidence
    assert [row.verdict for row in store.outcomes.assessments("net")] == ["drifted_harmful"] * 2


def test_smaller_alpha_asks_for_more(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    bench.send(bench.normal(2, scale=5.0), units_per_window=1)
    assert bench.assess(alpha=0.05).alarm is not None
    strict = bench.assess(alpha=1e-9)
    assert strict.alarm is None
    assert strict.detectable_exceedance > bench.assess().detectable_exceedance


def test_another_profile_is_refused(bench):
    bench.calibrate({"a:input": bench.normal(64)})
    bench.send(bench.normal(5))
    other = bench.traffic.profile({"a:input": bench.normal(64)})
    digest = bench.profile.digest
    with pytest.raises(ProfileMismatchError, match="compared with profile"):
        assess(bench.store.totals("net", digest), bench.store.history("net", digest), other)


def test_another_instrument_is_refused(bench):
    bench.calibrate({"a:input": bench.normal(64)}, instrument=Instrument.CLIP)
    bench.send(bench.normal(5))
    with pytest.raises(ProfileMismatchError, match="clip instrument"):
        bench.assess()


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_alpha_is_refused(bench, alpha):
    bench.calibrate({"a:input": bench.normal(64)})
    with pytest.raises(ConfigurationError, match="alpha"):
        bench.assess(alpha=alpha)


def test_non_finite_activations_do_not_break_it(bench):
    bench.calibrate({"a:input": bench.normal(64)})
    values = bench.normal(20)
    values[0, 0], values[1, 1] = np.nan, np.inf
    window = bench.traffic.unit_window(0, [values], [100.0])
    window.values[0, 3] = np.inf
    window.values[0, 4] = np.nan
    bench.store.ingest(bench.meta, [window], batch=1)
    point = bench.assess().points[0]
    assert point.clipped_energy is None
    assert point.sqnr_production_db is not None


def test_only_non_finite_values(bench):
    bench.calibrate({"a:input": bench.normal(64)})
    window = bench.traffic.unit_window(0, [np.full((5, 4), np.nan)], [100.0])
    bench.store.ingest(bench.meta, [window], batch=1)
    point = bench.assess().points[0]
    assert point.sqnr_production_db is None
    assert point.lowest is None


def test_the_sequential_test_sees_what_the_totals_sum(bench):
    bench.calibrate({"a:input": bench.normal(64)})
    bench.send(bench.normal(90, scale=1.5), units_per_window=7)
    history = bench.store.history("net", bench.profile.digest)
    totals = bench.store.totals("net", bench.profile.digest)
    assert history.units.sum() == totals.points[0].units == 90
    assert history.exceedances.sum() == totals.points[0].exceedances
    assert {field.name for field in fields(ModelHistory)} >= {"units", "exceedances"}


def test_decision_figures_and_explanations_of_a_point(bench):
    """Over-range and tail shift decide; the distances are kept apart and explain."""
    values = bench.normal(512, elements=256)
    bench.calibrate({"a:input": values})
    bench.send(bench.normal(200, scale=4.0, elements=256))
    point = bench.assess().points[0]
    assert point.tail_shift_octaves == pytest.approx(2.0, abs=0.1)
    assert point.far_tail_shift_octaves == pytest.approx(2.0, abs=0.2)
    assert point.over_range_octaves == pytest.approx(-1.7, abs=0.3)
    assert point.explanatory.w1_octaves == pytest.approx(2.0, abs=0.1)
    assert 0 < point.explanatory.js_bits < 1
    document = record_document(bench.assess())["points"][0]
    assert set(document["explanatory"]) == {"w1_octaves", "js_bits", "psi", "ks"}
    assert {"over_range_octaves", "tail_shift_octaves"} < set(document)
    assert not {"psi", "ks", "js_bits", "w1_octaves"} & set(document)


def test_without_sketches_or_values_there_is_nothing_to_explain(bench):
    bench.calibrate({"a:input": bench.normal(64)}, sketches=False)
    bench.send(bench.normal(20))
    point = bench.assess().points[0]
    assert (point.explanatory, point.tail_shift_octaves, point.return_level) == (None, None, None)
    assert point.over_range_octaves is not None


def test_the_return_level_is_that_of_the_counted_ratios(bench):
    bench.calibrate({"a:input": bench.normal(512)})
    rng = np.random.default_rng(0)
    first = CountColumn.RATIO_FIRST
    counts = np.bincount(np.searchsorted(RATIO_BOUNDS, rng.gumbel(0.7, 0.1, 2_000)), minlength=11)
    bound = bench.profile.points["a:input"].observed_bound.value
    window = bench.traffic.unit_window(0, [bench.normal(10)], [bound])
    window.counts[0, first : first + 11] = counts
    bench.store.ingest(bench.meta, [window], batch=1)
    found = bench.assess().points[0].return_level
    assert found.units == 2_000
    assert found.low <= found.level <= found.high
    assert found.threshold in {bound * ratio for ratio in RATIO_BOUNDS}
